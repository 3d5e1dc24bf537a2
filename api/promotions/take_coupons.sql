-- Takes one use of each coupon that is this user's to use. $1 codes  $2 user. Returns those.
WITH locked AS (
    SELECT code FROM coupons WHERE code = ANY ($1::text[]) ORDER BY code FOR NO KEY UPDATE
)
UPDATE coupons c SET used = used + 1 FROM locked
WHERE c.code = locked.code AND (uses_max IS NULL OR used < uses_max)
  AND (owner_id IS NULL OR owner_id = $2) AND withdrawn_at IS NULL
RETURNING c.code
