-- Moves a batch of orders to another status: one statement, hence one atomic step.
-- Only orders whose status still allows it move, so running it again changes nothing.
-- Each SKU's counters are touched once per batch, with the ledger lines that explain them.
--
-- $1 sales  $2 reservation ids (both lists alike long)  $3 statuses to move from  $4 status to move to
-- $5 status reason (null: keep)  $6 sign of ordered (-1, 0, 1)  $7 sign of sold  $8 ledger reason
-- $9 outbox kind (null: none)  $10 outbox reason
-- Returns sale_id, reservation_id, user_id of the orders that moved.
WITH moved AS (
    UPDATE orders SET status = $4, status_reason = coalesce($5, status_reason), updated_at = now()
    FROM unnest($1::text[], $2::text[]) AS wanted(sale_id, reservation_id)
    WHERE orders.sale_id = wanted.sale_id AND orders.reservation_id = wanted.reservation_id
      AND orders.status = ANY ($3::text[])
    RETURNING orders.sale_id, orders.reservation_id, orders.user_id, orders.items
), wishes AS (
    SELECT sale_id, items, count(*) AS orders FROM moved GROUP BY sale_id, items
), units AS (
    SELECT sale_id, item.key AS sku, sum(wishes.orders * item.value::bigint)::bigint AS units
    FROM wishes, jsonb_each_text(wishes.items) AS item
    GROUP BY sale_id, item.key
), locked AS (
    -- Every writer of these rows locks them in the order of their SKU. That excludes a deadlock for
    -- one such statement in a transaction; before several, see lock_units.
    SELECT sale_id, sku FROM sale_items
    WHERE (sale_id, sku) IN (SELECT sale_id, sku FROM units)
    ORDER BY sale_id, sku FOR UPDATE
), counted AS (
    UPDATE sale_items
    SET ordered = ordered + $6::int * units.units, sold = sold + $7::int * units.units
    FROM units JOIN locked USING (sale_id, sku)
    WHERE sale_items.sale_id = units.sale_id AND sale_items.sku = units.sku
), lined AS (
    INSERT INTO ledger (sale_id, sku, counter, units, reason)
    SELECT sale_id, sku, counter, sign * units, $8
    FROM units, (VALUES ('ordered', $6::int), ('sold', $7::int)) AS change(counter, sign)
    WHERE sign <> 0
), told AS (
    INSERT INTO outbox (kind, sale_id, reference, user_id, reason)
    SELECT $9, sale_id, reservation_id, user_id, $10 FROM moved
    WHERE $9::text IS NOT NULL AND sale_id <> 'shop'  -- whose units are counted here alone
)
SELECT sale_id, reservation_id, user_id FROM moved
