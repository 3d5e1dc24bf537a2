-- Delivers again: the events of a time to one subscription, whatever became of them before.
-- $1 subscription  $2 from  $3 until  $4 events at most
-- Returns how many events are delivered (again).
WITH chosen AS (
    SELECT event_id FROM events, subscriptions
    WHERE subscription_id = $1 AND at >= $2 AND at < $3 AND is_told(type, types)
    ORDER BY event_id LIMIT $4
), put AS (
    INSERT INTO deliveries (subscription_id, event_id) SELECT $1, event_id FROM chosen
    ON CONFLICT (subscription_id, event_id) DO UPDATE
    SET state = 'waiting', attempts = 0, due_at = now(), delivered_at = NULL
    RETURNING delivery_id
)
SELECT count(*) FROM put
