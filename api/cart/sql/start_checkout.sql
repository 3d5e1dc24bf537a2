-- Writes a checkout down, in place of one with the same key that was dropped.
-- $1 … $13 the columns, in the order of api/cart/checkouts.py
-- Returns true; no row if there is one with this key that was not dropped.
INSERT INTO checkouts AS mine (sale_id, reservation_id, user_id, idempotency_key, request_hash,
                               amount_minor, currency, quote, address, shipping_method, language,
                               redeems, state)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
ON CONFLICT (user_id, idempotency_key) DO UPDATE
SET sale_id = excluded.sale_id, reservation_id = excluded.reservation_id,
    request_hash = excluded.request_hash, amount_minor = excluded.amount_minor,
    currency = excluded.currency, quote = excluded.quote, address = excluded.address,
    shipping_method = excluded.shipping_method, language = excluded.language,
    redeems = excluded.redeems, state = excluded.state, created_at = now()
WHERE mine.state = 'dropped'
RETURNING true
