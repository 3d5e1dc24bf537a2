"""Makes sales of their rows."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from engine.admission.room.settings import RoomSettings
from engine.model import SaleState
from engine.sales.document import SaleItem
from engine.sales.sale import Sale
from engine.store.database import Connection, Pool, postgres_errors
from engine.store.sales import Row, SaleStanding, fetch_sale_rows, fetch_standings

SALES_LISTED_MAX: Final = 1000  # Newest first; older sales are still found by name.
READ_SECONDS_MAX: Final = 2.0  # A read of a sale is milliseconds; buyers wait for it.


async def load_sale(pool: Pool, sale_id: str) -> Sale | None:
    """The sale, or None. Raises StoreUnavailable."""
    async with _reading(pool) as connection:
        return await read_sale(connection, sale_id)


async def load_sales(pool: Pool) -> list[Sale]:
    """The newest SALES_LISTED_MAX sales. Raises StoreUnavailable."""
    async with _reading(pool) as connection:
        rows = await fetch_sale_rows(connection, rows_max=SALES_LISTED_MAX)
    return [_sale(row, items) for row, items in rows]


async def load_standings(pool: Pool) -> list[SaleStanding]:
    """Every sale, newest first. Raises StoreUnavailable."""
    async with _reading(pool) as connection:
        return await fetch_standings(connection)


async def read_sale(connection: Connection, sale_id: str) -> Sale | None:
    """The sale as this connection's transaction sees it."""
    rows = await fetch_sale_rows(connection, sale_id, rows_max=1)
    return _sale(*rows[0]) if rows else None


@asynccontextmanager
async def _reading(pool: Pool) -> AsyncIterator[Connection]:
    """A connection for READ_SECONDS_MAX, the wait for it included."""
    with postgres_errors():
        async with (
            asyncio.timeout(READ_SECONDS_MAX),
            pool.acquire(timeout=READ_SECONDS_MAX) as connection,
        ):
            yield connection


def _sale(row: Row, items: list[Row]) -> Sale:
    return Sale(
        sale_id=row["sale_id"],
        name=row["name"],
        opens_at=row["opens_at"],
        closes_at=row["closes_at"],
        per_user_max=row["per_user_max"],
        reservation_seconds=row["reservation_seconds"],
        auto_capture=row["auto_capture"],
        state=SaleState(row["state"]),
        revision=row["revision"],
        epoch=row["epoch"],
        fenced=row["fenced"],
        launched=row["launched"],
        items=msgspec.convert(items, tuple[SaleItem, ...]),
        room=msgspec.convert(row["room"], RoomSettings | None),
    )
