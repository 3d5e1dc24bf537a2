-- Takes one use of each promotion whose cap has room, or that has none: those are held, not counted.
-- $1 promotions. Returns those. One whose cap is set or removed at this moment is not among them.
WITH locked AS (
    SELECT promotion_id FROM promotion_counts
    WHERE promotion_id = ANY ($1::text[]) AND uses_max IS NOT NULL
    ORDER BY promotion_id FOR NO KEY UPDATE
), counted AS (
    UPDATE promotion_counts c SET used = used + 1 FROM locked
    WHERE c.promotion_id = locked.promotion_id AND used < uses_max
    RETURNING c.promotion_id
), held AS (
    SELECT promotion_id FROM promotion_counts
    WHERE promotion_id = ANY ($1::text[]) AND uses_max IS NULL
    ORDER BY promotion_id FOR KEY SHARE
)
SELECT promotion_id FROM counted UNION ALL SELECT promotion_id FROM held
