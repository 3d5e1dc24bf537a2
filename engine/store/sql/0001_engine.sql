-- The engine's truth: sales, stock counters, ledger, orders, payments, outbox, inbox.
-- The constraints below hold the invariants by themselves, whatever the code above them does.

CREATE TABLE sales (
    sale_id             text PRIMARY KEY,
    name                jsonb NOT NULL,                  -- {"en": "…", "zh-CN": "…"}
    opens_at            timestamptz NOT NULL,
    closes_at           timestamptz NOT NULL,
    per_user_max        integer NOT NULL CHECK (per_user_max > 0),
    reservation_seconds integer NOT NULL CHECK (reservation_seconds > 0),
    auto_capture        boolean NOT NULL,
    state               text NOT NULL CHECK (state IN ('open', 'paused', 'closed')),
    revision            bigint NOT NULL DEFAULT 1,       -- counts changes of the settings
    epoch               bigint NOT NULL DEFAULT 1,       -- generation of the stock in Redis
    fenced              text,                            -- why the sale is shut until recovered; null: it is not
    launched            boolean NOT NULL DEFAULT false,  -- the stock was put up in Redis once
    drained_through     text NOT NULL DEFAULT '0-0',     -- newest stream entry whose orders are stored
    created_at          timestamptz NOT NULL DEFAULT now(),
    CHECK (opens_at < closes_at)
);

-- One row per SKU: its price and its counters. The drainer touches it once per batch.
CREATE TABLE sale_items (
    sale_id      text NOT NULL REFERENCES sales,
    sku          text NOT NULL,
    position     integer NOT NULL,
    name         jsonb NOT NULL,
    price_minor  bigint NOT NULL CHECK (price_minor >= 0),
    currency     char(3) NOT NULL,
    stocked      bigint NOT NULL CHECK (stocked >= 0),
    ordered      bigint NOT NULL DEFAULT 0,              -- units in orders that are neither cancelled, expired nor refunded
    sold         bigint NOT NULL DEFAULT 0,              -- those of them that are paid
    PRIMARY KEY (sale_id, sku),
    CONSTRAINT no_oversell CHECK (ordered <= stocked),   -- the last guard; it does not depend on Redis
    CONSTRAINT sold_were_ordered CHECK (0 <= sold AND sold <= ordered)
) WITH (fillfactor = 50);                                -- room for HOT updates of the hot rows

-- Append-only: every change of a counter above. Its sums reproduce them.
CREATE TABLE ledger (
    line_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sale_id   text NOT NULL,
    sku       text NOT NULL,
    counter   text NOT NULL CHECK (counter IN ('stocked', 'ordered', 'sold')),
    units     bigint NOT NULL CHECK (units <> 0),        -- signed change of that counter
    reason    text NOT NULL CHECK (reason IN ('created', 'restocked', 'drained', 'paid', 'cancelled',
                                              'expired', 'refunded', 'rereserved')),
    reference text,                                      -- an order, a restock key; null for a batch
    at        timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX ledger_restocks ON ledger (sale_id, reference) WHERE reason = 'restocked';

-- One row per reservation. The key contains the sale, so the table can be partitioned by it.
-- No foreign key: the drainer writes a sale's ledger row in the same statement.
CREATE TABLE orders (
    sale_id        text NOT NULL,
    reservation_id text COLLATE "C" NOT NULL,
    user_id        text COLLATE "C" NOT NULL,
    items          jsonb NOT NULL,                       -- {"phone-black": 1}
    amount_minor   bigint NOT NULL CHECK (amount_minor >= 0),
    currency       char(3) NOT NULL,
    status         text NOT NULL CHECK (status IN ('awaiting_payment', 'paid', 'shipped', 'delivered',
                                                   'cancelled', 'expired', 'refunded')),
    status_reason  text,                                 -- 'oversold', 'payment_failed', 'by_buyer', …
    reserved_at    timestamptz NOT NULL,
    reserved_until timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sale_id, reservation_id)
);
CREATE INDEX orders_of_user ON orders (user_id, reserved_at);
CREATE INDEX orders_overdue ON orders (reserved_until) WHERE status = 'awaiting_payment';

CREATE TABLE payments (
    payment_id      text PRIMARY KEY,
    sale_id         text NOT NULL,
    reservation_id  text COLLATE "C" NOT NULL,
    idempotency_key text NOT NULL,                       -- 'auto' for the engine's own captures
    provider        text NOT NULL,
    options         jsonb NOT NULL DEFAULT '{}',         -- handed to the provider as they are
    amount_minor    bigint NOT NULL CHECK (amount_minor >= 0),
    currency        char(3) NOT NULL,
    status          text NOT NULL CHECK (status IN ('created', 'pending', 'failed', 'captured',
                                                    'refunding', 'refunded')),
    provider_ref    text,
    detail          text,                                -- why it failed or is refunded
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (sale_id, reservation_id) REFERENCES orders,
    UNIQUE (sale_id, reservation_id, idempotency_key)
);
-- At most one captured charge per order; a second capture goes straight to 'refunding'.
CREATE UNIQUE INDEX payments_captured ON payments (sale_id, reservation_id) WHERE status = 'captured';
CREATE INDEX payments_open ON payments (updated_at) WHERE status IN ('created', 'pending', 'refunding');

-- Work that must happen because a transaction happened. Taken with FOR UPDATE SKIP LOCKED.
CREATE TABLE outbox (
    message_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind       text NOT NULL CHECK (kind IN ('capture', 'pay', 'refund', 'late_capture', 'confirm',
                                             'release', 'restock')),
    sale_id    text NOT NULL,
    reference  text NOT NULL,  -- capture, confirm, release: reservation_id; pay, refund, late_capture: payment_id; restock: sku
    user_id    text,           -- of the reservation, for confirm and release
    reason     text,           -- for release: released, expired, refunded
    attempts   integer NOT NULL DEFAULT 0,
    due_at     timestamptz NOT NULL DEFAULT now(),
    last_error text
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 10000);

-- Webhooks, stored as they came before they are answered; handled with their effect in one transaction.
CREATE TABLE webhook_inbox (
    provider    text NOT NULL,
    event_id    text NOT NULL,
    body        bytea NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    handled_at  timestamptz,
    attempts    integer NOT NULL DEFAULT 0,
    last_error  text,
    PRIMARY KEY (provider, event_id)
);
CREATE INDEX webhook_inbox_waiting ON webhook_inbox (received_at) WHERE handled_at IS NULL;

-- What could not be handled after N tries. An alarm, never silence.
CREATE TABLE dead_letters (
    letter_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source     text NOT NULL CHECK (source IN ('stream', 'outbox', 'webhook')),
    sale_id    text,
    reference  text NOT NULL,                            -- stream entry id, outbox message id, event id
    body       bytea NOT NULL,
    error      text NOT NULL,
    at         timestamptz NOT NULL DEFAULT now(),
    UNIQUE (source, sale_id, reference)
);

-- Redis servers by the id they give themselves at each start; see engine/fence.py.
CREATE TABLE redis_servers (
    run_id     text PRIMARY KEY,
    trusted_at timestamptz NOT NULL DEFAULT now(),       -- its data was found complete or recovered
    stopped_at timestamptz                               -- we stopped it ourselves, with everything on disk
);

CREATE TABLE users (
    user_id       text PRIMARY KEY,
    email         text NOT NULL,
    password_hash text NOT NULL,
    name          text NOT NULL,
    role          text NOT NULL DEFAULT 'buyer' CHECK (role IN ('buyer', 'operator', 'support')),
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX users_email ON users (lower(email));

-- Who changed what. Append-only.
CREATE TABLE audit_log (
    entry_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    actor    text NOT NULL,
    action   text NOT NULL,
    sale_id  text,
    detail   jsonb NOT NULL,
    at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX audit_log_of_sale ON audit_log (sale_id, entry_id);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The same table as ORDER_TRANSITIONS in engine/model.py; a test holds both together.
CREATE FUNCTION guard_order_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT (CASE OLD.status
        WHEN 'awaiting_payment' THEN NEW.status IN ('paid', 'cancelled', 'expired')
        WHEN 'paid'      THEN NEW.status IN ('shipped', 'refunded')
        WHEN 'shipped'   THEN NEW.status IN ('delivered', 'refunded')
        WHEN 'delivered' THEN NEW.status = 'refunded'
        WHEN 'expired'   THEN NEW.status = 'paid'
        ELSE false
    END) THEN
        RAISE EXCEPTION 'order % cannot go from % to %', OLD.reservation_id, OLD.status, NEW.status
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER orders_transition BEFORE UPDATE ON orders
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status)
    EXECUTE FUNCTION guard_order_transition();

CREATE FUNCTION refuse_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% are never deleted', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER orders_kept BEFORE DELETE OR TRUNCATE ON orders
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();
