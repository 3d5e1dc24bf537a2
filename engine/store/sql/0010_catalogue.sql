-- The catalogue: categories, products, SKUs and what they cost in which currency.
-- Stock is not here: an ordinary SKU's is in sale_items under 'shop', a sale's under the sale.
CREATE TABLE categories (
    category_id text COLLATE "C" PRIMARY KEY,            -- a slug: 'phones'
    parent_id   text COLLATE "C" REFERENCES categories,
    path        text[] NOT NULL,                         -- from the root down to itself
    position    integer NOT NULL DEFAULT 0,              -- among its siblings
    name        jsonb NOT NULL,                          -- {"en": "Phones", "zh-CN": "手机"}
    products_active integer NOT NULL DEFAULT 0,          -- in itself, not below; kept by the triggers below
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

-- How many active products a category has is counted as they change: nobody scans for it.
CREATE FUNCTION add_products_active(changed text[], units integer[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- In one order, so that two imports do not wait for each other.
    PERFORM FROM categories WHERE category_id = ANY (changed) ORDER BY category_id FOR NO KEY UPDATE;
    UPDATE categories SET products_active = products_active + change.units
    FROM unnest(changed, units) AS change (category_id, units)
    WHERE categories.category_id = change.category_id;
END $$;

CREATE FUNCTION count_products_made() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM add_products_active(array_agg(category_id), array_agg(units))
    FROM (SELECT category_id, count(*)::integer FROM after WHERE status = 'active' GROUP BY 1)
        AS change (category_id, units);
    RETURN NULL;
END $$;
CREATE TRIGGER products_count_made AFTER INSERT ON products
    REFERENCING NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION count_products_made();

CREATE FUNCTION count_products_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM add_products_active(array_agg(category_id), array_agg(units))
    FROM (
        SELECT category_id, sum(units)::integer FROM (
            SELECT category_id, 1 FROM after WHERE status = 'active'
            UNION ALL SELECT category_id, -1 FROM before WHERE status = 'active'
        ) AS move (category_id, units)
        GROUP BY 1 HAVING sum(units) <> 0
    ) AS change (category_id, units);
    RETURN NULL;
END $$;
CREATE TRIGGER products_count_changed AFTER UPDATE ON products
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION count_products_changed();

CREATE FUNCTION count_products_gone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM add_products_active(array_agg(category_id), array_agg(-units))
    FROM (SELECT category_id, count(*)::integer FROM before WHERE status = 'active' GROUP BY 1)
        AS change (category_id, units);
    RETURN NULL;
END $$;
CREATE TRIGGER products_count_gone AFTER DELETE ON products
    REFERENCING OLD TABLE AS before
    FOR EACH STATEMENT EXECUTE FUNCTION count_products_gone();

CREATE TABLE skus (
    sku          text COLLATE "C" PRIMARY KEY,
    product_id   text COLLATE "C" NOT NULL REFERENCES products,
    options      jsonb NOT NULL DEFAULT '{}',            -- {"colour": {"en": "black", "zh-CN": "黑色"}}
    weight_grams integer NOT NULL DEFAULT 0 CHECK (weight_grams >= 0),
    position     integer NOT NULL DEFAULT 0,
    active       boolean NOT NULL DEFAULT true
);
CREATE INDEX skus_of_product ON skus (product_id, position);
-- Which sales offer an SKU. Its sku never changes: the hot rows are still updated in place.
CREATE INDEX sale_items_of_sku ON sale_items (sku);

CREATE TABLE sku_prices (
    sku          text COLLATE "C" NOT NULL REFERENCES skus ON DELETE CASCADE,
    currency     char(3) NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    PRIMARY KEY (sku, currency)
);
CREATE INDEX sku_prices_list ON sku_prices (currency, sku);

-- Exchange rates are data with a date: 1 unit of `base` is `rate` units of `quote` from that day on.
CREATE TABLE exchange_rates (
    base     char(3) NOT NULL,
    quote    char(3) NOT NULL,
    valid_on date NOT NULL,
    rate     numeric(20, 10) NOT NULL CHECK (rate > 0),
    source   text NOT NULL,
    PRIMARY KEY (base, quote, valid_on)
);
