-- What of products $1 is shown in a list, with the sales that are open at $2.
SELECT products.product_id, products.name, products.brand, products.category_id,
       products.images ->> 0 AS image, product_search.prices,
       EXISTS (SELECT FROM skus JOIN sale_items
                   -- The engine's columns sort as the database does, the shop's by bytes.
                   ON sale_items.sale_id = 'shop' AND sale_items.sku = skus.sku COLLATE "default"
               WHERE skus.product_id = products.product_id AND skus.active
                 AND sale_items.stocked > sale_items.ordered) AS in_stock,
       ARRAY(SELECT DISTINCT sales.sale_id
             FROM sales JOIN sale_items USING (sale_id)
             JOIN skus ON sale_items.sku = skus.sku COLLATE "default"
             WHERE sales.state = 'open' AND sales.opens_at <= $2 AND $2 < sales.closes_at
               AND skus.product_id = products.product_id
             ORDER BY 1 LIMIT 10) AS on_sale,
       rated.sum::float8 / nullif(rated.count, 0) AS rating, coalesce(rated.count, 0) AS ratings
FROM products JOIN product_search USING (product_id)
LEFT JOIN product_ratings AS rated USING (product_id)
WHERE products.product_id = ANY ($1::text[])
