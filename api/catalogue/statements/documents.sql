-- Products as documents, all languages, each with its SKUs in order.
SELECT product_id, category_id, brand, name, description, images, attributes, status,
       revision, created_at, updated_at, (
           SELECT coalesce(jsonb_agg(jsonb_build_object(
               'sku', sku, 'options', options, 'weight_grams', weight_grams, 'active', active,
               'prices', (
                   SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'amount_minor', amount_minor, 'currency', currency) ORDER BY currency), '[]')
                   FROM sku_prices WHERE sku_prices.sku = skus.sku)
               ) ORDER BY position, sku), '[]')
           FROM skus WHERE skus.product_id = products.product_id) AS skus
FROM products
