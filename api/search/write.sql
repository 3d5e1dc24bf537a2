-- Writes products' rows of the index: $1 ids, $2 heads, $3 brand, $4 names, $5 the rest (texts to
-- stem), $6 and $7 the vectors of Han words, $8 the shop's own currency. All else comes from the
-- catalogue as it is now.
INSERT INTO product_search AS old
    (product_id, path, brand, prices, base_price, in_stock, rating, created_at, title, words)
SELECT products.product_id, categories.path, products.brand, least.prices,
       (least.prices -> $8)::bigint,
       EXISTS (SELECT FROM skus JOIN sale_items
                   -- The engine's columns sort as the database does, the shop's by bytes.
                   ON sale_items.sale_id = 'shop' AND sale_items.sku = skus.sku COLLATE "default"
               WHERE skus.product_id = products.product_id AND skus.active
                 AND sale_items.stocked > sale_items.ordered),
       coalesce((SELECT sum::real / nullif(count, 0) FROM product_ratings AS rated
                 WHERE rated.product_id = products.product_id), 0),
       products.created_at,
       made.title,
       made.title || setweight(to_tsvector('english', made.rest), 'D') || made.han_words::tsvector
       || array_to_tsvector(
              ARRAY(SELECT '=' || lexeme FROM unnest(ts_filter(made.title, '{a}'))))
FROM (SELECT product_id, rest, han_words,
             setweight(to_tsvector('english', heads), 'A')
             || setweight(to_tsvector('english', brand), 'B')
             || setweight(to_tsvector('english', names), 'C') || han_title::tsvector AS title
      FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
           AS given (product_id, heads, brand, names, rest, han_title, han_words)) AS made
JOIN products USING (product_id) JOIN categories USING (category_id)
CROSS JOIN LATERAL (
    SELECT coalesce(jsonb_object_agg(trim(currency), amount), '{}') AS prices
    FROM (SELECT currency, min(amount_minor) AS amount
          FROM skus JOIN sku_prices USING (sku)
          WHERE skus.product_id = products.product_id AND skus.active
          GROUP BY currency) AS cheapest) AS least
ORDER BY products.product_id
ON CONFLICT (product_id) DO UPDATE SET
    path = excluded.path, brand = excluded.brand, prices = excluded.prices,
    base_price = excluded.base_price,
    in_stock = excluded.in_stock, rating = excluded.rating, created_at = excluded.created_at,
    title = excluded.title, words = excluded.words
