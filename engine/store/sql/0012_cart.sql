-- Carts of users and of guests; and what the shop's own stock tells others.

-- Every change of a cart takes a number that no cart ever had: a revision names one state of one cart.
CREATE SEQUENCE cart_revisions;

CREATE TABLE carts (
    cart_id    text COLLATE "C" PRIMARY KEY,             -- a user's: 'user:<id>', a guest's: 'guest:<id>'
    is_guest   boolean NOT NULL,
    revision   bigint NOT NULL DEFAULT nextval('cart_revisions'),
    changed_at timestamptz NOT NULL
);
CREATE INDEX carts_of_guests ON carts (changed_at) WHERE is_guest;

CREATE TABLE cart_lines (
    cart_id     text COLLATE "C" NOT NULL REFERENCES carts ON DELETE CASCADE,
    sale_id     text COLLATE "C" NOT NULL,               -- 'shop': outside of sales
    sku         text COLLATE "C" NOT NULL,
    quantity    integer NOT NULL CHECK (quantity BETWEEN 1 AND 10000),
    price_minor bigint,                                  -- what one cost when its buyer last chose it
    currency    char(3),
    added_at    timestamptz NOT NULL,
    PRIMARY KEY (cart_id, sale_id, sku)
);

-- A write-off is told from its repetition as a restock is.
CREATE UNIQUE INDEX ledger_write_offs ON ledger (sale_id, reference) WHERE reason = 'written_off';

-- That an SKU is sold out, or back, in the shop or in a sale. The drainer touches a sale's row once per
-- batch: there this costs one comparison.
CREATE FUNCTION note_stock_moves() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO events (type, sale_id, data)
    VALUES (CASE WHEN NEW.stocked = NEW.ordered THEN 'stock.sold_out' ELSE 'stock.restocked' END,
            NEW.sale_id,
            jsonb_build_object('sku', NEW.sku, 'available', NEW.stocked - NEW.ordered));
    RETURN NULL;
END $$;
CREATE TRIGGER sale_items_note_moves AFTER UPDATE OF stocked, ordered ON sale_items
    FOR EACH ROW
    WHEN ((OLD.stocked = OLD.ordered) <> (NEW.stocked = NEW.ordered))
    EXECUTE FUNCTION note_stock_moves();

-- Whether what a checkout redeemed, a coupon or points, is given back once its order ends unpaid. A
-- late payment does not revive such an order: see engine/payment/late.py.
ALTER TABLE checkouts ADD COLUMN redeems boolean NOT NULL DEFAULT false;
-- A buyer's request is found again by its key alone: the cart that named the sale is empty by then.
ALTER TABLE checkouts ADD COLUMN idempotency_key text COLLATE "C" NOT NULL;
ALTER TABLE checkouts ADD CONSTRAINT checkouts_once UNIQUE (user_id, idempotency_key);
