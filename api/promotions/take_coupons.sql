-- Takes one use of each coupon that is this user's to use; those for everybody are not counted.
-- $1 codes  $2 user. Returns those.
WITH locked AS (
    SELECT code FROM coupons WHERE code = ANY ($1::text[]) AND uses_max IS NOT NULL
    ORDER BY code FOR NO KEY UPDATE
), counted AS (
    UPDATE coupons c SET used = used + 1 FROM locked
    WHERE c.code = locked.code AND used < uses_max
      AND (owner_id IS NULL OR owner_id = $2) AND withdrawn_at IS NULL
    RETURNING c.code
)
SELECT code FROM counted
UNION ALL
SELECT code FROM coupons
WHERE code = ANY ($1::text[]) AND uses_max IS NULL AND withdrawn_at IS NULL
