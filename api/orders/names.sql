-- What SKUs are called. A sale names what it sells; ordinary SKUs are named by the catalogue.
--
-- $1 sales  $2 SKUs (both lists alike long)
SELECT wanted.sale_id, wanted.sku, products.images,
       CASE WHEN wanted.sale_id = 'shop' THEN coalesce(products.name, sale_items.name)
            ELSE coalesce(nullif(sale_items.name, '{}'), products.name) END AS name
FROM unnest($1::text[], $2::text[]) AS wanted(sale_id, sku)
LEFT JOIN sale_items USING (sale_id, sku)
LEFT JOIN skus USING (sku)
LEFT JOIN products USING (product_id)
