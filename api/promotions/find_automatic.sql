-- Promotions that apply without a code, as far as their caps and their validity go.
-- $1 user (null: nobody yet)  $2 currency  $3 moment  $4 at most so many
SELECT promotions.promotion_id, promotions.revision, terms
FROM promotions
JOIN promotion_revisions revisions USING (promotion_id, revision)
JOIN promotion_counts counts USING (promotion_id)
LEFT JOIN promotion_uses uses
    ON uses.promotion_id = promotions.promotion_id AND uses.user_id = $1::text
WHERE active AND NOT by_code AND valid_from <= $3 AND (valid_until IS NULL OR $3 < valid_until)
  AND terms -> 'currencies' ? $2
  AND (counts.uses_max IS NULL OR counts.used < counts.uses_max)
  AND (promotions.per_user_max IS NULL OR coalesce(uses.used, 0) < promotions.per_user_max)
  AND NOT (new_buyers_only AND EXISTS (
      SELECT FROM orders WHERE orders.user_id = $1 AND status NOT IN ('cancelled', 'expired')))
ORDER BY priority, promotions.promotion_id LIMIT $4
