-- A product's page in one round trip: product $1 with prices in currency $2, else converted from $3
-- by the rate of the day; sales of its SKUs that are not over at $4.
SELECT products.product_id, products.category_id, brand, products.name, description, images, attributes,
       products.updated_at,
       (SELECT jsonb_agg(jsonb_build_object('category_id', above.category_id, 'name', above.name)
                         ORDER BY cardinality(above.path))
        FROM categories AS above
        WHERE above.category_id = ANY (categories.path COLLATE "C")) AS path,
       (SELECT rate FROM exchange_rates
        WHERE base = $3 AND quote = $2 AND valid_on <= ($4::timestamptz AT TIME ZONE 'UTC')::date
        ORDER BY valid_on DESC LIMIT 1) AS rate,
       ratings.count AS rating_count, ratings.sum AS rating_sum,
       (SELECT coalesce(jsonb_agg(jsonb_build_object(
            'sku', skus.sku, 'options', options, 'weight_grams', weight_grams,
            'listed_minor', listed.amount_minor, 'base_minor', base.amount_minor,
            'available', coalesce(shelf.stocked - shelf.ordered, 0)) ORDER BY skus.position, skus.sku), '[]')
        FROM skus
        LEFT JOIN sku_prices AS listed ON listed.sku = skus.sku AND listed.currency = $2
        LEFT JOIN sku_prices AS base ON base.sku = skus.sku AND base.currency = $3
        LEFT JOIN sale_items AS shelf
            ON shelf.sale_id = 'shop' AND shelf.sku = skus.sku COLLATE "default"
        WHERE skus.product_id = products.product_id AND active) AS skus,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('sku', offered.sku, 'sale_id', offered.sale_id,
            'amount_minor', price_minor, 'currency', offered.currency)
            ORDER BY opens_at, offered.sale_id), '[]')
        FROM (
            SELECT offered.*, opens_at
            FROM skus
            JOIN sale_items AS offered ON offered.sku = skus.sku COLLATE "default"
            JOIN sales USING (sale_id)
            WHERE skus.product_id = products.product_id AND active
              AND closes_at > $4 AND state <> 'closed'
            ORDER BY opens_at, sale_id LIMIT $5) AS offered) AS sales
FROM products
JOIN categories USING (category_id)
LEFT JOIN product_ratings AS ratings ON ratings.product_id = products.product_id
WHERE products.product_id = $1 AND status = 'active'
