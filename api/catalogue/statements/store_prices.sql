-- The staged SKUs cost what is staged, in those currencies and in no other.
WITH dropped AS (
    DELETE FROM sku_prices AS known USING staged_skus
    WHERE known.sku = staged_skus.sku AND NOT EXISTS (
        SELECT FROM staged_prices
        WHERE staged_prices.sku = known.sku AND staged_prices.currency = known.currency)
    RETURNING known.sku
), put AS (
    INSERT INTO sku_prices AS known (sku, currency, amount_minor)
    SELECT sku, currency, amount_minor FROM staged_prices ORDER BY sku, currency
    ON CONFLICT (sku, currency) DO UPDATE SET amount_minor = excluded.amount_minor
    WHERE known.amount_minor <> excluded.amount_minor
    RETURNING sku
)
INSERT INTO staged_changes (product_id, sku, created)
SELECT product_id, sku, false
FROM (SELECT sku FROM dropped UNION SELECT sku FROM put) AS priced JOIN staged_skus USING (sku)
