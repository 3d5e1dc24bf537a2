-- What of products $1 is shown in a list, with the sales that are open at $2.
WITH live AS MATERIALIZED (
    SELECT sale_id FROM sales WHERE state = 'open' AND opens_at <= $2 AND $2 < closes_at)
SELECT products.product_id, products.name, products.brand, products.category_id,
       products.images ->> 0 AS image, product_search.prices,
       EXISTS (SELECT FROM skus JOIN sale_items
                   -- The engine's columns sort as the database does, the shop's by bytes.
                   ON sale_items.sale_id = 'shop' AND sale_items.sku = skus.sku COLLATE "default"
               WHERE skus.product_id = products.product_id AND skus.active
                 AND sale_items.stocked > sale_items.ordered) AS in_stock,
       -- Mostly no sale is open, and a product has many SKUs.
       CASE WHEN EXISTS (SELECT FROM live) THEN
           ARRAY(SELECT DISTINCT sale_id
                 FROM skus JOIN sale_items ON sale_items.sku = skus.sku COLLATE "default"
                 JOIN live USING (sale_id)
                 WHERE skus.product_id = products.product_id
                 ORDER BY 1 LIMIT 10)
       ELSE '{}' END AS on_sale,
       rated.sum::float8 / nullif(rated.count, 0) AS rating, coalesce(rated.count, 0) AS ratings
FROM products JOIN product_search USING (product_id)
LEFT JOIN product_ratings AS rated USING (product_id)
WHERE products.product_id = ANY ($1::text[])
