-- Products on their way into the catalogue: this session's own, empty again after each transaction.
-- jsonb comes as text: COPY in binary form knows no other encoding of it.
CREATE TEMP TABLE IF NOT EXISTS staged_products (
    line        bigint PRIMARY KEY,                      -- where the product begins
    product_id  text COLLATE "C" NOT NULL,
    category_id text COLLATE "C" NOT NULL,
    brand       text NOT NULL,
    name        text NOT NULL,
    description text NOT NULL,
    images      text NOT NULL,
    attributes  text NOT NULL,
    status      text NOT NULL
) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE IF NOT EXISTS staged_skus (
    product_line bigint NOT NULL,
    line         bigint NOT NULL,
    sku          text COLLATE "C" NOT NULL,
    product_id   text COLLATE "C" NOT NULL,
    options      text NOT NULL,
    weight_grams integer NOT NULL,
    position     integer NOT NULL,
    active       boolean NOT NULL
) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE IF NOT EXISTS staged_prices (
    product_line bigint NOT NULL,
    sku          text COLLATE "C" NOT NULL,
    currency     char(3) NOT NULL,
    amount_minor bigint NOT NULL
) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE IF NOT EXISTS staged_faults (
    product_line bigint NOT NULL,
    line         bigint NOT NULL,
    field        text NOT NULL,
    problem      text NOT NULL
) ON COMMIT DELETE ROWS;
-- What storing them changed. `sku` is null where it was the product itself.
CREATE TEMP TABLE IF NOT EXISTS staged_changes (
    product_id text COLLATE "C" NOT NULL,
    sku        text COLLATE "C",
    created    boolean NOT NULL
) ON COMMIT DELETE ROWS;
-- An earlier import of this transaction leaves nothing.
TRUNCATE staged_products, staged_skus, staged_prices, staged_faults, staged_changes;
