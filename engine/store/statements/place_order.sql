-- Takes units of the shop's own stock and makes the order, all or nothing: one statement, one atomic step.
-- Running it again changes nothing: an order of that id is left as it is.
-- The SKUs are locked in their order, as in resolve_orders.sql.
--
-- $1 reservation id  $2 user  $3 items ({"phone-black": 1})  $4 amount  $5 currency
-- $6 reserved at  $7 reserved until
-- Returns placed: whether the order was made now; short: the first SKU of which too few are left, or null.
WITH wanted AS (
    SELECT key AS sku, value::bigint AS units FROM jsonb_each_text($3)
), locked AS (
    SELECT sku, stocked - ordered AS available FROM sale_items
    WHERE sale_id = 'shop' AND sku IN (SELECT sku FROM wanted)
    ORDER BY sku FOR UPDATE
), short AS (
    SELECT sku FROM wanted LEFT JOIN locked USING (sku)
    WHERE coalesce(available, 0) < units
), placed AS (
    INSERT INTO orders (sale_id, reservation_id, user_id, items, amount_minor, currency, status,
                        reserved_at, reserved_until)
    SELECT 'shop', $1, $2, $3, $4, $5, 'awaiting_payment', $6, $7
    WHERE NOT EXISTS (SELECT FROM short)
    ON CONFLICT DO NOTHING
    RETURNING reservation_id
), counted AS (
    UPDATE sale_items SET ordered = ordered + units
    FROM wanted, placed
    WHERE sale_items.sale_id = 'shop' AND sale_items.sku = wanted.sku
), lined AS (
    INSERT INTO ledger (sale_id, sku, counter, units, reason, reference)
    SELECT 'shop', sku, 'ordered', units, 'placed', reservation_id FROM wanted, placed
)
SELECT EXISTS (SELECT FROM placed) AS placed, (SELECT min(sku) FROM short) AS short
