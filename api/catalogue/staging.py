"""Stores products, one or two hundred thousand, by the same few statements over staged rows.

Callers hold the transaction, which audits. Leaves reading files to api/catalogue/importing.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import Final, NamedTuple

import msgspec

from api.catalogue.document import Product
from api.search.index import index_products
from engine.errors import Conflict
from engine.store.database import Connection

STAGE_BATCH_MAX: Final = 500  # Products per COPY: some milliseconds of this process's time.
INDEX_BATCH_MAX: Final = 500
ANALYZE_MIN: Final = 1000  # From so many rows on Postgres should know how many there are.
# A statement over a whole import; a single product takes milliseconds.
STATEMENT_SECONDS_MAX: Final = 600.0
_FIRST_LINE: Final = 1


class StagedProduct(NamedTuple):
    """A product, and the lines of the file where it and each of its SKUs stand."""

    product: Product
    line: int
    sku_lines: tuple[int, ...]


class Fault(msgspec.Struct, frozen=True):
    """What is wrong in a line of a file. `column` is the field, or empty: the whole line."""

    line: int
    column: str
    problem: str


class Stored(msgspec.Struct, frozen=True):
    """What storing changed. What was the same already is not counted."""

    products_created: int = 0
    products_updated: int = 0
    skus_created: int = 0
    skus_updated: int = 0


class Staging:
    """Products on their way into the catalogue, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._count = 0

    async def open(self) -> None:
        """Call it once, first. What an earlier savepoint left is gone."""
        await self._connection.execute(_sql("stage"))

    async def add(self, products: Sequence[StagedProduct]) -> None:
        """Up to STAGE_BATCH_MAX of them."""
        self._count += len(products)
        await self._copy("staged_products", map(_product_row, products))
        await self._copy("staged_skus", (row for each in products for row in _sku_rows(each)))
        await self._copy("staged_prices", (row for each in products for row in _price_rows(each)))

    async def find_faults(self, faults_max: int) -> tuple[int, list[Fault]]:
        """(how many faults the products have together, the first of them by line)."""
        await self._analyze("staged_products", "staged_skus", "staged_prices")
        await self._run("find_faults")
        rows = await self._connection.fetch(
            "SELECT line, field, problem FROM staged_faults ORDER BY line, field LIMIT $1",
            faults_max,
        )
        count: int = await self._connection.fetchval("SELECT count(*) FROM staged_faults")
        return count, [Fault(*row) for row in rows]

    async def drop_faulty(self) -> None:
        """Forgets each product with a fault, whole."""
        for table, line in (
            ("staged_prices", "product_line"),
            ("staged_skus", "product_line"),
            ("staged_products", "line"),
        ):
            await self._connection.execute(
                f"DELETE FROM {table} WHERE {line} IN (SELECT product_line FROM staged_faults)",  # noqa: S608  # names from the line above
                timeout=STATEMENT_SECONDS_MAX,
            )

    async def store(self, *, whole: bool) -> Stored:
        """Writes the staged products. `whole`: SKUs that they do not name are sold no more."""
        for name in ("store_products", "store_skus", "store_prices"):
            await self._run(name)
        await self._refuse_taken()
        if whole:
            await self._run("retire_skus")
        await self._analyze("staged_changes")
        row = await self._connection.fetchrow(_sql("count_changes"), timeout=STATEMENT_SECONDS_MAX)
        return Stored(**row)

    async def index(self, progress: Callable[[int], None] = lambda _: None) -> None:
        """Brings the search up to what was changed. Last, as it keeps its rows locked."""
        # Tables that have just been filled: without their numbers the search reads them whole.
        await self._analyze("products", "skus", "sku_prices")
        done = 0
        async for ids in _ChangedIds(self._connection):
            await index_products(self._connection, ids)
            progress(done := done + len(ids))

    async def _refuse_taken(self) -> None:
        """Raises Conflict where another transaction made one of our SKUs meanwhile."""
        taken = await self._connection.fetchval(
            "SELECT sku FROM staged_skus JOIN skus USING (sku)"
            " WHERE skus.product_id <> staged_skus.product_id LIMIT 1",
            timeout=STATEMENT_SECONDS_MAX,
        )
        if taken is not None:
            raise Conflict("sku_taken", f"SKU {taken} belongs to another product.")

    async def _copy(self, table: str, rows: Iterable[tuple[object, ...]]) -> None:
        await self._connection.copy_records_to_table(table, records=list(rows))

    async def _analyze(self, *tables: str) -> None:
        if self._count >= ANALYZE_MIN:
            await self._connection.execute(f"ANALYZE {', '.join(tables)}")

    async def _run(self, name: str) -> None:
        await self._connection.execute(_sql(name), timeout=STATEMENT_SECONDS_MAX)


class _ChangedIds:
    """The products that storing changed, in order, some at a time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._after = ""

    def __aiter__(self) -> "_ChangedIds":
        return self

    async def __anext__(self) -> list[str]:
        rows = await self._connection.fetch(
            "SELECT DISTINCT product_id FROM staged_changes WHERE product_id > $1"
            " ORDER BY product_id LIMIT $2",
            self._after,
            INDEX_BATCH_MAX,
        )
        if not rows:
            raise StopAsyncIteration
        self._after = rows[-1]["product_id"]
        return [row["product_id"] for row in rows]


async def store_products(connection: Connection, products: Iterable[Product]) -> Stored:
    """Stores many products that are known to be good, in the caller's transaction."""
    staging = Staging(connection)
    await staging.open()
    lines = (
        StagedProduct(product, line, (line,) * len(product.skus))
        for line, product in enumerate(products, _FIRST_LINE)
    )
    while batch := list(islice(lines, STAGE_BATCH_MAX)):
        await staging.add(batch)
    stored = await staging.store(whole=False)
    await staging.index()
    return stored


def _product_row(staged: StagedProduct) -> tuple[object, ...]:
    product = staged.product
    return (
        staged.line,
        product.product_id,
        product.category_id,
        product.brand,
        _json(product.name),
        _json(product.description),
        _json(product.images),
        _json(product.attributes),
        product.status,
    )


def _sku_rows(staged: StagedProduct) -> Iterator[tuple[object, ...]]:
    for position, (sku, line) in enumerate(zip(staged.product.skus, staged.sku_lines, strict=True)):
        yield (
            staged.line,
            line,
            sku.sku,
            staged.product.product_id,
            _json(sku.options),
            sku.weight_grams,
            position,
            sku.active,
        )


def _price_rows(staged: StagedProduct) -> Iterator[tuple[object, ...]]:
    for sku in staged.product.skus:
        for price in sku.prices:
            yield staged.line, sku.sku, price.currency, price.amount_minor


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


@cache
def _sql(name: str) -> str:
    return files("api.catalogue").joinpath("statements", f"{name}.sql").read_text("utf-8")
