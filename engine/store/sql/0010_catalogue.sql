-- The catalogue: categories, products, SKUs and what they cost in which currency.
-- Stock is not here: an ordinary SKU's is in sale_items under 'shop', a sale's under the sale.
CREATE TABLE categories (
    category_id text COLLATE "C" PRIMARY KEY,            -- a slug: 'phones'
    parent_id   text COLLATE "C" REFERENCES categories,
    path        text[] NOT NULL,                         -- from the root down to itself
    position    integer NOT NULL DEFAULT 0,              -- among its siblings
    name        jsonb NOT NULL,                          -- {"en": "Phones", "zh-CN": "手机"}
    CHECK (path[cardinality(path)] = category_id AND cardinality(path) <= 6)
);
CREATE INDEX categories_under ON categories USING gin (path);

CREATE TABLE products (
    product_id  text COLLATE "C" PRIMARY KEY,            -- a slug
    category_id text COLLATE "C" NOT NULL REFERENCES categories,
    brand       text NOT NULL,
    name        jsonb NOT NULL,
    description jsonb NOT NULL,
    images      jsonb NOT NULL DEFAULT '[]',             -- URLs
    attributes  jsonb NOT NULL DEFAULT '{}',             -- {"screen": "6.1\""}
    status      text NOT NULL DEFAULT 'active' CHECK (status IN ('draft', 'active', 'archived')),
    revision    bigint NOT NULL DEFAULT 1,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX products_in_category ON products (category_id, product_id);

CREATE TABLE skus (
    sku          text COLLATE "C" PRIMARY KEY,
    product_id   text COLLATE "C" NOT NULL REFERENCES products,
    options      jsonb NOT NULL DEFAULT '{}',            -- {"colour": {"en": "black", "zh-CN": "黑色"}}
    weight_grams integer NOT NULL DEFAULT 0 CHECK (weight_grams >= 0),
    position     integer NOT NULL DEFAULT 0,
    active       boolean NOT NULL DEFAULT true
);
CREATE INDEX skus_of_product ON skus (product_id, position);

CREATE TABLE sku_prices (
    sku          text COLLATE "C" NOT NULL REFERENCES skus ON DELETE CASCADE,
    currency     char(3) NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    PRIMARY KEY (sku, currency)
);

-- Exchange rates are data with a date: 1 unit of `base` is `rate` units of `quote` from that day on.
CREATE TABLE exchange_rates (
    base     char(3) NOT NULL,
    quote    char(3) NOT NULL,
    valid_on date NOT NULL,
    rate     numeric(20, 10) NOT NULL CHECK (rate > 0),
    source   text NOT NULL,
    PRIMARY KEY (base, quote, valid_on)
);
