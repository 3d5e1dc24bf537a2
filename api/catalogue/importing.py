"""Takes products in from files: CSV or JSON Lines, in bounded memory, in one transaction, or not at all.

Leaves the meaning of a row to its form and the statements to staging.
"""

from collections.abc import AsyncIterator, Callable, Iterable
from enum import StrEnum
from typing import Final, Protocol

import msgspec

from api.bodies import field_error
from api.catalogue.csv_form import CsvReader
from api.catalogue.document import Product
from api.catalogue.lines import Record, records
from api.catalogue.staging import (
    STAGE_BATCH_MAX,
    Fault,
    StagedProduct,
    Staging,
    Stored,
)
from engine.errors import Conflict
from engine.store.database import Connection, Pool, postgres_errors
from engine.store.sales import log_audit

FAULTS_SHOWN_MAX: Final = 100  # Enough to mend a file; a wrong one has thousands.
_ONE_AT_A_TIME: Final = 0x10CA7A106  # Of the advisory lock: any number that nobody else uses.

Progress = Callable[[str, int], None]  # (step, products so far)


class Form(StrEnum):
    """How a file says what products are."""

    CSV = "csv"
    JSONL = "jsonl"


class ImportReport(msgspec.Struct, frozen=True):
    """What came of an import. `bad` are the first faults of `bad_count`.

    `stored` is false where nothing was changed: for a dry run, or because of bad rows.
    """

    stored: bool
    dry_run: bool
    rows_read: int
    products_read: int
    products_created: int
    products_updated: int
    skus_created: int
    skus_updated: int
    bad_count: int
    bad: list[Fault]


class _Reader(Protocol):
    """Makes products of records."""

    def read(self, record: Record) -> StagedProduct | list[Fault] | None: ...

    def rest(self) -> StagedProduct | list[Fault] | None: ...


class _JsonlReader:
    """A product is a line."""

    _decoder = msgspec.json.Decoder(Product)

    def read(self, record: Record) -> StagedProduct | list[Fault]:
        try:
            product = self._decoder.decode(record.text)
        except msgspec.ValidationError as error:
            found = field_error(str(error))
            return [Fault(record.line, found.field, found.problem)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return [Fault(record.line, "", f"is no JSON: {error}")]
        return StagedProduct(product, record.line, (record.line,) * len(product.skus))

    def rest(self) -> None:
        return None


class Import:
    """One file on its way in. Use it once."""

    def __init__(
        self, connection: Connection, form: Form, progress: Progress | None = None
    ) -> None:
        """In a transaction, which the caller ends as `run` says."""
        self._staging = Staging(connection)
        self._connection = connection
        self._form = form
        self._reader: _Reader = CsvReader() if form is Form.CSV else _JsonlReader()
        self._progress = progress or (lambda _step, _done: None)
        self._batch: list[StagedProduct] = []
        self._rows = self._products = self._bad_count = 0
        self._bad: list[Fault] = []

    async def run(
        self, pieces: AsyncIterator[bytes], actor: str, *, dry_run: bool, skip_bad: bool
    ) -> ImportReport:
        """The report; where `stored` is false the transaction is to be rolled back. Raises Invalid."""
        if not await self._connection.fetchval(
            "SELECT pg_try_advisory_xact_lock($1)", _ONE_AT_A_TIME
        ):
            raise Conflict("conflict", "Another import is running.")
        await self._stage(pieces)
        await self._find_faults()
        if self._bad_count and not (skip_bad or dry_run):
            return self._report(Stored(), stored=False, dry_run=dry_run)
        if self._bad_count:
            await self._staging.drop_faulty()
        self._progress("stored", 0)
        stored = await self._staging.store(whole=False)
        if not dry_run:
            await self._staging.index(lambda done: self._progress("searchable", done))
            await self._audit(actor, stored)
        return self._report(stored, stored=not dry_run, dry_run=dry_run)

    async def _stage(self, pieces: AsyncIterator[bytes]) -> None:
        await self._staging.open()
        is_csv = self._form is Form.CSV
        async for some in records(pieces, quoted=is_csv):
            self._rows += len(some)
            self._take(self._reader.read(record) for record in some)
            if len(self._batch) >= STAGE_BATCH_MAX:
                await self._flush()
        if is_csv and self._rows:
            self._rows -= 1  # The heading.
        self._take([self._reader.rest()])
        await self._flush()

    def _take(self, found: Iterable[StagedProduct | list[Fault] | None]) -> None:
        for each in found:
            if isinstance(each, StagedProduct):
                self._products += 1
                self._batch.append(each)
            elif each:
                self._bad_count += len(each)
                self._bad += each[: FAULTS_SHOWN_MAX - len(self._bad)]

    async def _flush(self) -> None:
        batch, self._batch = self._batch, []
        await self._staging.add(batch)
        self._progress("read", self._products)

    async def _find_faults(self) -> None:
        count, faults = await self._staging.find_faults(FAULTS_SHOWN_MAX)
        self._bad_count += count
        self._bad = sorted([*self._bad, *faults], key=lambda fault: fault.line)[:FAULTS_SHOWN_MAX]

    async def _audit(self, actor: str, stored: Stored) -> None:
        detail = {**msgspec.structs.asdict(stored), "bad_rows": self._bad_count}
        await log_audit(
            self._connection, actor=actor, action="import_products", sale_id=None, detail=detail
        )

    def _report(self, done: Stored, *, stored: bool, dry_run: bool) -> ImportReport:
        return ImportReport(
            stored=stored,
            dry_run=dry_run,
            rows_read=self._rows,
            products_read=self._products,
            **msgspec.structs.asdict(done),
            bad_count=self._bad_count,
            bad=self._bad,
        )


async def import_products(
    pool: Pool,
    pieces: AsyncIterator[bytes],
    form: Form,
    actor: str,
    *,
    dry_run: bool = False,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Stores the products of a file and says what became of every row.

    A product that is there already is made what the file says; SKUs that it does not name stay.
    Nothing is stored if a row is bad, unless `skip_bad`: then its product is left out. A dry run
    counts as if the bad ones were left out. Raises Invalid for what is no such file at all.
    """
    with postgres_errors():
        async with pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            try:
                report = await Import(connection, form, progress).run(
                    pieces, actor, dry_run=dry_run, skip_bad=skip_bad
                )
            except BaseException:
                await transaction.rollback()
                raise
            await (transaction.commit() if report.stored else transaction.rollback())
    return report
