-- What the SKUs of $1 are and cost in currency $2: listed, else in the base currency $3 with the
-- newest rate that is valid on $4 (today if null).
SELECT skus.sku, products.product_id, products.name, skus.options, categories.path AS category_path,
       products.brand, skus.weight_grams, products.images ->> 0 AS image,
       skus.active AND products.status = 'active' AS active,
       coalesce(shelf.stocked - shelf.ordered, 0) AS available,
       listed.amount_minor AS listed_minor, base.amount_minor AS base_minor, today.rate
FROM skus
JOIN products USING (product_id)
JOIN categories USING (category_id)
CROSS JOIN (SELECT (
    SELECT rate FROM exchange_rates
    WHERE exchange_rates.base = $3 AND quote = $2
      AND valid_on <= coalesce($4::date, (now() AT TIME ZONE 'UTC')::date)
    ORDER BY valid_on DESC LIMIT 1) AS rate) AS today
LEFT JOIN sku_prices listed ON listed.sku = skus.sku AND listed.currency = $2
LEFT JOIN sku_prices base ON base.sku = skus.sku AND base.currency = $3
-- The engine's columns sort as the database does, the shop's by bytes.
LEFT JOIN sale_items shelf ON shelf.sale_id = 'shop' AND shelf.sku = skus.sku COLLATE "default"
WHERE skus.sku = ANY ($1)
