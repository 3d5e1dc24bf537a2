-- Sets a line of a cart that is locked, or adds to it.
-- $1 cart  $2 sale  $3 SKU  $4 quantity  $5 price of one now  $6 its currency  $7 now
-- $8 whether the quantity is added to what is there
-- Returns how many lines the cart has now.
WITH put AS (
    INSERT INTO cart_lines AS line (cart_id, sale_id, sku, quantity, price_minor, currency, added_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (cart_id, sale_id, sku) DO UPDATE
    SET quantity = EXCLUDED.quantity + CASE WHEN $8 THEN line.quantity ELSE 0 END,
        price_minor = EXCLUDED.price_minor, currency = EXCLUDED.currency
    RETURNING sale_id, sku
)
SELECT count(*) + (SELECT count(*) FROM put) FROM cart_lines
WHERE cart_id = $1 AND (sale_id, sku) NOT IN (SELECT sale_id, sku FROM put)
