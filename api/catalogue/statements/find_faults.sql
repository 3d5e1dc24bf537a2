-- What is wrong with the staged products that one line alone does not show.
INSERT INTO staged_faults (product_line, line, field, problem)
SELECT line, line, 'category_id', 'there is no category ' || category_id
FROM staged_products WHERE category_id NOT IN (SELECT category_id FROM categories)
UNION ALL
SELECT line, line, 'product_id', 'is that of line ' || first || ' too'
FROM (SELECT line, min(line) OVER (PARTITION BY product_id) AS first FROM staged_products) AS twin
WHERE line <> first
UNION ALL
SELECT product_line, line, 'sku', sku || ' is that of line ' || first || ' too'
FROM (SELECT product_line, line, sku, product_id,
             first_value(line) OVER seen AS first, first_value(product_id) OVER seen AS owner
      FROM staged_skus WINDOW seen AS (PARTITION BY sku ORDER BY product_line)) AS twin
WHERE product_id <> owner
UNION ALL
SELECT product_line, line, 'sku', staged_skus.sku || ' belongs to product ' || skus.product_id
FROM staged_skus JOIN skus USING (sku) WHERE skus.product_id <> staged_skus.product_id
