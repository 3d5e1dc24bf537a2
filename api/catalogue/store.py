"""Reads and changes products in Postgres, one at a time, each change with its audit line."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from importlib.resources import files
from typing import Any, Final

import asyncpg
import msgspec

from api.catalogue.document import Product
from api.catalogue.staging import StagedProduct, Staging
from engine.errors import Conflict, Invalid
from engine.store.database import Connection, Pool, postgres_errors
from engine.store.sales import log_audit

DOCUMENTS: Final = files("api.catalogue").joinpath("statements", "documents.sql").read_text("utf-8")
_LIST: Final = """
    WHERE ($1::text IS NULL OR status = $1) AND ($2::text IS NULL OR category_id = $2)
      AND product_id > $3
    ORDER BY product_id LIMIT $4
"""
_ONE_LINE: Final = 1


class StoredProduct(msgspec.Struct, frozen=True):
    """A product as it is kept."""

    product: Product
    revision: int
    created_at: datetime
    updated_at: datetime


class Catalogue:
    """The products, as operators see them."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def get(self, product_id: str) -> StoredProduct | None:
        with postgres_errors():
            async with self._pool.acquire() as connection:
                return await find_product(connection, product_id)

    async def list(
        self, *, status: str | None, category_id: str | None, after: str, rows_max: int
    ) -> list[StoredProduct]:
        """By id, those after `after`, of a status and a category or of all."""
        with postgres_errors():
            rows = await self._pool.fetch(DOCUMENTS + _LIST, status, category_id, after, rows_max)
        return [_stored(row) for row in rows]

    async def change(
        self, product_id: str, change: Callable[[StoredProduct | None], Product], actor: str
    ) -> tuple[StoredProduct, bool]:
        """Stores what `change` makes of the product, in one transaction: nobody comes between.

        Returns the product and whether it is new.

        `change` raises for what is not to be. Raises Invalid, Conflict('sku_taken').
        """
        async with writing(self._pool) as connection:
            before = await find_product(connection, product_id, lock=True)
            product = change(before)
            created = await _put(connection, product)
            if created != (before is None):
                raise Conflict("conflict", "The product was created by somebody else meanwhile.")
            stored = await find_product(connection, product_id)
            assert stored is not None
            if before is None or stored.revision != before.revision:
                action = "create_product" if before is None else "change_product"
                await _audit(connection, actor, action, stored)
        return stored, created


async def find_product(
    connection: Connection, product_id: str, *, lock: bool = False
) -> StoredProduct | None:
    ending = " WHERE product_id = $1" + (" FOR NO KEY UPDATE" if lock else "")
    row = await connection.fetchrow(DOCUMENTS + ending, product_id)
    return None if row is None else _stored(row)


def document_of(row: Mapping[str, Any]) -> Product:
    """The product of a row of DOCUMENTS."""
    fields = {name: row[name] for name in Product.__struct_fields__}
    product: Product = msgspec.convert(fields, Product)
    return product


@asynccontextmanager
async def writing(pool: Pool) -> AsyncIterator[Connection]:
    """A transaction that changes the catalogue. Raises Conflict where two got in each other's way."""
    try:
        with postgres_errors():
            async with pool.acquire() as connection, connection.transaction():
                yield connection
    except asyncpg.DeadlockDetectedError:
        raise Conflict("conflict", "Another change was in the way; repeat the request.") from None


async def _put(connection: Connection, product: Product) -> bool:
    """Whether it was created."""
    staging = Staging(connection)
    await staging.open()
    lines = (_ONE_LINE,) * len(product.skus)
    await staging.add([StagedProduct(product, _ONE_LINE, lines)])
    count, faults = await staging.find_faults(1)
    if count:
        if faults[0].column == "category_id":
            raise Invalid("category_id", faults[0].problem)
        raise Conflict("sku_taken", f"{faults[0].problem}.")
    stored = await staging.store(whole=True)
    await staging.index()
    return stored.products_created == 1


async def _audit(connection: Connection, actor: str, action: str, stored: StoredProduct) -> None:
    product = stored.product
    await log_audit(
        connection,
        actor=actor,
        action=action,
        sale_id=None,
        detail={
            "product_id": product.product_id,
            "revision": stored.revision,
            "status": product.status,
        },
    )


def _stored(row: Mapping[str, Any]) -> StoredProduct:
    return StoredProduct(document_of(row), row["revision"], row["created_at"], row["updated_at"])
