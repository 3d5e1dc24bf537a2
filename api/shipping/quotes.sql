-- The tariffs of all active methods for an address: of each method the most specific zone that fits.
-- A zone that fits and has no fee in the currency is not served in it, whatever wider zones say.
--
-- $1 country  $2 region  $3 currency
WITH fitting AS (
    SELECT DISTINCT ON (method_id) method_id, zone, days_min, days_max
    FROM shipping_zones
    WHERE country IN ($1, '*')
      AND (regions = '{}'
           OR EXISTS (SELECT FROM unnest(regions) AS region WHERE lower(region) = lower($2)))
    ORDER BY method_id, country = '*', regions = '{}', zone
)
SELECT method_id, name, carrier, days_min, days_max, first_grams, first_minor, step_grams, step_minor,
       grams_max, free_from_minor
FROM fitting
JOIN shipping_methods USING (method_id)
JOIN shipping_fees USING (method_id, zone)
WHERE active AND currency = $3
ORDER BY position, method_id
