"""Moves reservations from the orders streams into Postgres, a batch per statement.

An entry is acknowledged only after its orders are committed, and storing is idempotent, so a kill
at any point repeats work and loses none. A backlog is dealt out over a few connections, on which
batches may finish in any order. Leaves payment and expiry to others.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import groupby
from typing import Final

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from engine import metrics
from engine.clock import Clock
from engine.columns import make_batch
from engine.drained import Drained
from engine.errors import RedisUnavailable, UnknownSale
from engine.lanes import Lane, Lanes
from engine.rests import Rests
from engine.sales import Sale, SaleDirectory
from engine.store.database import Connection, postgres_errors
from engine.store.orders import (
    OrderBatch,
    Terms,
    bury_entry,
    is_oversold,
    store_orders,
    store_orders_within_stock,
)
from engine.stream import Entry, Malformed, OrderStreams

logger = logging.getLogger(__name__)

BLOCK_MS: Final = 100  # How long a read waits; bounds how late a stop is noticed.
ENTRIES_FIRST: Final = 16  # Per read and sale, before anything is known of their size.
# The hot rows are taken last, so that two statements overlap but for their ends. On two cores two
# connections keep Postgres busy, and a third gains nothing (benchmarks/drain.py --connections).
CONNECTIONS_MAX: Final = 2
READS_MAX: Final = 16  # Per pass: only at its end all connections wait for the last one.
ENTRIES_MAX: Final = 512  # Per read and sale: bounds memory when large entries follow small ones.
STREAMS_MAX: Final = 64  # Per read: with more sales they take turns.
LOCK_SECONDS_MAX: Final = 5.0  # For a row that somebody else holds: other sales wait meanwhile.
ROLLBACKS_MAX: Final = 5  # Tries of a statement that others' transactions made Postgres undo.
SALES_SECONDS: Final = 0.25  # How soon the first orders of a new sale are stored.
CLAIM_SECONDS: Final = 5.0  # How often dead consumers' entries are looked for.


class Drainer:
    """One consumer of the drain group, for all sales. Owns its Postgres connections.

    `connect` opens one of them; `redis` is a blocking client of the drainer's own.
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
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        self._streams = OrderStreams(redis, consumer)
        self._lanes = Lanes(partial(_connect_bounded, connect), connections_max)
        self.drained = Drained(clock)
        self._directory = directory
        self._clock = clock
        self._batch_max = batch_max
        self._attempts_max = attempts_max
        self._claim_idle_ms = int(claim_idle_seconds * 1000)
        self._failure: Exception | None = None  # The first of this pass that is one sale's own.
        self._sales: list[str] = []
        self._sales_looked_at = -SALES_SECONDS
        self._claimed_at = -CLAIM_SECONDS
        self._counts: dict[str, int] = {}  # Entries per read of the sales that had some lately.
        self._turn = 0  # The part of the sales that was read last.
        self._backlog = False  # Whether the last read left entries behind, most likely.
        self._rests = Rests(clock)
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

        Returns how many entries it finished. A sale that fails holds no other up: it rests for a
        while, and what it raised is raised at the end of the pass.
        """
        sales = await self._look_for_sales()
        if not sales:
            return 0
        try:
            async with self._dealing():
                return await self._read_and_deal(sales, block_ms)
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            self._forget_sales()  # A sale's stream is gone; the fence will say so.
            return 0
        except BaseException:
            self._own_pending = True
            raise

    async def drain_sale(self, sale_id: str) -> int:
        """Drains one sale to the last entry, other consumers' included. For recovery and stopping.

        Returns how many entries it finished.
        """
        total = 0
        while True:
            async with (
                self._dealing()
            ):  # All is stored before more is claimed: what is not idle too.
                entries, gone = await self._streams.claim(sale_id, idle_ms=0, count=ENTRIES_MAX)
                await self._bury_gone(sale_id, gone)
                if not entries:
                    entries = await self._read_part([sale_id], 1)
                await self._deal(entries)
            if not entries and not gone:
                return total
            total += len(entries)

    @property
    def sales(self) -> list[str]:
        """The sales whose streams it stores, as far as there is hope for them."""
        return [sale_id for sale_id in self._sales if not self._rests.is_hopeless(sale_id)]

    def stop(self) -> None:
        """Makes `run` return after the pass it is in. Idempotent, safe before start."""
        self._stopping = True

    async def close(self) -> None:
        """Gives the Postgres connections back. Idempotent."""
        await self._lanes.close()

    @asynccontextmanager
    async def _dealing(self) -> AsyncIterator[None]:
        """What is dealt out within is finished at the end, or what it failed with is raised there."""
        self._failure = None
        async with self._lanes:
            yield
        if self._failure is not None:
            raise self._failure

    async def _read_and_deal(self, sales: list[str], block_ms: int) -> int:
        """Reads on while batches are being stored, as long as there is a backlog.

        Otherwise the first batch is waited for: the next one grows with the load by itself.
        """
        entries = await self._next_entries(sales, block_ms)
        total = len(entries)
        await self._deal(entries)
        for _ in range(READS_MAX - 1):
            if not self._backlog or self._stopping:
                break
            if not (sales := await self._look_for_sales()):
                break
            entries = await self._read_new(_parts(sales), None)
            total += len(entries)
            await self._deal(entries)
        return total

    async def _look_for_sales(self) -> list[str]:
        now = self._clock.monotonic()
        if now - self._sales_looked_at >= SALES_SECONDS:
            launched = await self._directory.launched()
            # Only new ones are asked for: a stream that goes away says so when it is read.
            new = await self._streams.present(sorted(set(launched) - set(self._sales)))
            self._sales = self._sales + new
            self._sales_looked_at = now
        if self._rests.end_overdue():
            self._own_pending = True  # What could not be stored was read already.
        return [sale_id for sale_id in self._sales if not self._rests.is_on(sale_id)]

    def _forget_sales(self) -> None:
        self._sales, self._sales_looked_at = [], -SALES_SECONDS

    async def _next_entries(self, sales: list[str], block_ms: int) -> list[Entry | Malformed]:
        self._backlog = False
        # Nothing is being stored yet: what is would be read, or claimed, a second time.
        if self._own_pending:
            for part in _parts(sales):
                if entries := await self._streams.read_own(part, count=self._count(part)):
                    return entries
            self._own_pending = False
        if self._clock.monotonic() - self._claimed_at >= CLAIM_SECONDS:
            if entries := await self._claim(sales):
                return entries
            self._claimed_at = self._clock.monotonic()
        return await self._read_new(_parts(sales), block_ms)

    async def _read_new(
        self, parts: list[list[str]], block_ms: int | None
    ) -> list[Entry | Malformed]:
        if len(parts) > 1:
            for _ in parts:
                self._turn += 1
                part = parts[self._turn % len(parts)]
                if entries := await self._read_part(part, None):
                    return entries
        return await self._read_part(parts[self._turn % len(parts)], block_ms)

    async def _read_part(self, sales: list[str], block_ms: int | None) -> list[Entry | Malformed]:
        count = self._count(sales)
        entries = await self._streams.read_new(sales, count=count, block_ms=block_ms)
        for sale_id in sales:
            self._counts.pop(sale_id, None)  # Those that have entries are counted when stored.
        numbers = Counter(entry.sale_id for entry in entries)
        self._backlog = count in numbers.values()
        for sale_id, number in numbers.items():
            # Only a backlog reads more at once: what follows a trickle may be large.
            self._counts[sale_id] = 2 * count if number == count else max(number, ENTRIES_FIRST)
        return entries

    def _count(self, sales: Sequence[str]) -> int:
        """How many entries to read of each of these sales: as the one with the largest wants it."""
        busy = [self._counts[sale_id] for sale_id in sales if sale_id in self._counts]
        return max(1, min(busy, default=ENTRIES_FIRST))

    async def _claim(self, sales: list[str]) -> list[Entry | Malformed]:
        entries: list[Entry | Malformed] = []
        for sale_id in sales:
            claimed, gone = await self._streams.claim(
                sale_id, idle_ms=self._claim_idle_ms, count=self._count([sale_id])
            )
            await self._bury_gone(sale_id, gone)
            entries += claimed
            if len(entries) >= ENTRIES_MAX:
                break  # The rest is claimed in the next pass.
        return entries

    async def _bury_gone(self, sale_id: str, entry_ids: Sequence[str]) -> None:
        error = "the entry was deleted before it was stored"
        for entry_id in entry_ids:
            await self._lanes.deal(partial(self._bury, sale_id, entry_id, b"", error))

    async def _deal(self, entries: Sequence[Entry | Malformed]) -> None:
        for sale_id, group in groupby(entries, key=lambda entry: entry.sale_id):
            for chunk in self._chunks(sale_id, list(group)):
                await self._lanes.deal(partial(self._store_or_rest, sale_id, chunk))

    async def _store_or_rest(
        self, sale_id: str, entries: Sequence[Entry | Malformed], lane: Lane
    ) -> None:
        try:
            await self._store(sale_id, entries, lane)
        except Exception as error:
            self._own_pending = True
            if isinstance(error, RedisUnavailable) or not lane.is_connected():
                raise  # A server is gone, for all sales.
            self._rests.begin(sale_id)
            self._failure = self._failure or error
        else:
            self._rests.succeeded(sale_id)

    def _chunks(
        self, sale_id: str, entries: Sequence[Entry | Malformed]
    ) -> list[list[Entry | Malformed]]:
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
        # Read so many entries next time that they make one full statement, at most.
        full = max(1, min(ENTRIES_MAX, self._batch_max // max(1, total // len(entries))))
        self._counts[sale_id] = min(full, self._counts.get(sale_id, ENTRIES_FIRST))
        return chunks

    async def _store(self, sale_id: str, entries: Sequence[Entry | Malformed], lane: Lane) -> None:
        sale = await self._directory.get(sale_id)
        if sale is None:
            raise UnknownSale(f"Stream of sale {sale_id}, which Postgres does not know.")
        try:
            await self._store_chunk(sale, entries, lane)
        except (ValueError, asyncpg.DataError, asyncpg.IntegrityConstraintViolationError):
            # One of them is bad; find it without holding its neighbours up.
            for entry in entries:
                await self._store_alone(sale, entry, lane)

    async def _store_chunk(
        self, sale: Sale, entries: Sequence[Entry | Malformed], lane: Lane
    ) -> None:
        batch = make_batch(sale.sale_id, entries)
        connection = await lane.connection()
        with self.drained.statement():
            stored = await self._store_batch(sale, batch, connection)
        metrics.orders_drained.inc(stored)
        await self._streams.finish(sale.sale_id, [entry.entry_id for entry in entries])
        self.drained.add(len(batch), len(entries))

    async def _store_batch(self, sale: Sale, batch: OrderBatch, connection: Connection) -> int:
        for _ in range(ROLLBACKS_MAX):
            try:
                return await self._store_within_stock(sale, batch, connection)
            except asyncpg.TransactionRollbackError as error:
                # A deadlock, most likely: one of two has to give way, and nothing was stored.
                undone = error
        raise undone

    async def _store_within_stock(
        self, sale: Sale, batch: OrderBatch, connection: Connection
    ) -> int:
        terms = Terms(sale.prices, sale.currency, sale.auto_capture)
        try:
            return await store_orders(connection, batch, terms)
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
            return stored

    async def _store_alone(self, sale: Sale, entry: Entry | Malformed, lane: Lane) -> None:
        try:
            await self._store_chunk(sale, [entry], lane)
        except (ValueError, asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            self._attempts[entry.entry_id] += 1
            self._own_pending = True
            if self._attempts[entry.entry_id] >= self._attempts_max:
                await self._bury(sale.sale_id, entry.entry_id, entry.raw, str(error), lane)
                await self._streams.finish(sale.sale_id, [entry.entry_id])
        else:
            self._attempts.pop(entry.entry_id, None)

    async def _bury(self, sale_id: str, entry_id: str, body: bytes, error: str, lane: Lane) -> None:
        await bury_entry(await lane.connection(), sale_id, entry_id, body, error)
        self._attempts.pop(entry_id, None)
        metrics.dead_letters.labels("stream").inc()
        logger.error(
            "Stream entry %s of %s went to the dead letters: %s",
            entry_id,
            sale_id,
            error,
            extra={"action": "entry_buried"},
        )


async def _connect_bounded(connect: Callable[[], Awaitable[Connection]]) -> Connection:
    """A connection that waits for no lock without end."""
    connection = await connect()
    with postgres_errors():
        await connection.execute(
            "SELECT set_config('lock_timeout', $1, false)", f"{LOCK_SECONDS_MAX * 1000:.0f}"
        )
    return connection


def _parts(sales: list[str]) -> list[list[str]]:
    return [sales[at : at + STREAMS_MAX] for at in range(0, len(sales), STREAMS_MAX)]
