"""Moves reservations from the orders streams into Postgres, a batch per statement.

An entry is acknowledged only after its orders are committed, and storing is idempotent, so a kill
at any point repeats work and loses none. Leaves payment and expiry to others.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from itertools import groupby
from typing import Final

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from engine import metrics
from engine.clock import Clock
from engine.errors import UnknownSale
from engine.sales import Sale, SaleDirectory
from engine.store.database import Connection
from engine.store.orders import (
    OrderBatch,
    Terms,
    bury_entry,
    is_oversold,
    newest_of,
    store_orders,
    store_orders_within_stock,
)
from engine.stream import Entry, Malformed, OrderStreams
from ext.records import split_batch

logger = logging.getLogger(__name__)

BLOCK_MS: Final = 100  # How long a read waits; bounds how late a stop or a new sale is noticed.
ENTRIES_MAX: Final = 2000  # Per read: bounds memory when entries are small.
SALES_SECONDS: Final = 1.0  # How often the list of sales is looked at again.
CLAIM_SECONDS: Final = 5.0  # How often dead consumers' entries are looked for.


class Drainer:
    """One consumer of the drain group, for all sales. Owns its Postgres connection.

    `connect` opens that connection; `redis` is a blocking client of the drainer's own.
    """

    def __init__(
        self,
        redis: Redis,
        connect: Callable[[], Awaitable[Connection]],
        directory: SaleDirectory,
        clock: Clock,
        *,
        consumer: str,
        batch_max: int,
        attempts_max: int,
        claim_idle_seconds: float,
    ) -> None:
        self._streams = OrderStreams(redis, consumer)
        self._connect = connect
        self._directory = directory
        self._clock = clock
        self._batch_max = batch_max
        self._attempts_max = attempts_max
        self._claim_idle_ms = int(claim_idle_seconds * 1000)
        self._connection: Connection | None = None
        self._sales: list[str] = []
        self._sales_looked_at = -SALES_SECONDS
        self._claimed_at = -CLAIM_SECONDS
        self._count = 16  # Entries per read; follows their size.
        # Own entries first: a reply lost in transit leaves them pending.
        self._own_pending = True
        self._attempts: Counter[str] = Counter()
        self._stopping = False

    async def run(self) -> None:
        """Drains until stopped. Raises Unavailable when Redis or Postgres is gone: call it again."""
        self._own_pending = True
        while not self._stopping:
            if not await self._look_for_sales():
                await asyncio.sleep(BLOCK_MS / 1000)
                continue
            await self.drain_once()

    async def drain_once(self, *, block_ms: int = BLOCK_MS) -> int:
        """One bounded pass: own entries first, then dead consumers', then new ones.

        Returns how many entries it finished.
        """
        sales = await self._look_for_sales()
        if not sales:
            return 0
        try:
            entries = await self._next_entries(sales, block_ms)
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            self._forget_sales()  # A sale's stream is gone; the fence will say so.
            return 0
        try:
            for sale_id, group in groupby(entries, key=lambda entry: entry.sale_id):
                await self._store(sale_id, list(group))
        except BaseException:
            self._own_pending = True
            raise
        return len(entries)

    async def drain_sale(self, sale_id: str) -> int:
        """Drains one sale to the last entry, other consumers' included. For recovery and stopping.

        Returns how many entries it finished.
        """
        total = 0
        while True:
            entries, gone = await self._streams.claim(sale_id, idle_ms=0, count=ENTRIES_MAX)
            await self._report_gone(sale_id, gone)
            if not entries:
                entries = await self._streams.read_new([sale_id], count=self._count, block_ms=1)
            if not entries and not gone:
                return total
            await self._store(sale_id, entries)
            total += len(entries)

    def stop(self) -> None:
        """Makes `run` return after the pass it is in. Idempotent, safe before start."""
        self._stopping = True

    async def close(self) -> None:
        """Gives the Postgres connection back. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _look_for_sales(self) -> list[str]:
        now = self._clock.monotonic()
        if now - self._sales_looked_at >= SALES_SECONDS:
            launched = [sale.sale_id for sale in await self._directory.all() if sale.launched]
            self._sales = await self._streams.present(launched)
            self._sales_looked_at = now
        return self._sales

    def _forget_sales(self) -> None:
        self._sales, self._sales_looked_at = [], -SALES_SECONDS

    async def _next_entries(self, sales: list[str], block_ms: int) -> list[Entry | Malformed]:
        if self._own_pending:
            if entries := await self._streams.read_own(sales, count=self._count):
                return entries
            self._own_pending = False
        if self._clock.monotonic() - self._claimed_at >= CLAIM_SECONDS:
            if entries := await self._claim(sales):
                return entries
            self._claimed_at = self._clock.monotonic()
        return await self._streams.read_new(sales, count=self._count, block_ms=block_ms)

    async def _claim(self, sales: list[str]) -> list[Entry | Malformed]:
        entries: list[Entry | Malformed] = []
        for sale_id in sales:
            claimed, gone = await self._streams.claim(
                sale_id, idle_ms=self._claim_idle_ms, count=self._count
            )
            await self._report_gone(sale_id, gone)
            entries += claimed
        return entries

    async def _report_gone(self, sale_id: str, entry_ids: Sequence[str]) -> None:
        for entry_id in entry_ids:
            await self._bury(sale_id, entry_id, b"", "the entry was deleted before it was stored")

    async def _store(self, sale_id: str, entries: Sequence[Entry | Malformed]) -> None:
        sale = await self._directory.get(sale_id)
        if sale is None:
            raise UnknownSale(f"Stream of sale {sale_id}, which Postgres does not know.")
        for chunk in self._chunks(entries):
            try:
                await self._store_chunk(sale, chunk)
            except (ValueError, asyncpg.DataError, asyncpg.IntegrityConstraintViolationError):
                # One of them is bad; find it without holding its neighbours up.
                for entry in chunk:
                    await self._store_alone(sale, entry)

    def _chunks(self, entries: Sequence[Entry | Malformed]) -> list[list[Entry | Malformed]]:
        """Entries in their order, cut so that each chunk holds about `batch_max` reservations."""
        chunks: list[list[Entry | Malformed]] = [[]]
        size = total = 0
        for entry in entries:
            lines = entry.batch.count(b"\n") + 1 if isinstance(entry, Entry) else 1
            if size and size + lines > self._batch_max:
                chunks.append([])
                size = 0
            chunks[-1].append(entry)
            size += lines
            total += lines
        # Read so many entries next time that they make one full statement.
        per_entry = max(1, total // max(1, len(entries)))
        self._count = max(1, min(ENTRIES_MAX, self._batch_max // per_entry))
        return chunks if entries else []

    async def _store_chunk(self, sale: Sale, entries: Sequence[Entry | Malformed]) -> None:
        batch = make_batch(sale.sale_id, entries)
        terms = Terms(sale.prices, sale.currency, sale.auto_capture)
        connection = await self._connected()
        try:
            stored = await store_orders(connection, batch, terms)
        except asyncpg.CheckViolationError as error:
            if not is_oversold(error):
                raise
            stored, refused = await store_orders_within_stock(connection, batch, terms)
            metrics.orders_oversold.inc(len(refused))
            logger.error(
                "Refused %d reservations of %s beyond its stock: Redis had lost data.",
                len(refused),
                sale.sale_id,
                extra={"action": "oversold_refused", "count": len(refused)},
            )
        metrics.orders_drained.inc(stored)
        await self._streams.finish(sale.sale_id, [entry.entry_id for entry in entries])

    async def _store_alone(self, sale: Sale, entry: Entry | Malformed) -> None:
        try:
            await self._store_chunk(sale, [entry])
        except (ValueError, asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            self._attempts[entry.entry_id] += 1
            self._own_pending = True
            if self._attempts[entry.entry_id] >= self._attempts_max:
                await self._bury(sale.sale_id, entry.entry_id, entry.raw, str(error))
                await self._streams.finish(sale.sale_id, [entry.entry_id])
        else:
            self._attempts.pop(entry.entry_id, None)

    async def _bury(self, sale_id: str, entry_id: str, body: bytes, error: str) -> None:
        await bury_entry(await self._connected(), sale_id, entry_id, body, error)
        self._attempts.pop(entry_id, None)
        metrics.dead_letters.labels("stream").inc()
        logger.error(
            "Stream entry %s of %s went to the dead letters: %s",
            entry_id,
            sale_id,
            error,
            extra={"action": "entry_buried"},
        )

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._connect()
        return self._connection


def make_batch(sale_id: str, entries: Sequence[Entry | Malformed]) -> OrderBatch:
    """Flattens entries into columns. Raises ValueError on a malformed one."""
    batch = OrderBatch(sale_id, newest_entry=newest_of([entry.entry_id for entry in entries]))
    for entry in entries:
        if isinstance(entry, Malformed):
            raise ValueError(f"entry {entry.entry_id} was not written by reserve")
        lines = split_batch(entry.batch, batch.ids, batch.users, batch.wishes, batch.number_of_wish)
        batch.at_ms += [entry.at_ms] * lines
        batch.until_s += [entry.until_s] * lines
    return batch
