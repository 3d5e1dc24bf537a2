-- Makes or changes the staged products; those that are the same already stay untouched.
WITH written AS (
    INSERT INTO products AS known (product_id, category_id, brand, name, description, images,
                                   attributes, status)
    SELECT product_id, category_id, brand, name::jsonb, description::jsonb, images::jsonb,
           attributes::jsonb, status
    FROM staged_products ORDER BY product_id
    ON CONFLICT (product_id) DO UPDATE
    SET category_id = excluded.category_id, brand = excluded.brand, name = excluded.name,
        description = excluded.description, images = excluded.images,
        attributes = excluded.attributes, status = excluded.status
    WHERE (known.category_id, known.brand, known.name, known.description, known.images,
           known.attributes, known.status)
        IS DISTINCT FROM (excluded.category_id, excluded.brand, excluded.name,
           excluded.description, excluded.images, excluded.attributes, excluded.status)
    RETURNING product_id, xmax = 0 AS created
)
INSERT INTO staged_changes (product_id, created) SELECT product_id, created FROM written
