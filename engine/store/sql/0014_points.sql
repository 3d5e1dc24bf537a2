-- Points: an append-only ledger, the balances it adds up to, and the lots that expire.
-- For every user: sum(point_lines.points) = balance - owed, and sum(point_lots.points_left) = balance.
--
-- Whoever changes a balance locks it first, several in the order of their users, after any lock of
-- orders, units and promotions.
CREATE TABLE points_rules (
    currency          char(3) PRIMARY KEY,
    minor_per_major   integer NOT NULL CHECK (minor_per_major > 0),     -- of the currency
    earned_per_major  numeric(12, 6) NOT NULL CHECK (earned_per_major >= 0),
    points_per_major  integer NOT NULL DEFAULT 100 CHECK (points_per_major > 0),
    share_max_percent integer NOT NULL DEFAULT 50 CHECK (share_max_percent BETWEEN 0 AND 100),
    valid_days        integer CHECK (valid_days > 0),                   -- null: for ever
    updated_at        timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE point_balances (
    user_id text COLLATE "C" PRIMARY KEY,
    balance bigint NOT NULL DEFAULT 0,
    -- Earned points were taken back that had been spent. The next ones pay for it first.
    owed    bigint NOT NULL DEFAULT 0,
    CONSTRAINT points_not_below_zero CHECK (balance >= 0 AND owed >= 0),
    CHECK (balance = 0 OR owed = 0)
) WITH (fillfactor = 80);

CREATE TABLE point_lines (
    line_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id        text COLLATE "C" NOT NULL,
    kind           text NOT NULL CHECK (kind IN ('earned', 'spent', 'given_back', 'reversed',
                                                 'expired', 'granted', 'deducted')),
    points         bigint NOT NULL CHECK (points <> 0),  -- signed change
    sale_id        text,                                 -- the order, if one is why
    reservation_id text COLLATE "C",
    reason         text,                                 -- an operator's words
    reference      text,                                 -- an operator's key: the same is done once
    expires_at     timestamptz,
    at             timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX point_lines_of_user ON point_lines (user_id, line_id);
CREATE INDEX point_lines_of_order ON point_lines (sale_id, reservation_id) WHERE kind = 'earned';
CREATE UNIQUE INDEX point_lines_once ON point_lines (user_id, reference) WHERE reference IS NOT NULL;
CREATE TRIGGER point_lines_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON point_lines
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What is left of points that came together; those that expire first are used first.
CREATE TABLE point_lots (
    lot_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id     text COLLATE "C" NOT NULL,
    points      bigint NOT NULL,
    points_left bigint NOT NULL CHECK (points_left BETWEEN 0 AND points),
    expires_at  timestamptz
);
CREATE INDEX point_lots_left ON point_lots (user_id, expires_at, lot_id) WHERE points_left > 0;
CREATE INDEX point_lots_expiring ON point_lots (expires_at) WHERE points_left > 0;

-- What checkouts spent.
CREATE TABLE point_uses (
    sale_id        text NOT NULL,
    reservation_id text COLLATE "C" NOT NULL,
    user_id        text COLLATE "C" NOT NULL,
    points         bigint NOT NULL CHECK (points > 0),
    expires_at     timestamptz,                          -- when the last of them would have
    state          text NOT NULL DEFAULT 'taken' CHECK (state IN ('taken', 'given_back', 'dropped')),
    PRIMARY KEY (sale_id, reservation_id)
);

CREATE TYPE point_move AS (
    user_id text, kind text, points bigint, sale_id text, reservation_id text, reason text,
    reference text, expires_at timestamptz
);

-- Makes lots add up to their balance again: takes the excess from those that expire first.
CREATE FUNCTION settle_point_lots(users text[]) RETURNS void LANGUAGE sql AS $$
    UPDATE point_lots SET points_left = points_left - taken FROM (
        SELECT lot_id, least(points_left, excess - before) AS taken FROM (
            SELECT lot_id, points_left,
                sum(points_left) OVER (PARTITION BY user_id ORDER BY expires_at, lot_id)
                    - points_left AS before,
                sum(points_left) OVER (PARTITION BY user_id) - balance AS excess
            FROM point_lots JOIN point_balances USING (user_id)
            WHERE user_id = ANY (users) AND points_left > 0
        ) AS lot WHERE before < excess
    ) AS change
    WHERE point_lots.lot_id = change.lot_id
$$;

-- Writes lines, with all that follows from them. What a balance cannot pay is owed: callers that
-- may not owe look at the balance first, or call spend_points.
CREATE FUNCTION book_points(moves point_move[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    users text[] := (SELECT array_agg(DISTINCT user_id ORDER BY user_id) FROM unnest(moves));
    lots_change boolean;
BEGIN
    IF users IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO point_balances (user_id) SELECT unnest(users) ORDER BY 1 ON CONFLICT DO NOTHING;
    PERFORM FROM point_balances WHERE user_id = ANY (users) ORDER BY user_id FOR UPDATE;
    lots_change := EXISTS (SELECT FROM unnest(moves) WHERE points < 0)
        OR EXISTS (SELECT FROM point_balances WHERE user_id = ANY (users) AND owed > 0);
    UPDATE point_balances SET
        balance = greatest(balance - owed + change.points, 0),
        owed = greatest(owed - balance - change.points, 0)
    FROM (SELECT user_id, sum(points)::bigint AS points FROM unnest(moves) GROUP BY user_id) AS change
    WHERE point_balances.user_id = change.user_id;
    INSERT INTO point_lines (user_id, kind, points, sale_id, reservation_id, reason, reference, expires_at)
    SELECT user_id, kind, points, sale_id, reservation_id, reason, reference, expires_at
    FROM unnest(moves);
    INSERT INTO point_lots (user_id, points, points_left, expires_at)
    SELECT user_id, points, points, expires_at FROM unnest(moves) WHERE points > 0;
    IF lots_change THEN
        PERFORM settle_point_lots(users);
    END IF;
END $$;

-- Takes points that are there and not past their time; false if there are too few.
CREATE FUNCTION spend_points(move point_move, at timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM expire_points(ARRAY[move.user_id], at);
    UPDATE point_balances SET balance = balance + move.points
    WHERE user_id = move.user_id AND balance + move.points >= 0;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO point_lines (user_id, kind, points, sale_id, reservation_id, reason, reference)
    VALUES (move.user_id, move.kind, move.points, move.sale_id, move.reservation_id, move.reason,
            move.reference);
    PERFORM settle_point_lots(ARRAY[move.user_id]);
    RETURN true;
END $$;

-- Takes away what these users did not spend in time; how many users lost some.
CREATE FUNCTION expire_points(users text[], now_at timestamptz) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    moves point_move[];
BEGIN
    PERFORM FROM point_balances WHERE user_id = ANY (users) ORDER BY user_id FOR UPDATE;
    SELECT array_agg((user_id, 'expired', -points, NULL, NULL, NULL, NULL, NULL)::point_move)
    INTO moves FROM (
        SELECT user_id, sum(points_left)::bigint AS points FROM point_lots
        WHERE user_id = ANY (users) AND points_left > 0 AND expires_at <= now_at GROUP BY user_id
    ) AS overdue;
    IF moves IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM book_points(moves);
    RETURN cardinality(moves);
END $$;

-- When the last of the points would have expired that are spent next; null: never.
CREATE FUNCTION expiry_of_points(spender text, wanted bigint) RETURNS timestamptz LANGUAGE sql AS $$
    SELECT CASE WHEN bool_and(expires_at IS NOT NULL) THEN max(expires_at) END FROM (
        SELECT expires_at,
               sum(points_left) OVER (ORDER BY expires_at, lot_id) - points_left AS before
        FROM point_lots WHERE user_id = spender AND points_left > 0
    ) AS lot WHERE before < wanted
$$;

-- Spends points on a checkout, once; false if there are too few.
CREATE FUNCTION use_points(sale text, reservation text, spender text, wanted bigint, now_at timestamptz)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM point_balances WHERE user_id = spender FOR UPDATE;
    PERFORM expire_points(ARRAY[spender], now_at);
    INSERT INTO point_uses AS u (sale_id, reservation_id, user_id, points, expires_at)
    VALUES (sale, reservation, spender, wanted, expiry_of_points(spender, wanted))
    ON CONFLICT (sale_id, reservation_id) DO UPDATE
        SET state = 'taken', points = excluded.points, expires_at = excluded.expires_at
        WHERE u.state <> 'taken';
    RETURN NOT FOUND OR spend_points(
        (spender, 'spent', -wanted, sale, reservation, NULL, NULL, NULL)::point_move, now_at);
END $$;

-- Marks what these checkouts spent as 'given_back' or 'dropped', once; the lines to book for it. The points are
-- good for a month at least, however old they were.
CREATE FUNCTION returned_points(sales text[], reservations text[], becoming text)
RETURNS point_move[]
LANGUAGE plpgsql AS $$
DECLARE
    moves point_move[];
BEGIN
    SELECT array_agg((mine.user_id, 'given_back', mine.points, mine.sale_id, mine.reservation_id,
        NULL, NULL, CASE WHEN mine.expires_at IS NOT NULL
                    THEN greatest(mine.expires_at, now() + interval '30 days') END
    )::point_move) INTO moves
    FROM (SELECT * FROM unnest(sales, reservations) AS keys(sale_id, reservation_id)
          ORDER BY sale_id, reservation_id) AS wanted
    CROSS JOIN LATERAL (
        SELECT * FROM point_uses
        WHERE (point_uses.sale_id, point_uses.reservation_id)
            = (wanted.sale_id, wanted.reservation_id) AND state = 'taken'
        FOR UPDATE
    ) AS mine;
    UPDATE point_uses u SET state = becoming FROM unnest(moves) AS mine
    WHERE (u.sale_id, u.reservation_id) = (mine.sale_id, mine.reservation_id);
    RETURN moves;
END $$;

-- Marks what these checkouts had back as spent again; the lines to book for it.
CREATE FUNCTION retaken_points(sales text[], reservations text[]) RETURNS point_move[]
LANGUAGE plpgsql AS $$
DECLARE
    moves point_move[];
BEGIN
    WITH taken AS (
        UPDATE point_uses u SET state = 'taken'
        FROM unnest(sales, reservations) AS wanted(sale_id, reservation_id)
        WHERE (u.sale_id, u.reservation_id) = (wanted.sale_id, wanted.reservation_id)
          AND u.state = 'given_back'
        RETURNING u.*
    )
    SELECT array_agg((user_id, 'spent', -points, sale_id, reservation_id, NULL, NULL, NULL)::point_move)
    INTO moves FROM taken;
    RETURN moves;
END $$;

-- What orders had earned that are refunded.
CREATE FUNCTION reversed_points(sales text[], reservations text[]) RETURNS point_move[]
LANGUAGE sql AS $$
    SELECT array_agg((earned.user_id, 'reversed', -earned.points, earned.sale_id,
                      earned.reservation_id, NULL, NULL, NULL)::point_move)
    FROM unnest(sales, reservations) AS wanted(sale_id, reservation_id)
    CROSS JOIN LATERAL (
        SELECT * FROM point_lines
        WHERE (point_lines.sale_id, point_lines.reservation_id)
            = (wanted.sale_id, wanted.reservation_id) AND kind = 'earned'
        OFFSET 0
    ) AS earned
$$;

CREATE FUNCTION give_back_points(sales text[], reservations text[], becoming text) RETURNS void
LANGUAGE sql AS $$
    SELECT book_points(returned_points(sales, reservations, becoming))
$$;

-- Every move of an order passes here: what was paid earns, what ended gives back, what was paid
-- after it had expired spends again, with what is not there any more owed. Without a rule, and
-- where nobody spent or earned points, three probes end it.
CREATE FUNCTION follow_orders_with_points() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    first text;
    last text;
    earned point_move[];
    late_sales text[];
    late text[];
    ended_sales text[];
    ended text[];
BEGIN
    SELECT min(sale_id), max(sale_id) INTO first, last FROM after;
    IF NOT (EXISTS (SELECT FROM points_rules)
            OR EXISTS (SELECT FROM point_uses WHERE sale_id BETWEEN first AND last)
            OR EXISTS (SELECT FROM point_lines
                       WHERE kind = 'earned' AND sale_id BETWEEN first AND last)) THEN
        RETURN NULL;
    END IF;
    -- Their amount at the rate of its currency, rounded down. However dear it is, paying it must not
    -- fail because a balance cannot hold the points.
    WITH moved AS MATERIALIZED (
        SELECT after.* FROM after FULL JOIN before USING (sale_id, reservation_id)
        WHERE after.status IS DISTINCT FROM before.status
    )
    SELECT array_agg((user_id, 'earned', points, sale_id, reservation_id, NULL, NULL,
                      now() + valid_days * interval '1 day')::point_move)
    INTO earned FROM (
        SELECT user_id, sale_id, reservation_id, valid_days,
               least(floor(amount_minor * earned_per_major / minor_per_major), 1e12)::bigint AS points
        FROM moved JOIN points_rules USING (currency)
        WHERE status = 'paid'
    ) AS earning WHERE points > 0;
    SELECT array_agg(sale_id) FILTER (WHERE after.status = 'paid' AND before.status = 'expired'),
           array_agg(reservation_id) FILTER (WHERE after.status = 'paid' AND before.status = 'expired'),
           array_agg(sale_id) FILTER (WHERE after.status IN ('cancelled', 'expired', 'refunded')),
           array_agg(reservation_id) FILTER (WHERE after.status IN ('cancelled', 'expired', 'refunded'))
    INTO late_sales, late, ended_sales, ended
    FROM after FULL JOIN before USING (sale_id, reservation_id)
    WHERE after.status IS DISTINCT FROM before.status;
    PERFORM book_points(
        earned || retaken_points(late_sales, late)
        || returned_points(ended_sales, ended, 'given_back') || reversed_points(ended_sales, ended));
    RETURN NULL;
END $$;
-- Triggers fire in the order of their names: promotions first, as everybody locks.
CREATE TRIGGER orders_then_points AFTER UPDATE ON orders
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION follow_orders_with_points();

CREATE FUNCTION give_back_points_of_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM give_back_points(ARRAY[NEW.sale_id], ARRAY[NEW.reservation_id], 'given_back');
    RETURN NULL;
END $$;
CREATE TRIGGER orders_stored_ended_then_points AFTER INSERT ON orders
    FOR EACH ROW WHEN (NEW.status IN ('cancelled', 'expired'))
    EXECUTE FUNCTION give_back_points_of_order();
