-- Orders that fit, newest first. The first condition is written by api/orders/history.py: by user
-- the index of the user's orders serves, without one the coarse index by time.
--
-- $1 user, or the time from which on  $2 statuses (null: any)  $3 sale (null: any)  $4 from  $5 to
-- $6 part of a SKU (null: any)  $7, $8 the order above: its time and id (null: from the newest)
-- $9 how many
SELECT sale_id, reservation_id, user_id, items, amount_minor, currency, status, status_reason,
       reserved_at, reserved_until
FROM orders
WHERE {whose}
  AND ($2::text[] IS NULL OR status = ANY ($2))
  AND ($3::text IS NULL OR sale_id = $3)
  AND ($4::timestamptz IS NULL OR reserved_at >= $4)
  AND ($5::timestamptz IS NULL OR reserved_at < $5)
  AND ($6::text IS NULL OR EXISTS (
      SELECT FROM jsonb_object_keys(items) AS sku WHERE strpos(lower(sku), lower($6)) > 0))
  AND ($7::timestamptz IS NULL OR (reserved_at, reservation_id) < ($7, $8::text COLLATE "C"))
ORDER BY reserved_at DESC, reservation_id DESC LIMIT $9
