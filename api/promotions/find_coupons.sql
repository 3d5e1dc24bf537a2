-- Coupons with their promotions, and how much of every cap is used.
-- $1 codes  $2 user (null: nobody yet)
SELECT coupons.code, coupons.owner_id, coupons.withdrawn_at, coupons.uses_max AS code_uses_max,
       promotions.promotion_id, promotions.revision, terms, active, valid_from, valid_until, new_buyers_only,
       coalesce(coupons.used >= coupons.uses_max, false) AS coupon_full,
       coalesce(counts.used >= counts.uses_max, false) AS promotion_full,
       coalesce(uses.used >= promotions.per_user_max, false) AS user_full,
       new_buyers_only AND NOT EXISTS (
           SELECT FROM orders WHERE orders.user_id = $2::text AND status NOT IN ('cancelled', 'expired')
       ) AS is_new_buyer
FROM unnest($1::text[]) AS wanted(code)
JOIN coupons USING (code)
JOIN promotions USING (promotion_id)
JOIN promotion_revisions revisions USING (promotion_id, revision)
JOIN promotion_counts counts USING (promotion_id)
LEFT JOIN promotion_uses uses
    ON uses.promotion_id = promotions.promotion_id AND uses.user_id = $2
