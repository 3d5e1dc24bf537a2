-- Promotions, coupons and what was redeemed. The caps hold by the constraints below; what a
-- promotion promises is kept by revision and never changed. See api/promotions/store.py.
--
-- Locks are taken in one order: redemptions, promotions, coupons, uses, each by key. Orders and
-- units come before them.
CREATE TABLE promotions (
    promotion_id     text COLLATE "C" PRIMARY KEY,
    revision         integer NOT NULL DEFAULT 1,         -- the one that is offered now
    kind             text NOT NULL CHECK (kind IN ('percent', 'amount', 'threshold', 'free_shipping')),
    by_code          boolean NOT NULL,                   -- only with one of its coupons
    public           boolean NOT NULL,                   -- shown to everybody
    active           boolean NOT NULL DEFAULT true,
    new_buyers_only  boolean NOT NULL DEFAULT false,
    priority         integer NOT NULL,
    valid_from       timestamptz NOT NULL,
    valid_until      timestamptz,
    per_user_max     integer CHECK (per_user_max > 0),
    uses_max         bigint CHECK (uses_max > 0),
    created_at       timestamptz NOT NULL DEFAULT now(),
    CHECK (valid_from < valid_until)
);
CREATE INDEX promotions_automatic ON promotions (priority, promotion_id) WHERE active AND NOT by_code;

-- What was promised: name, amounts by currency, SKUs, categories, stacking. Append-only.
CREATE TABLE promotion_revisions (
    promotion_id text COLLATE "C" NOT NULL REFERENCES promotions,
    revision     integer NOT NULL,
    terms        jsonb NOT NULL,                         -- api/promotions/terms.py
    actor        text NOT NULL,
    at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (promotion_id, revision)
);
CREATE TRIGGER promotion_revisions_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON promotion_revisions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Apart from the promotion: where there is a cap, this row is written by every checkout. Where there
-- is none it is only held (FOR KEY SHARE), so that checkouts do not wait for each other; whoever sets
-- a cap waits for them (FOR UPDATE) and counts.
CREATE TABLE promotion_counts (
    promotion_id text COLLATE "C" PRIMARY KEY REFERENCES promotions,
    uses_max     bigint,                                 -- as in promotions
    used         bigint NOT NULL DEFAULT 0 CHECK (used >= 0),  -- only while there is a cap
    CONSTRAINT promotion_exhausted CHECK (used <= uses_max)
) WITH (fillfactor = 50);

CREATE TABLE coupons (
    code         text COLLATE "C" PRIMARY KEY CHECK (code ~ '^[A-Z0-9][A-Z0-9-]{2,31}$'),
    promotion_id text COLLATE "C" NOT NULL REFERENCES promotions,
    uses_max     bigint CHECK (uses_max > 0),            -- 1: single use; null: as the promotion says
    used         bigint NOT NULL DEFAULT 0 CHECK (used >= 0),  -- counted if uses_max is not null
    owner_id     text COLLATE "C",                       -- who claimed it, if it is for single use
    withdrawn_at timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT coupon_used CHECK (used <= uses_max)
) WITH (fillfactor = 80);
CREATE INDEX coupons_of_promotion ON coupons (promotion_id, code);

-- A user's wallet.
CREATE TABLE coupon_claims (
    user_id    text COLLATE "C" NOT NULL,
    code       text COLLATE "C" NOT NULL REFERENCES coupons,
    claimed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, code)
);

-- How often a user redeemed a promotion. The cap is the promotion's at the last redeem.
CREATE TABLE promotion_uses (
    promotion_id text COLLATE "C" NOT NULL REFERENCES promotions,
    user_id      text COLLATE "C" NOT NULL,
    per_user_max integer,
    used         integer NOT NULL DEFAULT 0 CHECK (used >= 0),
    PRIMARY KEY (promotion_id, user_id),
    CONSTRAINT promotion_used CHECK (used <= per_user_max)
);

-- One row per promotion of a checkout. Never deleted: given back is a state.
CREATE TABLE redemptions (
    promotion_id   text COLLATE "C" NOT NULL,
    revision       integer NOT NULL,
    sale_id        text NOT NULL,
    reservation_id text COLLATE "C" NOT NULL,
    user_id        text COLLATE "C" NOT NULL,
    code           text COLLATE "C" REFERENCES coupons,
    amount_minor   bigint NOT NULL CHECK (amount_minor > 0),
    currency       char(3) NOT NULL,
    -- dropped: given back because the checkout became no order.
    -- honoured: the order was paid after it had expired, when a cap had no room for it any more.
    state          text NOT NULL DEFAULT 'taken'
                   CHECK (state IN ('taken', 'given_back', 'dropped', 'honoured')),
    taken_at       timestamptz NOT NULL DEFAULT now(),
    given_back_at  timestamptz,
    PRIMARY KEY (sale_id, reservation_id, promotion_id),
    FOREIGN KEY (promotion_id, revision) REFERENCES promotion_revisions
);
CREATE INDEX redemptions_of_promotion ON redemptions (promotion_id, taken_at, reservation_id);
CREATE INDEX redemptions_of_code ON redemptions (code) WHERE code IS NOT NULL;
CREATE TRIGGER redemptions_kept BEFORE DELETE OR TRUNCATE ON redemptions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();

-- Gives back what these checkouts had taken, which is 'given_back' or 'dropped' from then on; what
-- was given back before is passed over.
CREATE FUNCTION give_back_promotions(sales text[], reservations text[], becoming text)
RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    promotion_ids text[];
    users text[];
    codes text[];
BEGIN
    -- Row by row of an index: most orders of a batch have redeemed nothing.
    SELECT array_agg(mine.promotion_id), array_agg(mine.user_id), array_agg(mine.code),
           array_agg(mine.sale_id), array_agg(mine.reservation_id)
    INTO promotion_ids, users, codes, sales, reservations
    FROM (SELECT * FROM unnest(sales, reservations) AS keys(sale_id, reservation_id)
          ORDER BY sale_id, reservation_id) AS wanted
    CROSS JOIN LATERAL (
        SELECT * FROM redemptions
        WHERE (redemptions.sale_id, redemptions.reservation_id)
            = (wanted.sale_id, wanted.reservation_id) AND state = 'taken'
        ORDER BY promotion_id FOR UPDATE
    ) AS mine;
    IF promotion_ids IS NULL THEN
        RETURN 0;
    END IF;
    UPDATE redemptions r SET state = becoming, given_back_at = now()
    FROM unnest(sales, reservations, promotion_ids) AS mine(sale_id, reservation_id, promotion_id)
    WHERE (r.sale_id, r.reservation_id, r.promotion_id)
        = (mine.sale_id, mine.reservation_id, mine.promotion_id);
    PERFORM FROM promotion_counts WHERE promotion_id = ANY (promotion_ids) AND uses_max IS NULL
    ORDER BY promotion_id FOR KEY SHARE;
    WITH locked AS (
        SELECT promotion_id FROM promotion_counts
        WHERE promotion_id = ANY (promotion_ids) AND uses_max IS NOT NULL
        ORDER BY promotion_id FOR NO KEY UPDATE
    ), given AS (SELECT id, count(*) AS uses FROM unnest(promotion_ids) AS id GROUP BY id)
    UPDATE promotion_counts c SET used = used - given.uses FROM given
    WHERE c.promotion_id = given.id AND c.promotion_id IN (SELECT promotion_id FROM locked);
    WITH locked AS (
        SELECT code FROM coupons WHERE code = ANY (codes) AND uses_max IS NOT NULL
        ORDER BY code FOR NO KEY UPDATE
    ), given AS (SELECT code, count(*) AS uses FROM unnest(codes) AS code GROUP BY code)
    UPDATE coupons c SET used = used - given.uses FROM given
    WHERE c.code = given.code AND c.code IN (SELECT code FROM locked);
    WITH given AS (
        SELECT id, user_id, count(*) AS uses FROM unnest(promotion_ids, users) AS g(id, user_id)
        GROUP BY id, user_id
    ), locked AS (
        SELECT promotion_id, user_id FROM promotion_uses
        WHERE (promotion_id, user_id) IN (SELECT id, user_id FROM given)
        ORDER BY promotion_id, user_id FOR NO KEY UPDATE
    )
    UPDATE promotion_uses u SET used = used - given.uses FROM given
    WHERE (u.promotion_id, u.user_id) = (given.id, given.user_id)
      AND (u.promotion_id, u.user_id) IN (SELECT promotion_id, user_id FROM locked);
    RETURN cardinality(promotion_ids);
END $$;

-- An order that was paid after it had expired has its promotions again: within their caps if these
-- have room, else beyond them, as the buyer was told that price.
CREATE FUNCTION retake_promotions(sales text[], reservations text[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    mine redemptions;
BEGIN
    FOR mine IN
        SELECT r.* FROM redemptions r JOIN unnest(sales, reservations) AS wanted(sale_id, reservation_id)
            USING (sale_id, reservation_id)
        WHERE state = 'given_back' ORDER BY promotion_id, sale_id, reservation_id FOR UPDATE OF r
    LOOP
        BEGIN
            PERFORM FROM promotion_counts WHERE promotion_id = mine.promotion_id FOR KEY SHARE;
            UPDATE promotion_counts SET used = used + 1
            WHERE promotion_id = mine.promotion_id AND uses_max IS NOT NULL;
            UPDATE coupons SET used = used + 1 WHERE code = mine.code AND uses_max IS NOT NULL;
            UPDATE promotion_uses SET used = used + 1
            WHERE (promotion_id, user_id) = (mine.promotion_id, mine.user_id);
            UPDATE redemptions SET state = 'taken'
            WHERE (sale_id, reservation_id, promotion_id)
                = (mine.sale_id, mine.reservation_id, mine.promotion_id);
        EXCEPTION WHEN check_violation THEN
            UPDATE redemptions SET state = 'honoured'
            WHERE (sale_id, reservation_id, promotion_id)
                = (mine.sale_id, mine.reservation_id, mine.promotion_id);
        END;
    END LOOP;
END $$;

-- Every move of an order passes here. Where no checkout of the sale redeemed anything, as in a
-- flash sale, one probe of an index ends it.
CREATE FUNCTION follow_orders_with_promotions() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    first text;
    last text;
    sales text[];
    reservations text[];
    late_sales text[];
    late text[];
BEGIN
    SELECT min(sale_id), max(sale_id) INTO first, last FROM after;
    PERFORM FROM redemptions WHERE sale_id BETWEEN first AND last LIMIT 1;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT array_agg(sale_id) FILTER (WHERE ended), array_agg(reservation_id) FILTER (WHERE ended),
           array_agg(sale_id) FILTER (WHERE is_late), array_agg(reservation_id) FILTER (WHERE is_late)
    INTO sales, reservations, late_sales, late
    FROM (
        SELECT sale_id, reservation_id, after.status = 'paid' AND before.status = 'expired' AS is_late,
               after.status IN ('cancelled', 'expired', 'refunded') AND after.status <> before.status AS ended
        FROM after FULL JOIN before USING (sale_id, reservation_id)
    ) AS moved;
    IF sales IS NOT NULL THEN
        PERFORM give_back_promotions(sales, reservations, 'given_back');
    END IF;
    IF late_sales IS NOT NULL THEN
        PERFORM retake_promotions(late_sales, late);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER orders_promotions AFTER UPDATE ON orders
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION follow_orders_with_promotions();

-- A reservation that is cancelled before it was drained is stored as cancelled at once.
CREATE FUNCTION give_back_promotions_of_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM give_back_promotions(ARRAY[NEW.sale_id], ARRAY[NEW.reservation_id], 'given_back');
    RETURN NULL;
END $$;
CREATE TRIGGER orders_stored_ended_promotions AFTER INSERT ON orders
    FOR EACH ROW WHEN (NEW.status IN ('cancelled', 'expired'))
    EXECUTE FUNCTION give_back_promotions_of_order();
