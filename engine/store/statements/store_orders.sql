-- Stores one batch of reservations as orders: one statement, hence one transaction.
-- Running it again changes nothing: what is stored already is skipped, and only what was inserted is counted.
-- Several may run side by side. What all of one sale have to change comes last, so that they wait for each
-- other's ends only; and in one order, orders by id, sale, items by SKU, so that none waits for one that waits for it.
-- `>= 0` below is how one part of the statement is made to wait for another.
-- An order whose reservation was made by a checkout has the checkout's price: that was written before
-- anything was reserved, so it is there. Where the sale has no checkouts, one probe of an index is all.
-- So drained_through is the newest entry that is stored, while older ones may still be at it: Redis, if it is
-- intact, has got at least that far. What is not stored yet is told by the stream, which keeps it until it is.
--
-- $1 sale   $2 reservation ids  $3 users  $4 number of the wish
-- $5 wish numbers  $6 their items (jsonb objects)  $7 their amounts  $8 reserved at (ms)  $9 reserved until (s)
-- $10 currency   $11 whether the engine captures the payment itself   $12 newest stream entry of the batch
-- Returns how many orders were inserted.
WITH wishes AS MATERIALIZED (
    SELECT wish, items::jsonb, amount_minor, to_timestamp(at_ms / 1000.0::float8) AS reserved_at,
           to_timestamp(until_s) AS reserved_until
    FROM unnest($5::int[], $6::text[], $7::bigint[], $8::bigint[], $9::bigint[])
             AS w(wish, items, amount_minor, at_ms, until_s)
), any_terms AS MATERIALIZED (
    SELECT FROM checkouts WHERE sale_id = $1 LIMIT 1
), inserted AS (
    INSERT INTO orders (sale_id, reservation_id, user_id, items, amount_minor, currency, status,
                        reserved_at, reserved_until)
    SELECT $1, r.reservation_id, r.user_id, wishes.items,
           coalesce(terms.amount_minor, wishes.amount_minor), coalesce(terms.currency, $10),
           'awaiting_payment', wishes.reserved_at, wishes.reserved_until
    FROM unnest($2::text[], $3::text[], $4::int[]) AS r(reservation_id, user_id, wish)
    JOIN wishes USING (wish)
    LEFT JOIN LATERAL (
        SELECT amount_minor, currency FROM checkouts
        WHERE (SELECT count(*) FROM any_terms) > 0 AND sale_id = $1
          AND checkouts.reservation_id = r.reservation_id AND state <> 'dropped'
    ) AS terms ON true
    ORDER BY r.reservation_id
    ON CONFLICT DO NOTHING
    RETURNING reservation_id, items
), asked AS (
    INSERT INTO outbox (kind, sale_id, reference)
    SELECT 'capture', $1, reservation_id FROM inserted WHERE $11
    RETURNING message_id
), moved AS (
    UPDATE sales SET drained_through = $12
    WHERE sale_id = $1 AND (SELECT count(*) FROM asked) >= 0
      AND string_to_array(drained_through, '-')::bigint[] < string_to_array($12, '-')::bigint[]
    RETURNING sale_id
), carts AS (
    SELECT items, count(*) AS orders FROM inserted GROUP BY items
), units AS (
    SELECT item.key AS sku, sum(carts.orders * item.value::bigint)::bigint AS units
    FROM carts, jsonb_each_text(carts.items) AS item
    GROUP BY item.key
), locked AS (
    SELECT sku FROM sale_items
    WHERE sale_id = $1 AND sku IN (SELECT sku FROM units) AND (SELECT count(*) FROM moved) >= 0
    ORDER BY sku FOR UPDATE
), counted AS (
    UPDATE sale_items SET ordered = ordered + units.units
    FROM units, locked
    WHERE sale_items.sale_id = $1 AND sale_items.sku = units.sku AND locked.sku = units.sku
), lined AS (
    INSERT INTO ledger (sale_id, sku, counter, units, reason)
    SELECT $1, sku, 'ordered', units, 'drained' FROM units
)
SELECT count(*) FROM inserted
