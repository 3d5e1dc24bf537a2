-- What is wrong between payments and orders.
-- $1 sale ids   $2 seconds after which a refund should have been made
WITH paid AS (
    SELECT sale_id, reservation_id, amount_minor, currency FROM orders
    WHERE sale_id = ANY ($1::text[]) AND status IN ('paid', 'shipped', 'delivered')
), charges AS (
    SELECT sale_id, reservation_id,
           count(*) FILTER (WHERE status = 'captured') AS captured,
           count(*) FILTER (WHERE status = 'refunding') AS refunding
    FROM payments
    WHERE sale_id = ANY ($1::text[]) AND status IN ('captured', 'refunding')
    GROUP BY sale_id, reservation_id
), problems AS (
    SELECT 'paid without a captured payment' AS problem, sale_id, reservation_id
    FROM paid LEFT JOIN charges USING (sale_id, reservation_id)
    WHERE coalesce(captured, 0) = 0 AND coalesce(refunding, 0) = 0
  UNION ALL
    SELECT 'charged more than once', sale_id, reservation_id
    FROM charges WHERE captured > 1
  UNION ALL
    SELECT 'charged but not paid, and nobody handles it', sale_id, reservation_id
    FROM payments JOIN orders USING (sale_id, reservation_id)
    WHERE sale_id = ANY ($1::text[]) AND payments.status = 'captured'
      AND orders.status NOT IN ('paid', 'shipped', 'delivered')
      AND NOT EXISTS (
          SELECT FROM outbox
          WHERE kind IN ('late_capture', 'refund') AND reference = payment_id)
  UNION ALL
    SELECT 'to be refunded, and nobody handles it', sale_id, reservation_id
    FROM payments
    WHERE sale_id = ANY ($1::text[]) AND status = 'refunding'
      AND updated_at < now() - make_interval(secs => $2)
      AND NOT EXISTS (SELECT FROM outbox WHERE kind = 'refund' AND reference = payment_id)
  UNION ALL
    SELECT 'charged another amount', sale_id, reservation_id
    FROM payments JOIN orders USING (sale_id, reservation_id)
    WHERE sale_id = ANY ($1::text[]) AND payments.status = 'captured'
      AND (payments.amount_minor, payments.currency)
          <> (orders.amount_minor, orders.currency)
)
SELECT problem, count(*) AS count, min(sale_id || '.' || reservation_id) AS example
FROM problems GROUP BY problem ORDER BY problem
