-- Puts lines back into a cart that is locked, beside what was added meanwhile.
-- $1 cart  $2 sale  $3 SKUs  $4 units of each  $5 prices of one  $6 currency  $7 now  $8 units of a line at most
INSERT INTO cart_lines AS line (cart_id, sale_id, sku, quantity, price_minor, currency, added_at)
SELECT $1, $2, sku, units, price_minor, $6, $7
FROM unnest($3::text[], $4::int[], $5::bigint[]) AS back(sku, units, price_minor)
ORDER BY sku
ON CONFLICT (cart_id, sale_id, sku) DO UPDATE
SET quantity = least(line.quantity + excluded.quantity, $8::int)
