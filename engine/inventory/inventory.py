"""The typed face of the Lua scripts: reserve, confirm, release, restock, launch, configure, fence."""

import asyncio
import math
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, cast

import msgspec
from redis.asyncio import Redis

from engine import metrics
from engine.admission.breaker import Breaker
from engine.clock import Clock
from engine.connections import redis_errors
from engine.errors import Overloaded
from engine.inventory.link import Link, PooledLink
from engine.inventory.queue import NO_ROOM, Replies, ReserveQueue
from engine.keys import DRAIN_GROUP, shard_keys
from engine.lua import SCRIPT_NAMES, LuaScript
from engine.model import (
    Outcome,
    Refused,
    Reservation,
    ReservationState,
    Reserved,
    ReserveRequest,
    SaleState,
)
from ext import ReserveBatch

RESOLVE_BATCH_MAX: Final = 512  # Pairs per confirm or release call; the scripts refuse more.
SALES_MAX: Final = 1024  # Sales that sell at the same moment in one process.

_STATE_OF_LETTER: Final = {
    "r": ReservationState.RESERVED,
    "c": ReservationState.CONFIRMED,
    "x": ReservationState.RELEASED,
    "e": ReservationState.EXPIRED,
}
LETTER_OF_STATE: Final = {state: letter for letter, state in _STATE_OF_LETTER.items()}
_RESERVED: Final = Outcome.RESERVED.value.encode()
_REFUSALS: Final = {
    outcome.value.encode(): Refused(outcome)
    for outcome in Outcome
    if outcome not in {Outcome.RESERVED, Outcome.DUPLICATE}
}


class SaleRef(NamedTuple):
    """A sale and the generation of its stock that the caller believes in."""

    sale_id: str
    epoch: int


class SaleSettings(msgspec.Struct, frozen=True):
    """What the config hash holds besides the epoch. Times in ms since the Unix epoch."""

    revision: int
    state: SaleState
    opens_at_ms: int
    closes_at_ms: int
    per_user_max: int
    reservation_seconds: int

    def as_args(self) -> list[str | int]:
        """In the order in which the scripts take them."""
        return [
            self.revision,
            self.state.value,
            self.opens_at_ms,
            self.closes_at_ms,
            self.per_user_max,
            self.reservation_seconds,
        ]


class Counters(NamedTuple):
    """One SKU's units. Their sum is what was stocked."""

    available: int
    reserved: int
    sold: int

    @property
    def stocked(self) -> int:
        return self.available + self.reserved + self.sold


class StockSnapshot(msgspec.Struct, frozen=True):
    """One atomic look at a sale in Redis. `config` is empty where Redis does not know the sale."""

    config: dict[str, str]
    stock: dict[str, Counters]

    @property
    def epoch(self) -> int | None:
        return int(self.config["epoch"]) if "epoch" in self.config else None

    @property
    def state(self) -> SaleState | None:
        return SaleState(self.config["state"]) if "state" in self.config else None


class Inventory:
    """Every write to the stock in Redis goes through here."""

    def __init__(
        self,
        redis: Redis,
        clock: Clock,
        *,
        batch_max: int,
        queue_max: int,
        deadline_seconds: float = math.inf,
        link: Link | None = None,
        breaker: Breaker | None = None,
    ) -> None:
        """`link` carries the reserve calls; without one they share the client's pool.

        A call that waited longer than the deadline is refused. `breaker` is that of Redis.
        """
        self._redis = redis
        self._clock = clock
        self._batch_max = batch_max
        self._queue_max = queue_max
        self._deadline_seconds = deadline_seconds
        self._breaker = breaker
        self._scripts = {name: LuaScript(name) for name in SCRIPT_NAMES}
        self._queues: dict[SaleRef, ReserveQueue] = {}
        self._link = link or PooledLink(redis)

    async def reserve(
        self, sale: SaleRef, request: ReserveRequest, ticket: int = NO_ROOM
    ) -> Reserved | Refused:
        """Takes units, all of them or none; the answer is final for this reservation id.

        `ticket` is as in `ReserveQueue.join`.
        Raises Overloaded or CircuitOpen (nothing was done) or Unavailable (unknown: ask for the
        reservation, or repeat the same request).
        """
        waiter = _FutureWaiter(request.reservation_id)
        self.queue(sale).join(
            waiter, request.user_id, request.reservation_id, request.items_text, ticket
        )
        return await waiter.answer

    def queue(self, sale: SaleRef) -> ReserveQueue:
        """Where this process' reservations in a sale gather. Raises Overloaded."""
        return self._queues.get(sale) or self._open_queue(sale)

    async def reserve_batch(
        self, sale: SaleRef, requests: Sequence[ReserveRequest], tickets: Sequence[int] = ()
    ) -> list[Reserved | Refused]:
        """One atomic call for all of them, each with an outcome of its own. `tickets`: one each."""
        batch = ReserveBatch()
        waiters = [_FutureWaiter(request.reservation_id) for request in requests]
        numbers = tickets or [NO_ROOM] * len(requests)
        for waiter, request, number in zip(waiters, requests, numbers, strict=True):
            batch.add(waiter, request.user_id, request.reservation_id, request.items_text, number)
        batch.reply(*await self._reserve(sale, batch))
        return [waiter.answer.result() for waiter in waiters]

    async def _reserve(self, sale: SaleRef, batch: ReserveBatch) -> Replies:
        """One script call."""
        metrics.batch_size.observe(len(batch))
        script = self._scripts["reserve"]
        arguments = [str(sale.epoch), str(self._clock.now_ms())]
        keys = shard_keys(sale.sale_id)
        with redis_errors():
            until_s, *replies = await script.run_packed(
                self._redis,
                self._link.call,
                [*(keys if batch.has_tickets else keys.without_room)],
                arguments,
                batch.command,
            )
        # A fenced sale has no deadline to say: 0, a number. No replies: all were reserved.
        return until_s or b"0", replies or [_RESERVED] * len(batch)

    async def confirm(self, sale: SaleRef, pairs: Sequence[tuple[str, str]]) -> list[str]:
        """Reserved → sold for (user_id, reservation_id) pairs. Replies: the words of confirm.lua."""
        return await self._resolve("confirm", sale, pairs)

    async def release(self, sale: SaleRef, triples: Sequence[tuple[str, str, str]]) -> list[str]:
        """Gives units back for (user_id, reservation_id, reason). Replies: the words of release.lua."""
        return await self._resolve("release", sale, triples)

    async def _resolve(
        self, script: str, sale: SaleRef, tuples: Sequence[tuple[str, ...]]
    ) -> list[str]:
        keys = shard_keys(sale.sale_id)
        words: list[str] = []
        for start in range(0, len(tuples), RESOLVE_BATCH_MAX):
            args: list[str | int] = [sale.epoch]
            for fields in tuples[start : start + RESOLVE_BATCH_MAX]:
                args += fields
            with redis_errors():
                replies = await self._scripts[script].run(self._redis, [*keys[:3]], args)
            words += (reply.decode() for reply in replies)
        return words

    async def rereserve(self, sale: SaleRef, user_id: str, reservation_id: str) -> str:
        """Sells an expired reservation's units after all. Reply: a word of rereserve.lua."""
        keys = shard_keys(sale.sale_id)
        return await self._run_word("rereserve", [*keys[:3]], [sale.epoch, user_id, reservation_id])

    async def restock(self, sale: SaleRef, sku: str, stocked: int) -> str:
        """Raises a SKU's total to `stocked`. Reply: a word of restock.lua."""
        keys = shard_keys(sale.sale_id)
        return await self._run_word(
            "restock", [keys.config, keys.stock], [sale.epoch, sku, stocked]
        )

    async def launch(
        self, sale: SaleRef, settings: SaleSettings, stock: Mapping[str, Counters]
    ) -> str:
        """Puts a new or rebuilt sale up. Reply: a word of launch.lua."""
        keys = shard_keys(sale.sale_id)
        args: list[str | int] = [sale.epoch, *settings.as_args(), DRAIN_GROUP]
        for sku, counters in stock.items():
            args += (sku, *counters)
        return await self._run_word("launch", [keys.config, keys.stock, keys.orders], args)

    async def configure(self, sale: SaleRef, settings: SaleSettings) -> str:
        """Writes newer settings of a live sale. Reply: a word of configure.lua."""
        keys = shard_keys(sale.sale_id)
        return await self._run_word("configure", [keys.config], [sale.epoch, *settings.as_args()])

    async def fence(self, sale: SaleRef) -> str:
        """Shuts the sale and raises its epoch to `sale.epoch`. Reply: a word of fence.lua."""
        return await self._run_word("fence", [shard_keys(sale.sale_id).config], [sale.epoch])

    async def reservation(
        self, sale_id: str, user_id: str, reservation_id: str
    ) -> Reservation | None:
        """What Redis knows of one reservation of this user."""
        records = await self.reservations(sale_id, user_id)
        return next((r for r in records if r.reservation_id == reservation_id), None)

    async def reservations(self, sale_id: str, user_id: str) -> list[Reservation]:
        """All of a user's reservations in a sale, oldest first."""
        with redis_errors():
            record = await cast(
                "Awaitable[bytes | None]", self._redis.hget(shard_keys(sale_id).buyers, user_id)
            )
        return parse_record(record.decode()) if record else []

    async def snapshot(self, sale_id: str) -> StockSnapshot:
        """Config and counters of one instant."""
        keys = shard_keys(sale_id)
        with redis_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hgetall(keys.config)
                pipe.hgetall(keys.stock)
                config, stock = await pipe.execute()
        return StockSnapshot(
            {key.decode(): value.decode() for key, value in config.items()}, parse_stock(stock)
        )

    async def configs(self, sale_ids: Sequence[str]) -> list[dict[str, str]]:
        """The config of each sale; empty where Redis does not know the sale."""
        with redis_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for sale_id in sale_ids:
                    pipe.hgetall(shard_keys(sale_id).config)
                configs = await pipe.execute()
        return [{k.decode(): v.decode() for k, v in config.items()} for config in configs]

    async def stop(self) -> None:
        """Answers everything accepted so far, then refuses. Idempotent. Leaves the client open."""
        for queue in tuple(self._queues.values()):
            await queue.stop()
        self._link.close()

    async def _run_word(self, script: str, keys: list[str], args: list[str | int]) -> str:
        with redis_errors():
            reply = await self._scripts[script].run(self._redis, keys, args)
        return cast("bytes", reply).decode()

    def _open_queue(self, sale: SaleRef) -> ReserveQueue:
        if len(self._queues) >= SALES_MAX:
            self._queues = {ref: queue for ref, queue in self._queues.items() if not queue.idle}
        if len(self._queues) >= SALES_MAX:
            raise Overloaded("Too many sales are selling at the same moment.")
        queue = self._queues[sale] = ReserveQueue(
            lambda batch: self._reserve(sale, batch),
            batch_max=self._batch_max,
            queue_max=self._queue_max,
            deadline_seconds=self._deadline_seconds,
            clock=self._clock,
            breaker=self._breaker,
        )
        return queue


class _FutureWaiter:
    """Waits for a reply as asyncio does."""

    def __init__(self, reservation_id: str) -> None:
        self._reservation_id = reservation_id
        self.answer: asyncio.Future[Reserved | Refused] = asyncio.Future()

    def replied(self, until_s: bytes, reply: bytes) -> None:
        if not self.answer.done():
            self.answer.set_result(read_reply(self._reservation_id, until_s, reply))

    def failed(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
            # Waiters may have left; asyncio would report their answers as never read.
            self.answer.exception()


def read_reply(reservation_id: str, until_s: bytes, reply: bytes) -> Reserved | Refused:
    """What reserve.lua said of one reservation."""
    if reply == _RESERVED:
        until_ms = int(until_s) * 1000
        return Reserved(reservation_id, ReservationState.RESERVED, until_ms, replayed=False)
    return _REFUSALS.get(reply) or _replayed(reservation_id, reply)


def _replayed(reservation_id: str, reply: bytes) -> Reserved:
    word, state, until_s = reply.decode().split(" ")
    assert word == Outcome.DUPLICATE, reply
    return Reserved(reservation_id, ReservationState(state), int(until_s) * 1000, replayed=True)


def parse_record(record: str) -> list[Reservation]:
    """A buyer's record, as reserve.lua lays it out, into reservations."""
    return [
        Reservation(line[:20], _STATE_OF_LETTER[line[20]], int(line[21:31]) * 1000, line[31:])
        for line in record.split("\n")
    ]


def format_record(reservations: Iterable[Reservation]) -> str:
    """The inverse of `parse_record`."""
    return "\n".join(
        f"{r.reservation_id}{LETTER_OF_STATE[r.state]}{r.reserved_until_ms // 1000:010d}{r.items_text}"
        for r in reservations
    )


def parse_stock(stock: Mapping[bytes, bytes]) -> dict[str, Counters]:
    """The stock hash into counters per SKU."""
    fields = {key.decode(): int(value) for key, value in stock.items()}
    skus = [name.removesuffix(":available") for name in fields if name.endswith(":available")]
    return {
        sku: Counters(fields[f"{sku}:available"], fields[f"{sku}:reserved"], fields[f"{sku}:sold"])
        for sku in skus
    }
