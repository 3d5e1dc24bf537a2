-- Takes up to $1 notes of products whose stock or rating changed, and brings their rows up.
WITH noted AS (
    DELETE FROM search_stale
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM search_stale LIMIT $1 FOR UPDATE SKIP LOCKED))
    RETURNING product_id),
now_so AS (
    SELECT product_id,
           EXISTS (SELECT FROM skus JOIN sale_items
                       -- The engine's columns sort as the database does, the shop's by bytes.
                       ON sale_items.sale_id = 'shop' AND sale_items.sku = skus.sku COLLATE "default"
                   WHERE skus.product_id = once.product_id AND skus.active
                     AND sale_items.stocked > sale_items.ordered) AS in_stock,
           coalesce((SELECT sum::real / nullif(count, 0) FROM product_ratings AS rated
                     WHERE rated.product_id = once.product_id), 0) AS rating
    FROM (SELECT DISTINCT product_id FROM noted) AS once),
changed AS (
    UPDATE product_search SET in_stock = now_so.in_stock, rating = now_so.rating
    FROM now_so WHERE product_search.product_id = now_so.product_id
      AND (product_search.in_stock, product_search.rating)
          IS DISTINCT FROM (now_so.in_stock, now_so.rating))
SELECT count(*) FROM noted
