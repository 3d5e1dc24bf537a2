-- The shop around the sales. Its ordinary stock is kept as a sale's is, under the sale id 'shop', so
-- that orders, payments, ledger and their guards are the same. No row of `sales` has that id: the
-- shop has no window, no epoch and nothing in Redis.
ALTER TABLE sale_items DROP CONSTRAINT sale_items_sale_id_fkey;
ALTER TABLE sales ADD CONSTRAINT shop_is_no_sale CHECK (sale_id <> 'shop');
ALTER TABLE ledger DROP CONSTRAINT ledger_reason_check;
ALTER TABLE ledger ADD CONSTRAINT ledger_reason_check CHECK (
    reason IN ('created', 'restocked', 'drained', 'placed', 'paid', 'cancelled', 'expired', 'refunded',
               'rereserved', 'written_off'));

-- The terms on which a cart becomes an order: written before the units are taken, so that whoever
-- finds the order first charges what the buyer was told. See engine/store/terms.py.
CREATE TABLE checkouts (
    sale_id         text NOT NULL,
    reservation_id  text COLLATE "C" NOT NULL,
    user_id         text COLLATE "C" NOT NULL,
    request_hash    bytea NOT NULL,                      -- same key, other body: refused
    amount_minor    bigint NOT NULL CHECK (amount_minor >= 0),
    currency        char(3) NOT NULL,
    quote           jsonb NOT NULL,                      -- lines, discounts, shipping, as told
    address         jsonb,
    shipping_method text,
    language        text,                                -- of the mails about it; null: the buyer's own
    state           text NOT NULL CHECK (state IN ('started', 'placed', 'dropped')),
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sale_id, reservation_id)
);
CREATE INDEX checkouts_started ON checkouts (created_at) WHERE state = 'started';

-- What happened to orders, payments and stock, in the transaction in which it happened: an order's
-- timeline, and what other systems are told. Append-only.
CREATE TABLE events (
    event_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    type           text NOT NULL CHECK (type ~ '^[a-z]+[.][a-z_]+$'),   -- order.paid
    sale_id        text,
    reservation_id text COLLATE "C",
    user_id        text COLLATE "C",                     -- whom it concerns
    data           jsonb NOT NULL DEFAULT '{}',
    -- Rows become visible when their transaction ends, not in the order of their ids. Whoever reads
    -- on from where he was stays below pg_snapshot_xmin(pg_current_snapshot()), or misses some.
    written_by     xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at             timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX events_of_order ON events (sale_id, reservation_id, event_id)
    WHERE reservation_id IS NOT NULL;
CREATE INDEX events_in_order ON events (written_by, event_id);
CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- FULL, here and in the triggers of later files, because that is joined by hash. How an inner join is
-- made is settled once per session: by nested loops if the first update was of one row, and then a batch
-- of 1,000 compares a million pairs, which took six times as long.
CREATE FUNCTION note_order_moves() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO events (type, sale_id, reservation_id, user_id, data)
    SELECT 'order.' || after.status, after.sale_id, after.reservation_id, after.user_id,
           jsonb_strip_nulls(jsonb_build_object('reason', after.status_reason,
               'amount_minor', after.amount_minor, 'currency', after.currency))
    FROM after FULL JOIN before USING (sale_id, reservation_id)
    WHERE after.status IS DISTINCT FROM before.status;
    RETURN NULL;
END $$;
CREATE TRIGGER orders_note_moves AFTER UPDATE ON orders
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION note_order_moves();

CREATE FUNCTION note_payment_moves() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WITH moved AS MATERIALIZED (
        SELECT after.* FROM after FULL JOIN before USING (payment_id)
        WHERE after.status IS DISTINCT FROM before.status
    )
    INSERT INTO events (type, sale_id, reservation_id, user_id, data)
    SELECT 'payment.' || moved.status, sale_id, reservation_id, orders.user_id,
           jsonb_build_object('payment_id', payment_id, 'provider', provider,
               'amount_minor', moved.amount_minor, 'currency', moved.currency)
    FROM moved JOIN orders USING (sale_id, reservation_id)
    WHERE moved.status IN ('failed', 'captured', 'refunding', 'refunded');
    RETURN NULL;
END $$;
CREATE TRIGGER payments_note_moves AFTER UPDATE ON payments
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION note_payment_moves();
