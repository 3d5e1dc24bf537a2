-- What is searched: one row per active product, and the words in it. See api/search/.
CREATE EXTENSION IF NOT EXISTS pg_trgm;                  -- trusted: no superuser needed

-- `words` is kept out of line, so that thousands of matches are looked at on few pages. Postgres
-- considers that for rows of 2 kB and more only: `pad` makes them so long, and is packed to 40 bytes.
CREATE TABLE product_search (
    product_id text COLLATE "C" PRIMARY KEY REFERENCES products ON DELETE CASCADE,
    path       text[] NOT NULL,                          -- of its category, from the root
    brand      text COLLATE "C" NOT NULL,
    prices     jsonb NOT NULL,                           -- the least of an active SKU: {"CNY": 129900}
    base_price bigint,                                   -- of them, that in the shop's own currency
    in_stock   boolean NOT NULL,                         -- as of the last look at search_stale
    rating     real NOT NULL DEFAULT 0,                  -- 0: nobody has rated it
    created_at timestamptz NOT NULL,
    title      tsvector NOT NULL,                        -- A what it is, B brand, C the rest of the names
    words      tsvector NOT NULL,                        -- all of it, Han characters alone and in pairs,
                                                         -- what it is as =phone, in=phones, brand=X
    pad        text NOT NULL DEFAULT repeat(' ', 2000)
) WITH (fillfactor = 90, toast_tuple_target = 512);
ALTER TABLE product_search ALTER words SET STORAGE EXTERNAL, ALTER title SET STORAGE MAIN,
    ALTER product_id SET STORAGE MAIN, ALTER path SET STORAGE MAIN, ALTER brand SET STORAGE MAIN,
    ALTER prices SET STORAGE MAIN;
-- Every search reads the list of pending entries: a short one. It makes writing a product three times
-- as fast, as a list of megabytes does; the worker empties it.
CREATE INDEX product_search_words ON product_search USING gin (words)
    WITH (gin_pending_list_limit = 256);
CREATE INDEX product_search_brand ON product_search (brand);
CREATE INDEX product_search_newest ON product_search (created_at, product_id);
CREATE INDEX product_search_rating ON product_search (rating, product_id);
CREATE INDEX product_search_price ON product_search (base_price, product_id);
CREATE INDEX product_search_usd ON product_search (((prices -> 'USD')::bigint), product_id);

-- The words of names: what a mistyped one may have meant. A word may stand here twice, where two
-- transactions brought it at once: nobody waits for anybody to write a word down.
CREATE TABLE search_words (
    word   text COLLATE "C" NOT NULL,
    weight smallint NOT NULL,                            -- 3 what a product is, 2 brand, 1 else
    gaps   text[] NOT NULL                               -- of a Han word: it, with each character left out
);
CREATE INDEX search_words_word ON search_words (word);
CREATE INDEX search_words_similar ON search_words USING gin (word gin_trgm_ops);
CREATE INDEX search_words_gaps ON search_words USING gin (gaps);

-- What is suggested: product names, in lower case, whole and without the brand before them.
CREATE TABLE search_names (
    product_id text COLLATE "C" NOT NULL REFERENCES product_search ON DELETE CASCADE,
    start      text COLLATE "C" NOT NULL,
    name       text NOT NULL
);
CREATE INDEX search_names_start ON search_names (start);
CREATE INDEX search_names_of_product ON search_names (product_id);

-- Brands, in lower case. One may outlive its last product, and stand here twice, as words may.
CREATE TABLE search_brands (
    start text COLLATE "C" NOT NULL,
    brand text COLLATE "C" NOT NULL
);
CREATE INDEX search_brands_start ON search_brands (start);

-- Products whose stock or rating changed: written without a lock that a buyer could wait for,
-- looked at by the worker within a second.
CREATE TABLE search_stale (
    product_id text COLLATE "C" NOT NULL
);

-- For the table that has products' ratings (0017).
CREATE FUNCTION note_rating() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO search_stale VALUES (new.product_id);
    RETURN NULL;
END $$;

CREATE FUNCTION note_stock_flip() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO search_stale SELECT product_id FROM skus WHERE sku = new.sku;
    RETURN NULL;
END $$;
CREATE TRIGGER sale_items_note_flip AFTER UPDATE ON sale_items FOR EACH ROW
    WHEN (new.sale_id = 'shop' AND (new.stocked > new.ordered) <> (old.stocked > old.ordered))
    EXECUTE FUNCTION note_stock_flip();
CREATE TRIGGER sale_items_note_stock AFTER INSERT ON sale_items FOR EACH ROW
    WHEN (new.sale_id = 'shop' AND new.stocked > new.ordered)
    EXECUTE FUNCTION note_stock_flip();
