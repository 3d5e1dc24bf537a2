-- Takes what became an order out of a cart: these units, no more. A cart that has none of them is left.
-- $1 cart  $2 sale  $3 SKUs  $4 units of each  $5 now
WITH bought AS (
    SELECT * FROM unnest($3::text[], $4::int[]) AS bought(sku, units)
), changed AS (
    UPDATE carts SET revision = nextval('cart_revisions'), changed_at = $5
    WHERE cart_id = $1 AND EXISTS (
        SELECT FROM cart_lines JOIN bought USING (sku) WHERE cart_id = $1 AND sale_id = $2)
    RETURNING cart_id
), emptied AS (
    DELETE FROM cart_lines line USING bought, changed
    WHERE line.cart_id = changed.cart_id AND line.sale_id = $2 AND line.sku = bought.sku
      AND line.quantity <= bought.units
)
UPDATE cart_lines line SET quantity = line.quantity - bought.units FROM bought, changed
WHERE line.cart_id = changed.cart_id AND line.sale_id = $2 AND line.sku = bought.sku
  AND line.quantity > bought.units
