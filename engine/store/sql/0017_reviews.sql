-- Reviews by buyers, replies, votes, and their sums, kept by triggers so that nothing is scanned.
CREATE TABLE reviews (
    review_id      text COLLATE "C" PRIMARY KEY,
    product_id     text COLLATE "C" NOT NULL REFERENCES products,
    sku            text COLLATE "C" NOT NULL REFERENCES skus,
    user_id        text COLLATE "C" NOT NULL,
    sale_id        text NOT NULL,
    reservation_id text COLLATE "C" NOT NULL,            -- the order that proves the purchase
    author         text NOT NULL,                        -- as shown: 张**
    rating         smallint NOT NULL CHECK (rating BETWEEN 1 AND 5),
    body           text NOT NULL,
    images         jsonb NOT NULL DEFAULT '[]',          -- URLs
    language       text NOT NULL,
    state          text NOT NULL CHECK (state IN ('pending', 'published', 'rejected')),
    state_reason   text,                                 -- why it was rejected, for its writer
    helpful        integer NOT NULL DEFAULT 0 CHECK (helpful >= 0),
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (user_id, sku),
    FOREIGN KEY (sale_id, reservation_id) REFERENCES orders
);
CREATE INDEX reviews_newest ON reviews (product_id, created_at, review_id) WHERE state = 'published';
CREATE INDEX reviews_helpful ON reviews (product_id, helpful, review_id) WHERE state = 'published';
CREATE INDEX reviews_in_state ON reviews (state, created_at, review_id);

CREATE TABLE review_replies (
    review_id text COLLATE "C" PRIMARY KEY REFERENCES reviews ON DELETE CASCADE,
    body      text NOT NULL,
    at        timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE review_votes (
    review_id text COLLATE "C" NOT NULL REFERENCES reviews ON DELETE CASCADE,
    user_id   text COLLATE "C" NOT NULL,
    PRIMARY KEY (review_id, user_id)
);

-- One row per product that has published reviews.
CREATE TABLE product_ratings (
    product_id text COLLATE "C" PRIMARY KEY REFERENCES products,
    count      integer NOT NULL CHECK (count >= 0),
    sum        integer NOT NULL CHECK (sum BETWEEN count AND 5 * count),
    stars      integer[] NOT NULL CHECK (cardinality(stars) = 5 AND 0 <= ALL (stars))  -- by rating, from 1
);

CREATE FUNCTION count_rating(of_product text, rated integer, sign integer) RETURNS void LANGUAGE sql AS $$
    INSERT INTO product_ratings AS kept (product_id, count, sum, stars)
    SELECT of_product, 0, 0, '{0,0,0,0,0}'
    ON CONFLICT DO NOTHING;
    UPDATE product_ratings SET count = count + sign, sum = sum + sign * rated,
        stars[rated] = stars[rated] + sign
    WHERE product_id = of_product;
$$;

CREATE FUNCTION keep_ratings() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' AND OLD.state = 'published' THEN
        PERFORM count_rating(OLD.product_id, OLD.rating, -1);
    END IF;
    IF TG_OP <> 'DELETE' AND NEW.state = 'published' THEN
        PERFORM count_rating(NEW.product_id, NEW.rating, 1);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER reviews_keep_ratings AFTER INSERT OR DELETE OR UPDATE OF rating, state ON reviews
    FOR EACH ROW EXECUTE FUNCTION keep_ratings();

CREATE FUNCTION keep_helpful() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        UPDATE reviews SET helpful = helpful + 1 WHERE review_id = NEW.review_id;
    ELSE
        UPDATE reviews SET helpful = helpful - 1 WHERE review_id = OLD.review_id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER review_votes_keep_helpful AFTER INSERT OR DELETE ON review_votes
    FOR EACH ROW EXECUTE FUNCTION keep_helpful();
-- Products are found by their stars.
CREATE TRIGGER product_ratings_note_rating AFTER INSERT OR UPDATE ON product_ratings
    FOR EACH ROW EXECUTE FUNCTION note_rating();
