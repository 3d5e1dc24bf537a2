-- What begins with $1, up to $2: the best of each kind, at most $3 each, looked for among the first
-- few hundred only. `value` is a category's id, a brand, a word or a product's id.
(SELECT 'category' AS kind, category_id AS value, names.name AS text, 0 AS place
 FROM categories CROSS JOIN LATERAL jsonb_each_text(categories.name) AS names (language, name)
 WHERE starts_with(lower(names.name), $1) ORDER BY cardinality(path), position, names.name LIMIT $3)
UNION ALL
(SELECT 'brand', brand, brand, 1
 FROM (SELECT DISTINCT brand FROM (
           SELECT brand FROM search_brands WHERE start >= $1 AND start < $2 ORDER BY start LIMIT 200
       ) AS few) AS brands
 WHERE EXISTS (SELECT FROM product_search WHERE product_search.brand = brands.brand)
 ORDER BY brand LIMIT $3)
UNION ALL
(SELECT 'word', word, word, 2
 FROM (SELECT word, weight FROM search_words
       WHERE word >= $1 AND word < $2 ORDER BY word LIMIT 500) AS few
 GROUP BY word ORDER BY max(weight) DESC, length(word), word LIMIT $3)
UNION ALL
(SELECT 'product', product_id, name, 3
 FROM (SELECT DISTINCT ON (product_id) product_id, name FROM (
           SELECT product_id, name FROM search_names
           WHERE start >= $1 AND start < $2 ORDER BY start LIMIT 200) AS first
       ORDER BY product_id, name) AS few
 JOIN product_search USING (product_id)
 ORDER BY in_stock DESC, rating DESC, name LIMIT $3)
