"""The worker as a whole, on real servers: it pays what is reserved, and outlives its servers' faults."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from api.up import children
from engine import worker as worker_module
from engine.config import Settings
from engine.core import Engine
from engine.errors import StoreUnavailable
from engine.payment.payer import Payer
from engine.payment.webhooks import Inbox
from engine.polling import supervise
from engine.sales import Sale
from engine.servers import EmbeddedValkey
from engine.worker import Worker
from tests.support.sales import open_sale, reserve_for
from tests.support.shop import ObedientProvider
from tests.support.waiting import until

SECONDS_MAX = 20.0


@pytest.fixture
async def engine(redis: Redis, valkey: EmbeddedValkey, postgres_url: str) -> AsyncIterator[Engine]:
    settings = Settings(redis_url=valkey.url, postgres_url=postgres_url)
    engine = await Engine.open(settings)
    yield engine
    await engine.close()


@asynccontextmanager
async def working(engine: Engine, provider: ObedientProvider) -> AsyncIterator[Worker]:
    worker = Worker(engine, {"sandbox": provider})
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        async with asyncio.timeout(SECONDS_MAX):
            await task


async def sold(engine: Engine, units: int) -> bool:
    """In Postgres and in Redis."""
    stored = await engine.pool.fetchval("SELECT sum(sold) FROM sale_items")
    stock = (await engine.inventory.snapshot("demo")).stock
    return bool(stored == units == sum(counters.sold for counters in stock.values()))


async def buy(engine: Engine, sale: Sale, first: int, count: int) -> None:
    await reserve_for(engine.inventory, sale, [f"u{n}" for n in range(first, first + count)])


async def test_reservations_become_paid_orders_by_themselves(engine: Engine) -> None:
    provider = ObedientProvider()
    sale = await open_sale(engine.pool, engine.inventory, auto_capture=True)
    await buy(engine, sale, 0, 40)
    async with working(engine, provider):
        await until(lambda: sold(engine, 40), "40 units sold", SECONDS_MAX)
        await buy(engine, sale, 40, 40)
        await until(lambda: sold(engine, 80), "80 units sold", SECONDS_MAX)
    assert len(provider.charges) == 80
    assert await engine.pool.fetchval("SELECT count(*) FROM outbox") == 0


async def test_worker_comes_back_after_postgres_and_redis_dropped_it(engine: Engine) -> None:
    sale = await open_sale(engine.pool, engine.inventory, auto_capture=True)
    async with working(engine, ObedientProvider()):
        for round_number in range(3):
            await buy(engine, sale, 20 * round_number, 20)
            await engine.redis.client_kill_filter(_type="normal", skipme=True)
            other = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            await engine.pool.execute(f"{other} AND datname = current_database()")
            await until(
                lambda n=round_number: sold_again(engine, 20 * (n + 1)), "sold again", SECONDS_MAX
            )


async def sold_again(engine: Engine, units: int) -> bool:
    """As `sold`, while connections are being made anew."""
    try:
        return await sold(engine, units)
    except Exception:
        return False


async def test_stop_stores_what_is_reserved(engine: Engine) -> None:
    sale = await open_sale(engine.pool, engine.inventory)
    worker = Worker(engine, {})
    await buy(engine, sale, 0, 60)
    worker.stop()  # Safe before the start, and the start then only winds down.
    worker.stop()
    await worker.run()
    assert await engine.pool.fetchval("SELECT count(*) FROM orders") == 60
    assert await engine.redis.xlen("sale:{demo.0}:orders") == 0


async def test_loops_of_a_stage_are_told_to_stop_together(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told: set[type] = set()
    all_told = asyncio.Event()

    async def run(_: object) -> None:
        await all_told.wait()

    def stop(loop: object) -> None:
        told.add(type(loop))
        if told == {Inbox, Payer}:
            all_told.set()

    for loop in (Inbox, Payer):
        monkeypatch.setattr(loop, "run", run)
        monkeypatch.setattr(loop, "stop", stop)
    monkeypatch.setattr(worker_module, "STOP_SECONDS_MAX", 1.0)
    async with working(engine, ObedientProvider()):
        pass
    assert [
        record for record in caplog.records if getattr(record, "action", "") == "loop_cut"
    ] == []


async def test_worker_has_stopped_before_its_supervisor_kills_it(engine: Engine) -> None:
    worker = Worker(engine, {})
    worker.stop()
    await worker.run()
    loops = len(worker._stages) * (worker_module.STOP_SECONDS_MAX + worker_module.CUT_SECONDS_MAX)
    assert loops + worker_module.STOP_SECONDS_MAX < 45 < children.STOP_SECONDS_MAX


async def test_crashed_loop_starts_again_and_stops_when_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runs, stopped, survived = [StoreUnavailable("away"), ValueError("bug")], asyncio.Event(), []

    async def run() -> None:
        if runs:
            raise runs.pop(0)
        survived.append(True)
        stopped.set()

    async with asyncio.timeout(SECONDS_MAX):
        await supervise("Loop", run, stopped)
    assert survived == [True]
    assert [record.getMessage() for record in caplog.records] == [
        "Loop waits: away",
        "Loop crashed and starts again.",
    ]
