"""What a check asks Postgres. Set-based, and each question of one snapshot."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Final

from engine.store.database import Connection
from engine.store.sales import Row

PAYMENT_PROBLEMS: Final = (
    files("engine.store") / "statements" / "payment_problems.sql"
).read_text()
SECONDS_MAX: Final = 300.0  # A million orders take seconds; a loaded machine more.
ROWS_MAX: Final = 100  # Of what is wrong; the first few are enough to act on.
GUARDS: Final = ("ledger_append_only", "audit_log_append_only", "orders_kept", "orders_transition")


async def make_room(connection: Connection) -> None:
    """Lets this connection hash a million rows in memory; beyond that Postgres goes to disk."""
    await connection.execute("SET work_mem = '64MB'")


async def counted_units(connection: Connection, sale_id: str) -> list[Row]:
    """Per SKU: the counters, what the orders add up to, and what the ledger adds up to."""
    rows: list[Row] = await connection.fetch(
        """
        WITH wishes AS (
            SELECT items, status <> 'awaiting_payment' AS paid, count(*) AS orders
            FROM orders
            WHERE sale_id = $1
              AND status IN ('awaiting_payment', 'paid', 'shipped', 'delivered')
            GROUP BY items, paid
        ), units AS (
            SELECT item.key AS sku, sum(orders * item.value::bigint)::bigint AS live_units,
                   coalesce(sum(orders * item.value::bigint) FILTER (WHERE paid), 0)::bigint
                       AS paid_units
            FROM wishes, jsonb_each_text(wishes.items) AS item GROUP BY item.key
        ), lines AS (
            SELECT sku, count(*) AS lines,
                   coalesce(sum(units) FILTER (WHERE counter = 'stocked'), 0)::bigint AS stocked,
                   coalesce(sum(units) FILTER (WHERE counter = 'ordered'), 0)::bigint AS ordered,
                   coalesce(sum(units) FILTER (WHERE counter = 'sold'), 0)::bigint AS sold
            FROM ledger WHERE sale_id = $1 GROUP BY sku
        )
        SELECT sku, coalesce(item.stocked, 0) AS stocked, coalesce(item.ordered, 0) AS ordered,
               coalesce(item.sold, 0) AS sold, coalesce(live_units, 0) AS live_units,
               coalesce(paid_units, 0) AS paid_units, coalesce(lines.lines, 0) AS lines,
               coalesce(lines.stocked, 0) AS stocked_lines,
               coalesce(lines.ordered, 0) AS ordered_lines, coalesce(lines.sold, 0) AS sold_lines
        FROM (SELECT sku, position, stocked, ordered, sold FROM sale_items WHERE sale_id = $1) AS item
        FULL JOIN units USING (sku) FULL JOIN lines USING (sku)
        ORDER BY position, sku
        """,
        sale_id,
        timeout=SECONDS_MAX,
    )
    return rows


async def checkout_figures(connection: Connection, seconds_max: float) -> Row:
    """Of the carts that were to become orders: under_way, stuck there for longer than `seconds_max`,
    orderless (taken for placed, in the shop, without an order), mispriced (paid at other terms).
    """
    row: Row = await connection.fetchrow(
        """
        SELECT count(*) AS under_way,
               count(*) FILTER (WHERE created_at < now() - make_interval(secs => $1)) AS stuck,
               (SELECT count(*) FROM checkouts placed
                WHERE state = 'placed' AND sale_id = 'shop' AND NOT EXISTS (
                    SELECT FROM orders WHERE orders.sale_id = placed.sale_id
                      AND orders.reservation_id = placed.reservation_id)) AS orderless,
               (SELECT count(*) FROM checkouts placed JOIN orders USING (sale_id, reservation_id)
                WHERE state = 'placed' AND status IN ('paid', 'shipped', 'delivered')
                  AND (placed.amount_minor, placed.currency)
                      <> (orders.amount_minor, orders.currency)) AS mispriced
        FROM checkouts WHERE state = 'started'
        """,
        seconds_max,
        timeout=SECONDS_MAX,
    )
    return row


async def guards_in_force(connection: Connection) -> dict[str, bool]:
    """Whether the triggers that refuse to rewrite history are there and enabled."""
    rows = await connection.fetch(
        "SELECT tgname FROM pg_trigger WHERE tgname = ANY ($1::text[]) AND tgenabled <> 'D'",
        list(GUARDS),
    )
    found = {row["tgname"] for row in rows}
    return {guard: guard in found for guard in GUARDS}


async def buyers_over_limit(connection: Connection, sale_id: str, per_user_max: int) -> list[Row]:
    """Buyers whose live orders hold more units than the sale allows: units, the first ROWS_MAX."""
    rows: list[Row] = await connection.fetch(
        """
        -- Materialized, or the sums are computed again for every order.
        WITH wishes AS MATERIALIZED (
            SELECT items, (SELECT sum(value::bigint) FROM jsonb_each_text(items)) AS units
            FROM (SELECT DISTINCT items FROM orders WHERE sale_id = $1) AS distinct_items
        ), over_limit AS MATERIALIZED (
            SELECT sum(units)::bigint AS units FROM orders JOIN wishes USING (items)
            WHERE sale_id = $1 AND status IN ('awaiting_payment', 'paid', 'shipped', 'delivered')
            GROUP BY user_id HAVING sum(units) > $2
        )
        SELECT units FROM over_limit LIMIT $3
        """,
        sale_id,
        per_user_max,
        ROWS_MAX,
        timeout=SECONDS_MAX,
    )
    return rows


async def fetch_standing(connection: Connection, sale_id: str) -> dict[str, object]:
    """The sale's epoch, revision and fence."""
    row = await connection.fetchrow(
        "SELECT epoch, revision, fenced FROM sales WHERE sale_id = $1", sale_id
    )
    return dict(row)


async def messages_in_motion(connection: Connection, sale_id: str) -> int:
    """Outbox messages that will still change this sale's stock in Redis."""
    return int(
        await connection.fetchval(
            """
            SELECT count(*) FROM outbox
            WHERE sale_id = $1 AND kind IN ('confirm', 'release', 'late_capture', 'restock')
            """,
            sale_id,
        )
    )


async def payment_problems(
    connection: Connection, sale_ids: Sequence[str], refund_seconds_max: float
) -> list[Row]:
    """What is wrong between payments and orders: problem, count, one order as an example."""
    rows: list[Row] = await connection.fetch(
        PAYMENT_PROBLEMS,
        list(sale_ids),
        refund_seconds_max,
        timeout=SECONDS_MAX,
    )
    return rows


async def money_figures(connection: Connection, sale_ids: Sequence[str]) -> Row:
    """paid: orders that are; captured: payments that are."""
    row: Row = await connection.fetchrow(
        """
        SELECT (SELECT count(*) FROM orders
                WHERE sale_id = ANY ($1::text[]) AND status IN ('paid', 'shipped', 'delivered'))
                   AS paid,
               (SELECT count(*) FROM payments
                WHERE sale_id = ANY ($1::text[]) AND status = 'captured') AS captured
        """,
        list(sale_ids),
        timeout=SECONDS_MAX,
    )
    return row


async def inbox_figures(connection: Connection) -> Row:
    """webhooks, waiting, oldest_seconds (of those not handled yet), dead."""
    row: Row = await connection.fetchrow(
        """
        SELECT (SELECT count(*) FROM webhook_inbox) AS webhooks,
               count(*) AS waiting,
               coalesce(extract(epoch FROM now() - min(received_at)), 0)::bigint AS oldest_seconds,
               (SELECT count(*) FROM dead_letters
                WHERE source = 'webhook' AND dismissed_at IS NULL) AS dead
        FROM webhook_inbox WHERE handled_at IS NULL
        """,
        timeout=SECONDS_MAX,
    )
    return row


async def dead_letters(connection: Connection, source: str, sale_ids: Sequence[str]) -> int:
    """Dead letters of a source that concern these sales and that nobody has dealt with."""
    return int(
        await connection.fetchval(
            """
            SELECT count(*) FROM dead_letters
            WHERE source = $1 AND dismissed_at IS NULL
              AND (sale_id IS NULL OR sale_id = ANY ($2::text[]))
            """,
            source,
            list(sale_ids),
        )
    )


async def queue_figures(connection: Connection, sale_ids: Sequence[str], now_ms: int) -> Row:
    """Of these sales: messages, late_seconds of the oldest due one, overdue_seconds of the oldest order."""
    row: Row = await connection.fetchrow(
        """
        SELECT count(*) AS messages,
               coalesce(greatest(extract(epoch FROM now() - min(due_at)), 0), 0)::bigint
                   AS late_seconds,
               (SELECT coalesce(greatest($2::bigint / 1000
                                         - extract(epoch FROM min(reserved_until)), 0), 0)::bigint
                FROM orders WHERE status = 'awaiting_payment' AND sale_id = ANY ($1::text[]))
                   AS overdue_seconds
        FROM outbox WHERE sale_id = ANY ($1::text[])
        """,
        list(sale_ids),
        now_ms,
        timeout=SECONDS_MAX,
    )
    return row
