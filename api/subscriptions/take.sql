-- Leases deliveries that are due: of each receiver the oldest ones, of those receivers first that wait
-- longest. Those of paused subscriptions wait.
-- $1 rows of one receiver at most  $2 receivers at most  $3 receivers that are at work  $4 lease in seconds
WITH receivers AS (
    SELECT subscription_id, first.due_at FROM subscriptions
    CROSS JOIN LATERAL (
        SELECT due_at FROM deliveries
        WHERE deliveries.subscription_id = subscriptions.subscription_id
          AND deliveries.state = 'waiting' AND due_at <= now()
        ORDER BY due_at LIMIT 1
    ) AS first
    WHERE subscriptions.state = 'active' AND subscription_id <> ALL ($3::text[])
    ORDER BY first.due_at, subscription_id LIMIT $2
), chosen AS (
    SELECT due.delivery_id FROM receivers
    CROSS JOIN LATERAL (
        SELECT delivery_id FROM deliveries
        WHERE deliveries.subscription_id = receivers.subscription_id
          AND deliveries.state = 'waiting' AND due_at <= now()
        ORDER BY due_at, delivery_id LIMIT $1 FOR UPDATE SKIP LOCKED
    ) AS due
), leased AS (
    UPDATE deliveries SET due_at = now() + make_interval(secs => $4), attempts = attempts + 1
    WHERE delivery_id = ANY (ARRAY(SELECT delivery_id FROM chosen))
    RETURNING delivery_id, subscription_id, event_id, attempts
)
SELECT delivery_id, attempts, url, secret,
       CASE WHEN old_secret_until > now() THEN old_secret END AS old_secret, subscription_id,
       events.event_id, type, sale_id, reservation_id, user_id, data, at
FROM leased JOIN subscriptions USING (subscription_id) JOIN events USING (event_id)
ORDER BY subscription_id, delivery_id
