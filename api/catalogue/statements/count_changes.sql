-- Gives the changed products a new revision, and says what was done. Grouped, not looked up one in
-- the other: there may be a million changes.
WITH products_done AS (
    SELECT product_id, bool_or(created AND sku IS NULL) AS created FROM staged_changes GROUP BY 1
), skus_done AS (
    SELECT sku, bool_or(created) AS created FROM staged_changes WHERE sku IS NOT NULL GROUP BY 1
), revised AS (
    UPDATE products SET revision = revision + 1, updated_at = now()
    FROM products_done
    WHERE products.product_id = products_done.product_id AND NOT products_done.created
)
SELECT count(*) FILTER (WHERE created) AS products_created,
       count(*) FILTER (WHERE NOT created) AS products_updated,
       (SELECT count(*) FILTER (WHERE created) FROM skus_done) AS skus_created,
       (SELECT count(*) FILTER (WHERE NOT created) FROM skus_done) AS skus_updated
FROM products_done
