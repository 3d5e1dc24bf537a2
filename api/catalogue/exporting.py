"""Hands products out as files that can be taken in again: CSV or JSON Lines, a piece at a time."""

from collections.abc import AsyncIterator
from typing import Final

import msgspec

from api.catalogue.csv_form import csv_heading, csv_rows
from api.catalogue.importing import Form
from api.catalogue.store import DOCUMENTS, document_of
from engine.store.database import Connection, connect, postgres_errors

EXPORT_BATCH_MAX: Final = 200  # Products per piece: some hundred kB.
EXPORT_SECONDS_MAX: Final = (
    600.0  # A snapshot held for longer would keep Postgres from cleaning up.
)


async def export_products(postgres_url: str, form: Form) -> AsyncIterator[bytes]:
    """All products, archived ones too, as they were at one moment, in the order of their ids.

    Has a connection of its own: whoever reads slowly keeps nobody waiting. Raises StoreUnavailable.
    """
    with postgres_errors():
        connection = await connect(postgres_url)
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                async for piece in _pieces(connection, form):
                    yield piece
        finally:
            await connection.close(timeout=1)


async def _pieces(connection: Connection, form: Form) -> AsyncIterator[bytes]:
    currencies = await _currencies(connection) if form is Form.CSV else []
    if form is Form.CSV:
        yield csv_heading(currencies).encode()
    cursor = await connection.cursor(f"{DOCUMENTS} ORDER BY product_id")
    while rows := await cursor.fetch(EXPORT_BATCH_MAX, timeout=EXPORT_SECONDS_MAX):
        products = [document_of(row) for row in rows]
        if form is Form.CSV:
            yield "".join(csv_rows(product, currencies) for product in products).encode()
        else:
            yield b"".join(msgspec.json.encode(product) + b"\n" for product in products)


async def _currencies(connection: Connection) -> list[str]:
    rows = await connection.fetch("SELECT DISTINCT currency FROM sku_prices ORDER BY currency")
    return [row["currency"] for row in rows]
