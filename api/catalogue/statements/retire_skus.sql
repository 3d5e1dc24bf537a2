-- SKUs that a staged product has no more are sold no more. Orders and reviews still name them.
WITH retired AS (
    UPDATE skus SET active = false FROM staged_products
    WHERE skus.product_id = staged_products.product_id AND skus.active
      AND NOT EXISTS (SELECT FROM staged_skus WHERE staged_skus.sku = skus.sku)
    RETURNING skus.product_id, skus.sku
)
INSERT INTO staged_changes (product_id, sku, created) SELECT product_id, sku, false FROM retired
