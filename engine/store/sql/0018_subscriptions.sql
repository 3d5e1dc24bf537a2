-- Other systems that are told of events, and what was or is to be delivered to them.
CREATE TABLE subscriptions (
    subscription_id  text COLLATE "C" PRIMARY KEY,
    url              text NOT NULL,
    description      text NOT NULL,
    types            text[] NOT NULL CHECK (cardinality(types) > 0),  -- 'order.paid', 'order.*', '*'
    secret           text NOT NULL,                      -- whsec_…: Standard Webhooks
    old_secret       text,                               -- still signed with until …
    old_secret_until timestamptz,
    state            text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'paused', 'gone')),
    created_at       timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE deliveries (
    delivery_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subscription_id text COLLATE "C" NOT NULL REFERENCES subscriptions ON DELETE CASCADE,
    event_id        bigint NOT NULL REFERENCES events,
    state           text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'delivered', 'dead')),
    attempts        integer NOT NULL DEFAULT 0,
    due_at          timestamptz NOT NULL DEFAULT now(),
    last_status     integer,                             -- HTTP status of the last answer
    last_error      text,
    delivered_at    timestamptz,
    UNIQUE (subscription_id, event_id)
);
CREATE INDEX deliveries_due ON deliveries (subscription_id, due_at, delivery_id) WHERE state = 'waiting';
CREATE INDEX deliveries_by_state ON deliveries (subscription_id, state, delivery_id);

-- For replays. A btree would cost every event; this does not.
CREATE INDEX events_by_time ON events USING brin (at);

-- How far events were handed to the deliveries: one row.
CREATE TABLE fan_out (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    written_by xid8 NOT NULL,
    event_id   bigint NOT NULL
);
INSERT INTO fan_out (written_by, event_id) VALUES ('0', 0);

-- Whether somebody who wants these types is told of this one.
CREATE FUNCTION is_told(event_type text, wanted text[]) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT '*' = ANY (wanted) OR event_type = ANY (wanted)
        OR split_part(event_type, '.', 1) || '.*' = ANY (wanted)
$$;

-- A new order is an event only where somebody is told of it: the drainer stores thousands a second.
CREATE FUNCTION note_new_orders() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM subscriptions WHERE state = 'active' AND is_told('order.created', types)) THEN
        INSERT INTO events (type, sale_id, reservation_id, user_id, data)
        SELECT 'order.created', sale_id, reservation_id, user_id,
               jsonb_build_object('items', items, 'amount_minor', amount_minor, 'currency', currency,
                                  'reserved_until', reserved_until)
        FROM added;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER orders_note_new AFTER INSERT ON orders REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION note_new_orders();
