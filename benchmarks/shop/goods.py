"""Puts the demo catalogue up at any size, straight into Postgres by COPY, and indexes it for search."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import islice
from multiprocessing import get_context
from random import Random
from typing import Any, Final

import asyncpg
import msgspec

from api.catalogue.document import Product
from api.demo.catalogue import DEMO_SEED, categories, products, units_of
from api.search.index import index_products
from benchmarks.rig import migrate
from engine.model import SHOP
from engine.store.database import Connection, connect

BATCH: Final = 5_000  # Products per COPY: some MB.
SINCE: Final = datetime(2024, 1, 1, tzinfo=UTC)
MINUTES: Final = 1_400_000  # until now; spread, so that "newest" says something
SECONDS_MAX: Final = 300.0
PROCESSES: Final = 2

# In no order, as `reindex` has it.
_SHARE: Final = """
    SELECT product_id FROM products WHERE abs(hashtext(product_id)::bigint) % $1::int = $2::int
    ORDER BY hashtext(product_id)"""

# Those that are no constraint's, and that writing does not read itself.
_INDEXES: Final = """
    SELECT indexname, indexdef FROM pg_indexes
    WHERE tablename = ANY ($1::text[])
      AND indexname NOT IN (SELECT conname FROM pg_constraint)
      AND indexname NOT IN ('search_words_word', 'search_names_of_product')
    ORDER BY indexdef"""
_CATALOGUE: Final = ("products", "skus", "sku_prices", "sale_items")
_INDEX: Final = ("product_search", "search_names", "search_words")

_PRODUCT_COLUMNS: Final = (
    "product_id", "category_id", "brand", "name", "description", "images", "attributes", "created_at",
)  # fmt: skip
_STOCK_COLUMNS: Final = (
    "sale_id", "sku", "position", "name", "price_minor", "currency", "stocked",
)  # fmt: skip


async def put_up(url: str, count: int) -> None:
    """Makes the tables, fills them, and brings the index up to them."""
    await migrate(url)
    connection = await asyncpg.connect(url)
    try:
        await _copy_in_binary(connection)
        # Without triggers: what is loaded at once needs no notes of what changed.
        await connection.execute("SET session_replication_role = replica")
        definitions = await _drop_indexes(connection, _CATALOGUE)
        await _put_up_categories(connection)
        dice = Random(DEMO_SEED)  # hides nothing
        found = products(count, DEMO_SEED)
        while batch := list(islice(found, BATCH)):
            await _copy(connection, batch, dice)
        await _build_all(url, definitions)
        await connection.execute("ANALYZE")
    finally:
        await connection.close()


async def index_all(url: str) -> None:
    """Indexes all products, in two processes; Postgres' own indexes are built at the end, at once."""
    connection = await connect(url)
    try:
        definitions = await _drop_indexes(connection, _INDEX)
        loop = asyncio.get_running_loop()
        with ProcessPoolExecutor(PROCESSES, get_context("spawn")) as processes:
            parts = (
                loop.run_in_executor(processes, index_part, url, part) for part in range(PROCESSES)
            )
            await asyncio.gather(*parts)
        await _build_all(url, definitions)
        # What is new is looked at once more: here nothing changed meanwhile.
        await connection.execute("TRUNCATE search_stale")
        await connection.execute("VACUUM ANALYZE", timeout=SECONDS_MAX)
    finally:
        await connection.close()


async def _drop_indexes(connection: Connection, tables: Sequence[str]) -> list[str]:
    """What makes them again, later and at once."""
    rows = await connection.fetch(_INDEXES, list(tables))
    for row in rows:
        await connection.execute(f'DROP INDEX "{row["indexname"]}"')
    return [row["indexdef"] for row in rows]


async def _build_all(url: str, definitions: Sequence[str]) -> None:
    parts = (definitions[part::PROCESSES] for part in range(PROCESSES))
    await asyncio.gather(*(_build(url, part) for part in parts))


async def _build(url: str, definitions: Sequence[str]) -> None:
    connection = await connect(url)
    try:
        await connection.execute("SET maintenance_work_mem = '192MB'")
        await connection.execute("SET max_parallel_maintenance_workers = 0")
        for definition in definitions:
            await connection.execute(definition, timeout=SECONDS_MAX)
    finally:
        await connection.close()


def index_part(url: str, part: int) -> None:
    """One process' share of it."""
    asyncio.run(_index(url, part))


async def _index(url: str, part: int) -> None:
    connection = await connect(url)
    try:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute("SET synchronous_commit = off")
        rows = await connection.fetch(_SHARE, PROCESSES, part)
        ids = [row["product_id"] for row in rows]
        for at in range(0, len(ids), BATCH):
            async with connection.transaction():
                await index_products(connection, ids[at : at + BATCH])
    finally:
        await connection.close()


async def _copy_in_binary(connection: Connection) -> None:
    """COPY takes jsonb as a byte of version, then the text."""
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda value: b"\x01" + msgspec.json.encode(value),
        decoder=lambda data: msgspec.json.decode(data[1:]),
    )


async def _put_up_categories(connection: Connection) -> None:
    paths: dict[str, list[str]] = {}
    for each in categories():
        path = paths[each.category_id] = [*paths.get(each.parent_id or "", []), each.category_id]
        row = (each.category_id, each.parent_id, path, each.position, each.name)
        await connection.execute("INSERT INTO categories VALUES ($1, $2, $3, $4, $5)", *row)


async def _copy(connection: Connection, batch: list[Product], dice: Random) -> None:
    skus = [
        (product.product_id, at, sku) for product in batch for at, sku in enumerate(product.skus)
    ]
    for table, columns, records in (
        ("products", _PRODUCT_COLUMNS, _products(batch, dice)),
        (
            "skus",
            ("sku", "product_id", "options", "weight_grams", "position"),
            ((sku.sku, product, sku.options, sku.weight_grams, at) for product, at, sku in skus),
        ),
        (
            "sku_prices",
            ("sku", "currency", "amount_minor"),
            (
                (sku.sku, price.currency, price.amount_minor)
                for _, _, sku in skus
                for price in sku.prices
            ),
        ),
        (
            "sale_items",
            _STOCK_COLUMNS,
            ((SHOP, sku.sku, 0, {}, 0, "CNY", units_of(sku.sku, DEMO_SEED)) for _, _, sku in skus),
        ),
    ):
        await connection.copy_records_to_table(table, columns=columns, records=records)


def _products(batch: list[Product], dice: Random) -> Iterator[tuple[Any, ...]]:
    for product in batch:
        yield (
            product.product_id, product.category_id, product.brand, product.name,
            product.description, product.images, product.attributes,
            SINCE + timedelta(minutes=dice.randrange(MINUTES)),
        )  # fmt: skip
