-- Locks a cart for a change and gives it a new revision; makes it if there is none.
-- $1 cart  $2 whether it is a guest's  $3 now  $4 the revision it must have (0: none yet; null: any)
-- Returns the new revision; no row if it has another one than $4.
INSERT INTO carts (cart_id, is_guest, changed_at)
SELECT $1, $2, $3
WHERE $4::bigint IS NULL OR $4 = 0 OR EXISTS (SELECT FROM carts WHERE cart_id = $1)
ON CONFLICT (cart_id) DO UPDATE SET revision = nextval('cart_revisions'), changed_at = $3
WHERE $4::bigint IS NULL OR carts.revision = $4
RETURNING revision
