-- Writes what a checkout redeems; what it took before and was given back is taken again.
-- $1 sale  $2 reservation  $3 user  $4 currency  $5 promotions  $6 revisions  $7 codes  $8 amounts
-- Returns the promotions that were not taken before.
INSERT INTO redemptions AS r (promotion_id, revision, code, amount_minor, sale_id, reservation_id,
                              user_id, currency)
SELECT promotion_id, revision, code, amount_minor, $1, $2, $3, $4
FROM unnest($5::text[], $6::int[], $7::text[], $8::bigint[])
    AS taken(promotion_id, revision, code, amount_minor)
ORDER BY promotion_id
ON CONFLICT (sale_id, reservation_id, promotion_id) DO UPDATE
    SET state = 'taken', revision = excluded.revision, code = excluded.code,
        amount_minor = excluded.amount_minor, currency = excluded.currency, taken_at = now(),
        given_back_at = NULL
    WHERE r.state IN ('given_back', 'dropped')
RETURNING promotion_id
