-- Moves the lines of one cart into another; both are locked.
-- $1 from  $2 into  $3 lines that it may have
WITH joined AS (
    UPDATE cart_lines mine SET quantity = greatest(mine.quantity, theirs.quantity)
    FROM cart_lines theirs
    WHERE mine.cart_id = $2 AND theirs.cart_id = $1
      AND (mine.sale_id, mine.sku) = (theirs.sale_id, theirs.sku)
)
INSERT INTO cart_lines (cart_id, sale_id, sku, quantity, price_minor, currency, added_at)
SELECT $2, sale_id, sku, quantity, price_minor, currency, added_at
FROM cart_lines theirs
WHERE cart_id = $1 AND NOT EXISTS (
    SELECT FROM cart_lines mine
    WHERE mine.cart_id = $2 AND (mine.sale_id, mine.sku) = (theirs.sale_id, theirs.sku))
ORDER BY added_at DESC, sale_id, sku
LIMIT greatest(0, $3::bigint - (SELECT count(*) FROM cart_lines WHERE cart_id = $2))
