-- What the catalogue says of active products: $1 their ids.
SELECT products.product_id, products.brand, products.name, products.description,
       products.attributes, own.path,
       ARRAY(SELECT categories.name
             FROM unnest(own.path) WITH ORDINALITY AS step (category_id, depth)
             JOIN categories USING (category_id)
             ORDER BY step.depth) AS categories,
       ARRAY(SELECT skus.options FROM skus
             WHERE skus.product_id = products.product_id AND skus.active
             ORDER BY skus.position LIMIT 100) AS options
FROM products JOIN categories AS own USING (category_id)
WHERE products.product_id = ANY($1) AND products.status = 'active'
