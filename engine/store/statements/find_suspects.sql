-- Where the buyers' records copied from Redis (`seen`, `streamed`) and the orders differ.
-- $1 sale id   $2 when `seen` began to be read, ms, or null   $3 these reservations only, or null
-- $4 rows at most
WITH moving AS MATERIALIZED (
    SELECT reference AS reservation_id FROM outbox
    WHERE sale_id = $1 AND kind IN ('confirm', 'release')
  UNION
    SELECT payments.reservation_id FROM outbox JOIN payments ON payment_id = reference
    WHERE outbox.sale_id = $1 AND kind = 'late_capture'
), matched AS (
    SELECT coalesce(orders.reservation_id, seen.reservation_id) AS reservation_id,
           coalesce(seen.user_id, orders.user_id) AS user_id,
           orders.user_id AS owner, seen.state, status,
           seen.items AS wished, orders.items AS ordered, reserved_at
    FROM (SELECT reservation_id, user_id, items, status, reserved_at FROM orders
          WHERE sale_id = $1 AND ($3::text[] IS NULL OR reservation_id = ANY ($3))) AS orders
    FULL JOIN (SELECT reservation_id, user_id, state, items FROM seen
               WHERE $3::text[] IS NULL OR reservation_id = ANY ($3)) AS seen
    ON seen.reservation_id = orders.reservation_id
), judged AS (
    SELECT reservation_id, user_id, CASE
        WHEN status IS NULL AND state IN ('r', 'c')
            THEN '3 is in Redis, but neither an order nor in the stream'
        WHEN status IS NULL THEN NULL
        WHEN state IS NULL AND ($2::bigint IS NULL OR reserved_at < to_timestamp($2 / 1000.0))
            THEN '8 is an order (' || status || ') that Redis does not hold'
        WHEN state IS NULL THEN NULL
        WHEN user_id <> owner THEN '5 belongs to two buyers'
        WHEN wished <> ordered THEN '5 has other items in Redis than in its order'
        WHEN state <> CASE status WHEN 'awaiting_payment' THEN 'r'
                                  WHEN 'cancelled' THEN 'x' WHEN 'refunded' THEN 'x'
                                  WHEN 'expired' THEN 'e' ELSE 'c' END
            THEN '3 is an order (' || status || ') with state ' || state || ' in Redis'
        END AS problem
    FROM matched
)
SELECT reservation_id, user_id, problem FROM judged
WHERE problem IS NOT NULL
  AND NOT (problem LIKE '3 is in %' AND reservation_id IN (SELECT reservation_id FROM streamed))
  AND NOT (problem LIKE '3 is an order%'
           AND reservation_id IN (SELECT reservation_id FROM moving))
LIMIT $4
