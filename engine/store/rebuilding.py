"""What a recovery reads of Postgres, in bounded memory."""

from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple

from engine.store.database import Connection
from engine.store.sales import Row

ROWS_PER_FETCH: Final = 5000
SORT_SECONDS_MAX: Final = 300.0  # The first row of a million comes when all are sorted.


class RecordRow(NamedTuple):
    """One order as it goes into a buyer's record. `items` is JSON text."""

    user_id: str
    reservation_id: str
    status: str
    until_s: int
    items: str


async def drained_through(connection: Connection, sale_id: str) -> str:
    """The newest stream entry whose orders are stored."""
    return str(
        await connection.fetchval("SELECT drained_through FROM sales WHERE sale_id = $1", sale_id)
    )


async def fetch_counters(connection: Connection, sale_id: str) -> list[Row]:
    """Per SKU: stocked, ordered, sold."""
    rows: list[Row] = await connection.fetch(
        """
        SELECT sku, stocked, ordered, sold FROM sale_items WHERE sale_id = $1 ORDER BY position
        """,
        sale_id,
    )
    return rows


async def missing_orders(
    connection: Connection, sale_id: str, reservation_ids: Sequence[str]
) -> set[str]:
    """Those of the reservations that have no order."""
    rows = await connection.fetch(
        """
        SELECT reservation_id FROM unnest($2::text[]) AS asked (reservation_id)
        WHERE NOT EXISTS (
            SELECT FROM orders
            WHERE sale_id = $1 AND orders.reservation_id = asked.reservation_id COLLATE "C")
        """,
        sale_id,
        reservation_ids,
    )
    return {row["reservation_id"] for row in rows}


async def stream_records(connection: Connection, sale_id: str) -> AsyncIterator[RecordRow]:
    """All orders of the sale, by user and then by age. Needs a transaction: it reads a cursor."""
    # A cursor's first row would be planned for; here all rows are wanted, so sorting is right.
    await connection.execute("SET LOCAL cursor_tuple_fraction = 1")
    cursor = await connection.cursor(
        """
        SELECT user_id, reservation_id, status, extract(epoch FROM reserved_until)::bigint,
               items::text
        FROM orders WHERE sale_id = $1 ORDER BY user_id, reserved_at, reservation_id
        """,
        sale_id,
    )
    while rows := await cursor.fetch(ROWS_PER_FETCH, timeout=SORT_SECONDS_MAX):
        for row in rows:
            yield RecordRow(*row)
