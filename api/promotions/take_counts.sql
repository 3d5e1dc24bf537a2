-- Takes one use of each promotion whose cap has room. $1 promotions. Returns those.
WITH locked AS (
    SELECT promotion_id FROM promotion_counts WHERE promotion_id = ANY ($1::text[])
    ORDER BY promotion_id FOR NO KEY UPDATE
)
UPDATE promotion_counts c SET used = used + 1 FROM locked
WHERE c.promotion_id = locked.promotion_id AND (uses_max IS NULL OR used < uses_max)
RETURNING c.promotion_id
