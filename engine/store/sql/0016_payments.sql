-- What the buyer has to do to pay, what the provider is told of it, and when money moved by the
-- provider's clock.
ALTER TABLE payments
    ADD COLUMN action         jsonb,       -- {"kind": "redirect", "url": …}; meant while it is pending
    ADD COLUMN return_path    text,        -- where in the shop the buyer goes on
    ADD COLUMN client_address text,
    ADD COLUMN language       text NOT NULL DEFAULT 'en',
    ADD COLUMN captured_at    timestamptz,
    ADD COLUMN refunded_at    timestamptz;
CREATE INDEX payments_newest ON payments (created_at, payment_id);
-- Of payments that a buyer could still make. Those of the engine itself are never in it.
CREATE INDEX payments_to_void ON payments (sale_id, reservation_id)
    WHERE status = 'pending' AND action IS NOT NULL;

-- collect: capture what was authorized; void: cancel it. Both name a payment.
ALTER TABLE outbox DROP CONSTRAINT outbox_kind_check;
ALTER TABLE outbox ADD CONSTRAINT outbox_kind_check CHECK (
    kind IN ('capture', 'pay', 'refund', 'late_capture', 'confirm', 'release', 'restock', 'collect',
             'void'));

-- An order that is resolved is not to be paid (again): what buyers could still pay is cancelled at
-- the provider. Whoever pays in that moment nevertheless gets the units again or the money back.
CREATE FUNCTION void_open_payments() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WITH moved AS MATERIALIZED (
        SELECT sale_id, reservation_id, before.status AS was, after.status
        FROM after FULL JOIN before USING (sale_id, reservation_id)
    )
    INSERT INTO outbox (kind, sale_id, reference)
    SELECT 'void', payments.sale_id, payments.payment_id
    FROM moved JOIN payments USING (sale_id, reservation_id)
    WHERE was = 'awaiting_payment' AND moved.status IN ('paid', 'cancelled', 'expired')
      AND payments.status = 'pending' AND payments.action IS NOT NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER orders_void_payments AFTER UPDATE ON orders
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION void_open_payments();

-- A provider's statement of one of its days, compared with the payments here.
CREATE TABLE reconciliations (
    reconciliation_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    provider    text NOT NULL,
    day         date NOT NULL,                           -- at the provider
    asked_by    text NOT NULL,                           -- 'daily', or who asked
    state       text NOT NULL DEFAULT 'wanted' CHECK (state IN ('wanted', 'done', 'failed')),
    attempts    integer NOT NULL DEFAULT 0,
    due_at      timestamptz NOT NULL DEFAULT now(),
    lines       integer,                                 -- of the statement
    differences integer,                                 -- found, those included that are not kept
    error       text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
CREATE UNIQUE INDEX reconciliations_daily ON reconciliations (provider, day) WHERE asked_by = 'daily';
CREATE INDEX reconciliations_wanted ON reconciliations (due_at) WHERE state = 'wanted';

CREATE TABLE reconciliation_differences (
    reconciliation_id bigint NOT NULL REFERENCES reconciliations,
    number       integer NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('missing_here', 'missing_there', 'amount', 'currency',
                                               'status', 'refund')),
    payment_id   text NOT NULL,
    provider_ref text,
    ours         jsonb,
    theirs       jsonb,
    PRIMARY KEY (reconciliation_id, number)
);
