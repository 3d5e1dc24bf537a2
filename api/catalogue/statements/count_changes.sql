-- Gives the changed products a new revision, and says what was done.
WITH made AS (
    SELECT product_id FROM staged_changes WHERE created AND sku IS NULL
), changed AS (
    SELECT DISTINCT product_id FROM staged_changes WHERE product_id NOT IN (SELECT product_id FROM made)
), revised AS (
    UPDATE products SET revision = revision + 1, updated_at = now()
    FROM changed WHERE products.product_id = changed.product_id
), new_skus AS (
    SELECT sku FROM staged_changes WHERE created AND sku IS NOT NULL
)
SELECT (SELECT count(*) FROM made) AS products_created,
       (SELECT count(*) FROM changed) AS products_updated,
       (SELECT count(*) FROM new_skus) AS skus_created,
       (SELECT count(DISTINCT sku) FROM staged_changes
        WHERE sku IS NOT NULL AND sku NOT IN (SELECT sku FROM new_skus)) AS skus_updated
