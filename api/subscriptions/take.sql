-- Leases deliveries that are due, oldest first; those of paused subscriptions wait.
-- $1 rows at most  $2 lease in seconds
WITH leased AS (
    UPDATE deliveries SET due_at = now() + make_interval(secs => $2), attempts = attempts + 1
    WHERE delivery_id = ANY (ARRAY(
        SELECT delivery_id FROM deliveries JOIN subscriptions USING (subscription_id)
        WHERE deliveries.state = 'waiting' AND due_at <= now() AND subscriptions.state = 'active'
        ORDER BY due_at, delivery_id LIMIT $1
        FOR UPDATE OF deliveries SKIP LOCKED))
    RETURNING delivery_id, subscription_id, event_id, attempts
)
SELECT delivery_id, attempts, url, secret,
       CASE WHEN old_secret_until > now() THEN old_secret END AS old_secret, subscription_id,
       events.event_id, type, sale_id, reservation_id, user_id, data, at
FROM leased JOIN subscriptions USING (subscription_id) JOIN events USING (event_id)
ORDER BY delivery_id
