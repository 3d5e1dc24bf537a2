-- Hands the next events to the subscriptions that want them. One atomic step; one process at a time.
-- Events of transactions that have not ended yet come later: what is younger than the oldest of
-- those waits, so that none is passed over.
-- $1 events at most
-- Returns taken: how many events were looked at; waited_seconds: how long the oldest had waited, whether
-- it was its turn or not: a transaction that never ends is seen by that.
WITH stood AS MATERIALIZED (
    SELECT written_by, event_id FROM fan_out FOR UPDATE
), next AS MATERIALIZED (
    SELECT events.event_id, events.written_by, events.type
    FROM events, stood
    WHERE (events.written_by, events.event_id) > (stood.written_by, stood.event_id)
      AND events.written_by < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY events.written_by, events.event_id LIMIT $1
), handed AS (
    INSERT INTO deliveries (subscription_id, event_id)
    SELECT subscription_id, event_id FROM next JOIN subscriptions
        ON state = 'active' AND is_told(type, types)
    ORDER BY event_id, subscription_id
    ON CONFLICT DO NOTHING
), moved AS (
    UPDATE fan_out SET written_by = last.written_by, event_id = last.event_id
    FROM (SELECT written_by, event_id FROM next ORDER BY written_by DESC, event_id DESC LIMIT 1) AS last
)
SELECT count(*) AS taken, coalesce((
    SELECT extract(epoch FROM now() - at)::float8 FROM events, stood
    WHERE (events.written_by, events.event_id) > (stood.written_by, stood.event_id)
    ORDER BY events.written_by, events.event_id LIMIT 1), 0) AS waited_seconds
FROM next
