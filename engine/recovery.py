"""Rebuilds a sale in Redis from Postgres and what is left of its stream, behind the fence.

May be killed at any point and run again: until the last step the sale stays shut. Finding out that
a sale needs it is left to engine/fence.
"""

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final, cast

import msgspec
from redis.exceptions import ResponseError

from engine.connections import connect_redis_blocking, redis_errors, server_run_id
from engine.core import Engine
from engine.drainer import Drainer
from engine.errors import Conflict, RedisUnavailable, StaleEpoch, UnknownSale
from engine.fence import Fence
from engine.inventory import SaleRef
from engine.inventory.inventory import (
    Counters,
    format_record,
    parse_record,
)
from engine.keys import DRAIN_GROUP, shard_keys
from engine.model import (
    RESERVATIONS_PER_BUYER_MAX,
    STATE_OF_ORDER,
    Item,
    OrderStatus,
    Reservation,
    ReservationState,
    items_to_text,
)
from engine.progress import Progress, silent
from engine.sales import Sale
from engine.sales.rows import read_sale
from engine.store.database import Connection, connect, postgres_errors
from engine.store.fences import raise_epoch, recovery_lock, trust_server, unfence
from engine.store.orders import entry_order
from engine.store.rebuilding import (
    RecordRow,
    drained_through,
    fetch_counters,
    missing_orders,
    stream_records,
)

__all__ = ["Progress", "Recovery", "RecoveryReport", "recover"]

logger = logging.getLogger(__name__)

BUYERS_PER_WRITE: Final = 1000  # Fields of one HSET: below a millisecond of Redis' time.
BUYERS_PER_SCAN: Final = 1000
WISHES_CACHED_MAX: Final = 10_000  # Distinct carts whose text is remembered while rebuilding.


@dataclass
class RecoveryReport:
    """What a recovery did. `before` is what Redis held then: empty where it held nothing."""

    sale_id: str
    epoch: int = 0
    drained_entries: int = 0
    rescued: int = 0  # reservations that neither Postgres nor the stream had, but Redis still did
    orders: int = 0
    buyers: int = 0
    before: dict[str, Counters] = field(default_factory=dict)
    after: dict[str, Counters] = field(default_factory=dict)


async def recover(engine: Engine, sale_id: str, progress: Progress = silent) -> RecoveryReport:
    """Rebuilds one sale and opens its fence.

    Raises UnknownSale; Conflict('recovering') if another recovery is at it; Unavailable if a server
    goes away: the sale stays shut then, and recovering it again starts over.
    """
    assert engine.settings.postgres_url is not None
    connection = await connect(engine.settings.postgres_url)
    try:
        with postgres_errors():
            async with recovery_lock(connection, sale_id) as alone:
                if not alone:
                    raise Conflict("recovering", f"Sale {sale_id} is being recovered already.")
                return await Recovery(engine, connection, sale_id, progress).run()
    finally:
        await connection.close()


class Recovery:
    """One recovery of one sale, step by step. The caller holds the sale's recovery lock."""

    def __init__(
        self, engine: Engine, connection: Connection, sale_id: str, progress: Progress = silent
    ) -> None:
        self._engine = engine
        # redis-py types its answers as unions of everything they could be.
        self._redis: Any = engine.redis
        self._connection = connection
        self._sale_id = sale_id
        self._keys = shard_keys(sale_id)
        self._progress = progress
        self._run_id = ""
        self.report = RecoveryReport(sale_id)

    async def run(self) -> RecoveryReport:
        """All steps, in their order."""
        # A restart that shut other sales too must be known before this server is trusted.
        await self._fence().inspect()
        self._run_id = await server_run_id(self._redis)
        await self.shut()
        await self.drain()
        await self.rescue()
        sale = await self.rebuild()
        await self.reopen(sale)
        return self.report

    async def shut(self) -> None:
        """Raises the epoch, in Postgres first, so that no script of the old one changes stock."""
        self._progress("fence", 0, 1)
        snapshot = await self._engine.inventory.snapshot(self._sale_id)
        self.report.before = snapshot.stock
        epoch = await raise_epoch(self._connection, self._sale_id, snapshot.epoch or 0)
        if epoch is None:
            raise UnknownSale(f"There is no sale {self._sale_id}.")
        self.report.epoch = epoch
        if await self._engine.inventory.fence(self._ref) != "FENCED":
            raise StaleEpoch(f"Somebody else is changing the epoch of {self._sale_id}.")
        await self._restore_stream()
        self._engine.directory.forget(self._sale_id)
        self._progress("fence", 1, 1)

    async def drain(self) -> None:
        """Stores every entry that is left of the stream, whoever was reading it."""
        self._progress("drain", 0, None)
        settings = self._engine.settings
        assert settings.redis_url is not None
        blocking = connect_redis_blocking(settings.redis_url)
        drainer = Drainer(
            blocking,
            lambda: connect(cast("str", settings.postgres_url)),
            self._engine.directory,
            self._engine.clock,
            consumer="recover",
            batch_max=settings.drain_batch_max,
            connections_max=settings.drain_connections,
            attempts_max=1,  # An entry that cannot be stored must not hold up the others.
            claim_idle_seconds=0,
        )
        try:
            entries = await drainer.drain_sale(self._sale_id)
        finally:
            await drainer.close()
            await blocking.aclose()
        self.report.drained_entries += entries
        self._progress("drain", entries, entries)

    async def rescue(self) -> None:
        """Puts reservations that Redis holds, but neither Postgres nor the stream has, back in line."""
        rescued = 0
        self._progress("rescue", 0, None)
        async for lines in self._reserved_lines():
            missing = await missing_orders(self._connection, self._sale_id, [r for r, *_ in lines])
            for reservation_id, user, until_s, text in lines:
                if reservation_id in missing:
                    await self._line_up(f"{reservation_id} {user} {text}", until_s)
                    rescued += 1
            self._progress("rescue", rescued, None)
        if rescued:
            logger.warning(
                "Rescued %d reservations of %s whose stream entries were lost.",
                rescued,
                self._sale_id,
                extra={"action": "reservations_rescued", "count": rescued},
            )
            await self.drain()
        self.report.rescued = rescued

    async def rebuild(self) -> Sale:
        """Writes the buyers' records anew and computes the counters, both of one instant."""
        self.report.orders = self.report.buyers = 0
        with redis_errors():
            await self._redis.unlink(self._keys.buyers)
        async with self._connection.transaction(isolation="repeatable_read", readonly=True):
            sale = await read_sale(self._connection, self._sale_id)
            assert sale is not None
            rows = await fetch_counters(self._connection, self._sale_id)
            self.report.after = {
                row["sku"]: Counters(
                    row["stocked"] - row["ordered"], row["ordered"] - row["sold"], row["sold"]
                )
                for row in rows
            }
            await self._write_records()
        return sale

    async def reopen(self, sale: Sale) -> None:
        """Puts the stock up at the new epoch and opens the fence."""
        self._progress("reopen", 0, 1)
        await self._check_server()
        launched = await self._engine.inventory.launch(self._ref, sale.settings, self.report.after)
        if launched != "LAUNCHED":
            raise StaleEpoch(f"Sale {self._sale_id} was changed while it was being recovered.")
        await self._check_server()
        if not await unfence(self._connection, self._sale_id, self.report.epoch):
            raise StaleEpoch(f"Somebody else is changing the epoch of {self._sale_id}.")
        await trust_server(self._connection, self._run_id)
        self._engine.directory.forget(self._sale_id)
        # Settings and stock that operators changed while the records were being written.
        await self._engine.sales.publish(await self._engine.sales.get(self._sale_id))
        logger.warning(
            "Recovered sale %s at epoch %d: %d orders of %d buyers.",
            self._sale_id,
            self.report.epoch,
            self.report.orders,
            self.report.buyers,
            extra={"action": "sale_recovered", "sale_id": self._sale_id},
        )
        self._progress("reopen", 1, 1)

    @property
    def _ref(self) -> SaleRef:
        return SaleRef(self._sale_id, self.report.epoch)

    def _fence(self) -> Fence:
        engine = self._engine
        return Fence(engine.redis, engine.pool, engine.inventory, engine.settings.durability)

    async def _check_server(self) -> None:
        if await server_run_id(self._redis) != self._run_id:
            raise RedisUnavailable("Redis restarted during the recovery; recover again.")

    async def _restore_stream(self) -> None:
        """The stream and its group, going on after the newest entry that was ever drained."""
        through = await drained_through(self._connection, self._sale_id)
        with redis_errors():
            try:
                await self._redis.xgroup_create(
                    self._keys.orders, DRAIN_GROUP, id="0", mkstream=True
                )
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
            stream = await self._redis.xinfo_stream(self._keys.orders)
            last = stream["last-generated-id"].decode()
            if entry_order(last) < entry_order(through):
                await self._redis.execute_command("XSETID", self._keys.orders, through)

    async def _reserved_lines(self) -> AsyncIterator[list[tuple[str, str, int, str]]]:
        """(reservation, user, until_s, items) of what Redis holds as reserved, in chunks."""
        cursor = 0
        while True:
            with redis_errors():
                cursor, records = await self._redis.hscan(
                    self._keys.buyers, cursor, count=BUYERS_PER_SCAN
                )
            yield [
                (r.reservation_id, user.decode(), r.reserved_until_ms // 1000, r.items_text)
                for user, record in records.items()
                for r in parse_record(record.decode())
                if r.state is ReservationState.RESERVED
            ]
            if cursor == 0:
                return

    async def _line_up(self, line: str, until_s: int) -> None:
        """One entry as reserve.lua writes it."""
        fields: dict[Any, Any] = {
            "until_s": until_s,
            "at_ms": self._engine.clock.now_ms(),
            "batch": line,
        }
        with redis_errors():
            await self._redis.xadd(self._keys.orders, fields)

    async def _write_records(self) -> None:
        texts: dict[str, str] = {}
        records: dict[str, str] = {}
        self._progress("rebuild", 0, None)
        async for user_id, rows in _by_user(stream_records(self._connection, self._sale_id)):
            self.report.orders += len(rows)
            self.report.buyers += 1
            records[user_id] = format_record(_reservations(rows, texts))
            if len(records) >= BUYERS_PER_WRITE:
                await self._write_chunk(records)
                records = {}
        if records:
            await self._write_chunk(records)

    async def _write_chunk(self, records: dict[str, str]) -> None:
        with redis_errors():
            await self._redis.hset(self._keys.buyers, mapping=records)
        self._progress("rebuild", self.report.orders, None)


async def _by_user(
    rows: AsyncIterator[RecordRow],
) -> AsyncIterator[tuple[str, list[RecordRow]]]:
    """Groups rows that come ordered by user."""
    group: list[RecordRow] = []
    async for row in rows:
        if group and group[0].user_id != row.user_id:
            yield group[0].user_id, group
            group = []
        group.append(row)
    if group:
        yield group[0].user_id, group


def _reservations(rows: list[RecordRow], texts: dict[str, str]) -> list[Reservation]:
    return [
        Reservation(
            row.reservation_id,
            STATE_OF_ORDER[OrderStatus(row.status)],
            row.until_s * 1000,
            _items_text(row.items, texts),
        )
        for row in rows[-RESERVATIONS_PER_BUYER_MAX:]
    ]


def _items_text(items: str, texts: dict[str, str]) -> str:
    """Items as Postgres writes jsonb, in the text of the scripts. `texts` remembers."""
    text = texts.get(items)
    if text is None:
        quantities = msgspec.json.decode(items, type=dict[str, int])
        text = items_to_text(tuple(Item(sku, quantity) for sku, quantity in quantities.items()))
        if len(texts) < WISHES_CACHED_MAX:
            texts[items] = text
    return text
