-- Paid orders that nothing is under way for, oldest first. Those that come back, or whose money goes
-- back, are passed over.
--
-- $1 sale (null: any)  $2 shipping method (null: any)  $3, $4 the order before: its time and id
-- (null: from the first)  $5 how many
SELECT o.sale_id, o.reservation_id, o.user_id, o.items, o.amount_minor, o.currency, o.reserved_at,
       c.shipping_method AS method_id, c.address
FROM orders o LEFT JOIN checkouts c USING (sale_id, reservation_id)
WHERE o.status = 'paid'
  AND ($1::text IS NULL OR o.sale_id = $1)
  AND ($2::text IS NULL OR c.shipping_method = $2)
  AND ($3::timestamptz IS NULL OR (o.reserved_at, o.reservation_id) > ($3, $4::text COLLATE "C"))
  AND NOT EXISTS (
      SELECT FROM shipments s WHERE (s.sale_id, s.reservation_id) = (o.sale_id, o.reservation_id)
      AND s.state NOT IN ('refused', 'cancelled'))
  AND NOT EXISTS (
      SELECT FROM returns r WHERE (r.sale_id, r.reservation_id) = (o.sale_id, o.reservation_id)
      AND r.state IN ('requested', 'approved', 'received'))
  AND NOT refund_under_way(o.sale_id, o.reservation_id)
ORDER BY o.reserved_at, o.reservation_id LIMIT $5
