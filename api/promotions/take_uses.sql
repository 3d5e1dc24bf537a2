-- Takes one of a user's uses of each promotion. $1 promotions  $2 user. Returns those with room.
INSERT INTO promotion_uses AS u (promotion_id, user_id, per_user_max, used)
SELECT promotion_id, $2, per_user_max, 1 FROM promotions WHERE promotion_id = ANY ($1::text[])
ORDER BY promotion_id
ON CONFLICT (promotion_id, user_id) DO UPDATE
    SET used = u.used + 1, per_user_max = excluded.per_user_max
    WHERE excluded.per_user_max IS NULL OR u.used < excluded.per_user_max
RETURNING promotion_id
