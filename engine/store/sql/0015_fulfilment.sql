-- Shipping methods and fees, shipments and their tracking, returns, invoices. Whole orders only: one
-- order is one parcel, comes back whole, and has one invoice.

CREATE TABLE shipping_methods (
    method_id text COLLATE "C" PRIMARY KEY,              -- a slug: 'standard'
    name      jsonb NOT NULL,                            -- {"en": "Standard", "zh-CN": "标准快递"}
    carrier   text NOT NULL,                             -- who carries: 'sandbox'
    position  integer NOT NULL DEFAULT 0,                -- in the list that buyers see
    active    boolean NOT NULL DEFAULT true
);

-- Where a method goes. Of several zones that fit an address the most specific one counts alone.
CREATE TABLE shipping_zones (
    method_id text COLLATE "C" NOT NULL REFERENCES shipping_methods,
    zone      integer NOT NULL,
    country   text NOT NULL CHECK (country ~ '^([A-Z]{2}|[*])$'),   -- '*': all that no other zone names
    regions   text[] NOT NULL DEFAULT '{}',              -- every spelling of them; none: the whole country
    days_min  integer NOT NULL CHECK (days_min >= 0),
    days_max  integer NOT NULL CHECK (days_max >= days_min),
    PRIMARY KEY (method_id, zone),
    CHECK (country <> '*' OR regions = '{}')
);

-- What it costs there: the first weight, then every further one that is begun. A zone without a fee
-- in a currency is not served in it.
CREATE TABLE shipping_fees (
    method_id       text COLLATE "C" NOT NULL,
    zone            integer NOT NULL,
    currency        char(3) NOT NULL,
    first_grams     integer NOT NULL CHECK (first_grams > 0),
    first_minor     bigint NOT NULL CHECK (first_minor >= 0),
    step_grams      integer NOT NULL CHECK (step_grams > 0),
    step_minor      bigint NOT NULL CHECK (step_minor >= 0),
    grams_max       integer CHECK (grams_max > 0),       -- heavier is not carried; null: anything is
    free_from_minor bigint CHECK (free_from_minor >= 0), -- subtotal from which nothing is charged
    PRIMARY KEY (method_id, zone, currency),
    FOREIGN KEY (method_id, zone) REFERENCES shipping_zones ON DELETE CASCADE
);

-- A parcel: first the wish for it, then what the carrier made of it. See api/carriers/shipper.py.
CREATE TABLE shipments (
    shipment_id     text PRIMARY KEY,                    -- makes every call of the carrier idempotent
    sale_id         text NOT NULL,
    reservation_id  text COLLATE "C" NOT NULL,
    idempotency_key text NOT NULL,
    carrier         text NOT NULL,
    method_id       text,
    address         jsonb NOT NULL,
    weight_grams    bigint NOT NULL CHECK (weight_grams >= 0),
    state           text NOT NULL DEFAULT 'requested' CHECK (state IN (
                        'requested', 'created', 'picked_up', 'in_transit', 'out_for_delivery',
                        'delivered', 'refused', 'cancelled')),
    cancel_wanted   boolean NOT NULL DEFAULT false,      -- the order was refunded meanwhile
    tracking_number text,
    detail          text,                                -- why it was refused, or could not be cancelled
    requested_by    text NOT NULL,
    attempts        integer NOT NULL DEFAULT 0,
    due_at          timestamptz NOT NULL DEFAULT now(),  -- when the carrier is asked next
    heard_at        timestamptz NOT NULL DEFAULT now(),  -- from the carrier
    created_at      timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (sale_id, reservation_id) REFERENCES orders,
    UNIQUE (sale_id, reservation_id, idempotency_key)
);
CREATE UNIQUE INDEX shipments_live ON shipments (sale_id, reservation_id)
    WHERE state NOT IN ('refused', 'cancelled');
CREATE INDEX shipments_to_ask ON shipments (due_at) WHERE state = 'requested' OR cancel_wanted;
CREATE INDEX shipments_under_way ON shipments (heard_at)
    WHERE state IN ('created', 'picked_up', 'in_transit', 'out_for_delivery');

-- What carriers told, each once, however often and in whatever order it came.
CREATE TABLE tracking_events (
    carrier     text NOT NULL,
    event_id    text NOT NULL,
    shipment_id text NOT NULL REFERENCES shipments,
    state       text NOT NULL CHECK (state IN ('picked_up', 'in_transit', 'out_for_delivery', 'delivered')),
    place       text NOT NULL DEFAULT '',
    happened_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (carrier, event_id)
);
CREATE INDEX tracking_events_of_shipment ON tracking_events (shipment_id, happened_at);

CREATE TABLE returns (
    return_id      text PRIMARY KEY,
    sale_id        text NOT NULL,
    reservation_id text COLLATE "C" NOT NULL,
    user_id        text COLLATE "C" NOT NULL,
    reason         text NOT NULL CHECK (reason IN (
                       'changed_mind', 'wrong_item', 'damaged', 'not_as_described', 'too_late', 'other')),
    text           text NOT NULL DEFAULT '',
    state          text NOT NULL DEFAULT 'requested' CHECK (state IN (
                       'requested', 'approved', 'rejected', 'received', 'refunded')),
    decision       text,                                 -- what the operator says to it
    decided_by     text,
    requested_at   timestamptz NOT NULL DEFAULT now(),
    decided_at     timestamptz,
    received_at    timestamptz,
    refunded_at    timestamptz,
    FOREIGN KEY (sale_id, reservation_id) REFERENCES orders
);
CREATE UNIQUE INDEX returns_open ON returns (sale_id, reservation_id)
    WHERE state IN ('requested', 'approved', 'received');
CREATE INDEX returns_in_state ON returns (state, requested_at, return_id);
CREATE INDEX returns_of_order ON returns (sale_id, reservation_id, requested_at);

-- Numbered without gaps within a year: the number is taken in the transaction that writes the row.
CREATE TABLE invoice_numbers (
    year integer PRIMARY KEY,
    last bigint NOT NULL
);
CREATE TABLE invoices (
    sale_id        text NOT NULL,
    reservation_id text COLLATE "C" NOT NULL,
    year           integer NOT NULL,
    number         bigint NOT NULL,
    document       jsonb NOT NULL,                       -- as it was issued; see api/invoices/document.py
    issued_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sale_id, reservation_id),
    UNIQUE (year, number),
    FOREIGN KEY (sale_id, reservation_id) REFERENCES orders
);

-- What waits to be sent, oldest first. An order enters when it is paid, where its row moves anyway.
CREATE INDEX orders_to_ship ON orders (reserved_at, reservation_id) WHERE status = 'paid';
-- For support, who look at a few days of everybody's orders. A btree would cost the drain; this does not.
CREATE INDEX orders_by_time ON orders USING brin (reserved_at);

-- Whether an order's money is on its way back: of all captured payments none is left.
CREATE FUNCTION refund_under_way(of_sale text, of_reservation text) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT coalesce(bool_or(status = 'refunding') AND NOT bool_or(status = 'captured'), false)
    FROM payments WHERE sale_id = of_sale AND reservation_id = of_reservation
$$;

-- However the money went back: no parcel leaves any more, and an open return has come to its end.
CREATE FUNCTION end_fulfilment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE shipments SET cancel_wanted = true, due_at = now()
    WHERE (sale_id, reservation_id) = (NEW.sale_id, NEW.reservation_id)
      AND state IN ('requested', 'created');
    WITH ended AS (
        UPDATE returns SET state = 'refunded', refunded_at = now()
        WHERE (sale_id, reservation_id) = (NEW.sale_id, NEW.reservation_id)
          AND state IN ('requested', 'approved', 'received')
        RETURNING return_id
    )
    INSERT INTO events (type, sale_id, reservation_id, user_id, data)
    SELECT 'return.refunded', NEW.sale_id, NEW.reservation_id, NEW.user_id,
           jsonb_build_object('return_id', return_id)
    FROM ended;
    RETURN NULL;
END $$;
CREATE TRIGGER orders_end_fulfilment AFTER UPDATE ON orders
    FOR EACH ROW WHEN (NEW.status = 'refunded' AND OLD.status <> 'refunded')
    EXECUTE FUNCTION end_fulfilment();
