-- Makes or changes the staged SKUs. One that has come to another product meanwhile stays there.
WITH written AS (
    INSERT INTO skus AS known (sku, product_id, options, weight_grams, position, active)
    SELECT sku, product_id, options::jsonb, weight_grams, position, active
    FROM staged_skus ORDER BY sku
    ON CONFLICT (sku) DO UPDATE
    SET options = excluded.options, weight_grams = excluded.weight_grams,
        position = excluded.position, active = excluded.active
    WHERE known.product_id = excluded.product_id
      AND (known.options, known.weight_grams, known.position, known.active)
          IS DISTINCT FROM (excluded.options, excluded.weight_grams, excluded.position, excluded.active)
    RETURNING product_id, sku, xmax = 0 AS created
)
INSERT INTO staged_changes (product_id, sku, created) SELECT product_id, sku, created FROM written
