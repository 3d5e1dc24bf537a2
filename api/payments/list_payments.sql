-- Payments, newest first, from the one after ($7, $8) on.
-- $1 provider   $2 status   $3 user   $4, $5 sale and reservation   $6 made before   $9 made since
-- $10 how many
SELECT p.payment_id, p.sale_id, p.reservation_id, o.user_id, p.provider, p.provider_ref, p.status,
       p.amount_minor, p.currency, p.detail, p.idempotency_key = 'auto' AS by_engine, p.created_at,
       p.updated_at, p.captured_at, p.refunded_at
FROM payments p JOIN orders o USING (sale_id, reservation_id)
WHERE ($1::text IS NULL OR p.provider = $1)
  AND ($2::text IS NULL OR p.status = $2)
  AND ($3::text IS NULL OR o.user_id = $3)
  AND ($4::text IS NULL OR (p.sale_id, p.reservation_id) = ($4, $5::text))
  AND ($6::timestamptz IS NULL OR p.created_at < $6)
  AND ($7::timestamptz IS NULL OR (p.created_at, p.payment_id) < ($7, $8::text))
  AND ($9::timestamptz IS NULL OR p.created_at >= $9)
ORDER BY p.created_at DESC, p.payment_id DESC LIMIT $10
