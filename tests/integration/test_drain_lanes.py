"""Batches of one sale on several connections at once: whatever ends first, nothing is lost or sold twice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from engine.clock import ManualClock
from engine.connections import connect_redis_blocking
from engine.core import Engine
from engine.drainer import Drainer
from engine.errors import StoreUnavailable
from engine.fence import Fence
from engine.keys import DRAIN_GROUP, shard_keys
from engine.model import Reserved
from engine.reconciler import check
from engine.recovery import recover
from engine.sales import Sale
from engine.servers import EmbeddedValkey
from engine.store.database import Connection, connect
from engine.store.orders import OrderBatch, Terms, entry_order, store_orders
from tests.support.sales import open_sale, reserve_for, wish
from tests.support.truth import opened_engine
from tests.support.waiting import until

KEYS = shard_keys("demo")
BATCH = 100  # Two entries of 50.
TERMS = Terms({"phone-black": 100, "case": 100}, "CNY", auto_capture=True)


@pytest.fixture
async def engine(valkey: EmbeddedValkey, redis: Redis, postgres_url: str) -> AsyncIterator[Engine]:
    async with opened_engine(valkey, postgres_url) as engine:
        yield engine


class Worker:
    """A drainer, and how many connections it opened."""

    def __init__(self, engine: Engine, redis: Redis, name: str, idle: float) -> None:
        self.connections = 0
        self._url = str(engine.settings.postgres_url)
        self.drainer = Drainer(
            redis,
            self._connect,
            engine.directory,
            ManualClock(),
            consumer=name,
            batch_max=BATCH,
            attempts_max=3,
            claim_idle_seconds=idle,
            connections_max=2,
        )

    async def _connect(self) -> Connection:
        self.connections += 1
        return await connect(self._url)


@asynccontextmanager
async def hired(engine: Engine, name: str = "worker-0", idle: float = 60) -> AsyncIterator[Worker]:
    """A worker that is gone afterwards, and its connections with it."""
    blocking = connect_redis_blocking(str(engine.settings.redis_url))
    worker = Worker(engine, blocking, name, idle)
    try:
        yield worker
    finally:
        await worker.drainer.close()
        await blocking.aclose()


async def drain_all(drainer: Drainer) -> None:
    while await drainer.drain_once(block_ms=1):
        pass


async def fill(engine: Engine, sale: Sale, entries: int, items: str = "phone-black*1") -> list[str]:
    """So many entries of 50; their ids in the stream."""
    for number in range(entries):
        await reserve_for(engine.inventory, sale, [f"b{number}-{n}" for n in range(50)], items)
    return [entry_id.decode() for entry_id, _ in await engine.redis.xrange(KEYS.orders)]


async def big_sale(engine: Engine, units: int = 10_000) -> Sale:
    return await open_sale(
        engine.pool, engine.inventory, stock={"phone-black": units, "case": units}
    )


@asynccontextmanager
async def held_up(engine: Engine, sale: Sale, user: str) -> AsyncIterator[None]:
    """While it lasts, the batch with this buyer's order cannot be stored: somebody else is at it."""
    holder = await connect(str(engine.settings.postgres_url))
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute(
        """
        INSERT INTO orders (sale_id, reservation_id, user_id, items, amount_minor, currency, status,
                            reserved_at, reserved_until)
        VALUES ('demo', $1, 'holder', '{}', 0, 'CNY', 'awaiting_payment', now(), now())
        """,
        wish(sale, user).reservation_id,
    )
    try:
        yield
    finally:
        await transaction.rollback()
        await holder.close()


async def stored(engine: Engine) -> int:
    return int(await engine.pool.fetchval("SELECT count(*) FROM orders"))


async def until_stored(engine: Engine, orders: int) -> None:
    async def enough() -> bool:
        return await stored(engine) == orders

    await until(enough, f"{orders} orders are stored")


async def until_finished(engine: Engine, entries_left: int) -> None:
    async def few() -> bool:
        return int(await engine.redis.xlen(KEYS.orders)) == entries_left

    await until(few, f"{entries_left} entries are left")


async def until_nobody_waits(engine: Engine) -> None:
    """Until Postgres has noticed that nobody wants the held-up batch stored any more."""

    async def nobody() -> bool:
        return not await engine.pool.fetchval(
            """
            SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'
            """
        )

    await until(nobody, "the cancelled statement ends")


async def assert_sound(engine: Engine) -> None:
    findings = await check(engine, settle_seconds=0)
    assert [finding.line for finding in findings if not finding.ok] == []


async def drained_through(engine: Engine) -> str:
    return str(await engine.pool.fetchval("SELECT drained_through FROM sales"))


def fence_of(engine: Engine) -> Fence:
    return Fence(engine.redis, engine.pool, engine.inventory, engine.settings.durability)


async def killed_between(engine: Engine, sale: Sale) -> list[str]:
    """Four entries in two batches; the worker dies when the newer one is stored, and only that."""
    entries = await fill(engine, sale, 4)
    async with hired(engine) as worker:
        async with held_up(engine, sale, "b0-0"):
            draining = asyncio.create_task(worker.drainer.drain_once(block_ms=1))
            await until_finished(engine, 2)
            draining.cancel()
            with pytest.raises(asyncio.CancelledError):
                await draining
            await until_nobody_waits(engine)
        assert await stored(engine) == 100
    return entries


async def test_kill_between_batches_out_of_order_loses_nothing(engine: Engine) -> None:
    sale = await big_sale(engine)
    entries = await killed_between(engine, sale)

    assert await drained_through(engine) == entries[3]
    assert await fence_of(engine).watch_once() == 0  # Nothing is missing in Redis.
    async with hired(engine) as again:
        await drain_all(again.drainer)
    assert await stored(engine) == 200
    assert await drained_through(engine) == entries[3]
    await assert_sound(engine)


async def test_recovery_after_batches_out_of_order_skips_nothing(
    engine: Engine, redis: Redis
) -> None:
    sale = await big_sale(engine)
    entries = await killed_between(engine, sale)
    await redis.delete(KEYS.stock, KEYS.buyers, KEYS.config)
    assert await fence_of(engine).watch_once() == 1

    report = await recover(engine, "demo")

    assert (report.drained_entries, report.orders) == (2, 200)
    sale = await engine.sales.get("demo")
    [new] = await reserve_for(engine.inventory, sale, ["new"])
    assert isinstance(new, Reserved)
    last = (await redis.xinfo_stream(KEYS.orders))["last-generated-id"].decode()
    assert entry_order(last) > entry_order(entries[3])
    async with hired(engine) as worker:
        await drain_all(worker.drainer)
    await assert_sound(engine)


async def test_redis_that_lost_the_newer_batch_is_noticed_while_the_older_waits(
    engine: Engine, redis: Redis
) -> None:
    entries = await killed_between(engine, await big_sale(engine))
    # As after a restart from a copy: the older entries are there, the newer ones never were.
    older = await redis.xrange(KEYS.orders)
    await redis.delete(KEYS.orders)
    for entry_id, fields in older:
        await redis.xadd(KEYS.orders, fields, id=entry_id)
    await redis.xgroup_create(KEYS.orders, DRAIN_GROUP, id="0")
    assert [entry_id.decode() for entry_id, _ in older] == entries[:2]
    [verdict] = await fence_of(engine).inspect()
    assert verdict.reason is not None
    assert f"those up to {entries[3]} were drained" in verdict.reason
    assert (await recover(engine, "demo")).orders == 200


async def test_connection_lost_beside_another_holds_up_its_own_batch_only(engine: Engine) -> None:
    sale = await big_sale(engine)
    await fill(engine, sale, 12)
    async with hired(engine) as worker:
        async with held_up(engine, sale, "b0-0"):
            draining = asyncio.create_task(worker.drainer.drain_once(block_ms=1))
            await until_stored(engine, 500)
            await engine.pool.execute(
                """
                SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock'
                """
            )
            with pytest.raises(StoreUnavailable):
                await draining
        assert worker.connections == 2
        await drain_all(worker.drainer)
    assert await stored(engine) == 600
    await assert_sound(engine)


async def test_units_beyond_the_stock_are_refused_whichever_batch_comes_first(
    engine: Engine, redis: Redis
) -> None:
    sale = await big_sale(engine, units=250)
    await redis.hset(KEYS.stock, "phone-black:available", 400)  # Redis forgets what it sold.
    await fill(engine, sale, 8)

    async with hired(engine) as worker:
        await drain_all(worker.drainer)

    row = await engine.pool.fetchrow(
        """
        SELECT (SELECT ordered FROM sale_items WHERE sku = 'phone-black') AS ordered,
               (SELECT sum(units) FROM ledger WHERE counter = 'ordered') AS lines,
               count(*) FILTER (WHERE status = 'awaiting_payment') AS accepted,
               count(*) FILTER (WHERE status_reason = 'oversold') AS refused,
               (SELECT count(*) FROM outbox WHERE kind = 'release') AS released
        FROM orders
        """
    )
    assert dict(row) == {
        "ordered": 250,
        "lines": 250,
        "accepted": 250,
        "refused": 150,
        "released": 150,
    }


async def test_two_workers_at_the_same_entries_store_each_order_once(engine: Engine) -> None:
    sale = await big_sale(engine)
    for start in range(0, 20, 2):
        for number, items in enumerate(("case*1,phone-black*1", "phone-black*2"), start):
            users = [f"b{number}-{n}" for n in range(50)]
            await reserve_for(engine.inventory, sale, users, items)
    async with hired(engine, "one", idle=0) as one, hired(engine, "two", idle=0) as two:
        # Idle for no time at all: each claims what the other is storing.
        await asyncio.gather(drain_all(one.drainer), drain_all(two.drainer))
    assert await stored(engine) == 1000
    assert await engine.redis.xlen(KEYS.orders) == 0
    assert await engine.pool.fetchval("SELECT count(*) FROM dead_letters") == 0
    units = await engine.pool.fetch("SELECT sku, ordered FROM sale_items ORDER BY sku")
    assert [tuple(row) for row in units] == [("case", 500), ("phone-black", 1500)]
    await assert_sound(engine)


async def test_same_reservations_in_opposite_orders_never_deadlock(engine: Engine) -> None:
    sale = await big_sale(engine)
    connections = [await connect(str(engine.settings.postgres_url)) for _ in range(2)]

    def batch(number: int, step: int) -> OrderBatch:
        wishes = [wish(sale, f"b{number}-{n}") for n in range(300)][::step]
        made = OrderBatch("demo", newest_entry=f"{number + 1}-0")
        made.ids += [request.reservation_id for request in wishes]
        made.users += [request.user_id for request in wishes]
        made.add_wishes([n % 2 for n in range(300)][::step], [b"phone-black*1", b"case*1"], 1, 1)
        return made

    for number in range(10):
        new = await asyncio.gather(
            store_orders(connections[0], batch(number, 1), TERMS),
            store_orders(connections[1], batch(number, -1), TERMS),
        )
        assert sorted(new) == [0, 300]
    for connection in connections:
        await connection.close()


async def test_stop_finishes_what_was_read(engine: Engine) -> None:
    sale = await big_sale(engine)
    await fill(engine, sale, 8)
    async with hired(engine) as worker:
        async with held_up(engine, sale, "b0-0"):
            running = asyncio.create_task(worker.drainer.run())
            await until_stored(engine, 300)  # The other three batches.
            worker.drainer.stop()
        await running
    assert await stored(engine) == 400
    assert (await engine.redis.xpending(KEYS.orders, DRAIN_GROUP))["pending"] == 0


async def test_trickle_needs_one_connection_and_a_backlog_two(engine: Engine) -> None:
    sale = await big_sale(engine)
    async with hired(engine) as worker:
        for number in range(5):
            await reserve_for(engine.inventory, sale, [f"early-{number}"])
            assert await worker.drainer.drain_once(block_ms=1) == 1
        assert worker.connections == 1
        await fill(engine, sale, 8)
        await drain_all(worker.drainer)
        assert worker.connections == 2
    assert await stored(engine) == 405
