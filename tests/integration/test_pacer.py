"""The pace on real servers: it follows what Postgres stores, down and up again, and names the hop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from math import inf
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from engine import metrics
from engine.admission.pace import PACE_KEY, PACE_MIN
from engine.admission.pulse import PACE_UNKNOWN, Pulse
from engine.clock import ManualClock, SystemClock
from engine.config import Settings
from engine.core import Engine
from engine.drained import Drained
from engine.gauges import Gauges
from engine.keys import shard_keys
from engine.model import Reserved
from engine.pacer import PAYMENT_FIRST, PAYMENT_FLOOR, PAYMENT_SECONDS_MAX, Pacer
from engine.sales import Sale
from engine.servers import EmbeddedValkey
from engine.store import outbox
from engine.worker import Worker
from ext import Meter
from tests.support.sales import open_sale, reserve_for
from tests.support.slow_postgres import SlowDoor, slow_door
from tests.support.truth import opened_engine
from tests.support.waiting import until

SECONDS_MAX = 40.0
DEMAND = 30  # Reservations per call of the crowd …
CROWD_SECONDS = 0.02  # … so often: 1,500 per second.
UNITS = 1_000_000
ORDERS = shard_keys("demo").orders


class Crowd:
    """Asks for more than a slow Postgres stores; what the front's meter admits is reserved."""

    def __init__(self, engine: Engine, sale: Sale, pulse: Pulse, meter: Meter) -> None:
        self._engine = engine
        self._sale = sale
        self._meter = meter
        self._pulse = pulse
        self._numbers = count()
        self.reserved = 0
        self.waiting_max = 0

    async def run(self) -> None:
        while True:
            await self._pulse.refresh_once()
            for _ in range(10):
                await asyncio.gather(self.click(), asyncio.sleep(CROWD_SECONDS))

    async def click(self) -> None:
        asking = [f"u{next(self._numbers)}" for _ in range(DEMAND)]
        admitted = [user for user in asking if self._meter.admit() == 0.0]
        if admitted:
            answers = await reserve_for(self._engine.inventory, self._sale, admitted)
            self.reserved += sum(isinstance(answer, Reserved) for answer in answers)

    async def waiting(self) -> int:
        """Reservations that are not stored yet."""
        stored = await self._engine.pool.fetchval("SELECT count(*) FROM orders")
        self.waiting_max = max(self.waiting_max, self.reserved - stored)
        return self.reserved - int(stored)


@asynccontextmanager
async def alongside(loop: object) -> AsyncIterator[None]:
    """While a loop runs."""
    task = asyncio.create_task(loop.run())  # type: ignore[attr-defined]
    try:
        yield
        assert not task.done(), task
    finally:
        if isinstance(loop, Crowd):
            task.cancel()
        else:
            loop.stop()  # type: ignore[attr-defined]
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def rush(
    valkey: EmbeddedValkey, postgres_url: str, folder: Path
) -> AsyncIterator[tuple[SlowDoor, Crowd, Pulse]]:
    """A worker that reaches Postgres through a door, and a crowd before one front."""
    async with (
        slow_door(postgres_url, folder) as (door, slow_url),
        opened_engine(
            valkey, slow_url, drain_batch_max=200, drain_connections=1, worker_name="pacing"
        ) as engine,
        opened_engine(valkey, postgres_url) as front,
    ):
        sale = await open_sale(front.pool, front.inventory, stock={"phone-black": UNITS})
        meter = Meter(SystemClock())
        pulse = Pulse(front.redis, SystemClock(), "front-0", meter)
        crowd = Crowd(front, sale, pulse, meter)
        async with alongside(Worker(engine, {})), alongside(crowd):
            yield door, crowd, pulse
        door.delay_seconds = 0
        door.reopen()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


async def test_slow_postgres_slows_admission_to_what_it_stores_until_it_is_well(
    valkey: EmbeddedValkey, redis: Redis, postgres_url: str, folder: Path
) -> None:
    async with rush(valkey, postgres_url, folder) as (door, crowd, pulse):
        await until(lambda: stored(crowd, 2000), "orders stored at full speed")
        assert pulse.pace == inf
        door.delay_seconds = 0.3  # Of 200 at a time, hence some 600 per second.
        await until(lambda: is_slow(pulse), "the pace fell", SECONDS_MAX)
        assert pulse.hop in {"drain", "postgres"}
        await until(lambda: is_steady(pulse, crowd), "about a second's work waits", SECONDS_MAX)
        assert crowd.waiting_max < 8 * 1500  # What came before it was noticed.
        door.delay_seconds = 0
        await until(lambda: is_free(pulse), "the pace recovered", SECONDS_MAX)


async def stored(crowd: Crowd, orders: int) -> bool:
    return crowd.reserved >= orders and await crowd.waiting() < 600


async def is_slow(pulse: Pulse) -> bool:
    return pulse.pace < 700


async def is_steady(pulse: Pulse, crowd: Crowd) -> bool:
    """Whether the hop is busy, and what waits is stored within a second or so at the pace."""
    return 100 < pulse.pace < 1200 and 0 < await crowd.waiting() < 1.5 * pulse.pace


async def is_free(pulse: Pulse) -> bool:
    return pulse.pace == inf


async def test_postgres_that_hangs_leaves_a_bounded_stream(
    valkey: EmbeddedValkey, redis: Redis, postgres_url: str, folder: Path
) -> None:
    async with rush(valkey, postgres_url, folder) as (door, crowd, pulse):
        await until(lambda: stored(crowd, 1000), "orders stored at full speed")
        door.shut()
        await until(lambda: is_shut(pulse), "next to nobody is admitted", SECONDS_MAX)
        assert await crowd.waiting() < 25_000
        door.reopen()
        await until(lambda: is_free(pulse), "the pace recovered", SECONDS_MAX)


async def is_shut(pulse: Pulse) -> bool:
    return pulse.pace <= 5 * PACE_MIN


async def test_worker_that_is_gone_leaves_a_trickle(
    valkey: EmbeddedValkey, redis: Redis, postgres_url: str
) -> None:
    clock = ManualClock()
    pulse = Pulse(redis, clock, "front-0")
    async with opened_engine(valkey, postgres_url) as engine:

        async def hears() -> bool:
            await pulse.refresh_once()
            return bool(await redis.exists(PACE_KEY)) and not pulse.is_stale

        async with alongside(Worker(engine, {})):
            clock.advance(seconds=6)
            await until(hears, "the worker said a pace")
            assert (pulse.pace, pulse.hop) == (inf, "")
    await pulse.refresh_once()  # The last word.
    clock.advance(seconds=6)
    await pulse.refresh_once()
    assert (pulse.pace, pulse.hop) == (PACE_UNKNOWN, "worker")


class Draining:
    """A drainer that did and left what a test says."""

    def __init__(self, clock: ManualClock, sales: list[str]) -> None:
        self.drained = Drained(clock)
        self.sales = sales


class Paying:
    """Payments that are as many as a test says."""

    def __init__(self) -> None:
        self.payments_waiting = 0
        self.payments_away = False
        self.done = 0

    def payments_done(self) -> int:
        return self.done


class Stand:
    """Pacers without loops, on a clock of the test's own."""

    def __init__(self, redis: Redis, **settings: object) -> None:
        self.redis = redis
        self.clock = ManualClock()
        self.settings = Settings(**settings)  # type: ignore[arg-type]

    def pacer(self, *sales: str) -> tuple[Pacer, Draining, Paying]:
        draining, paying = Draining(self.clock, list(sales)), Paying()
        return Pacer(self.redis, self.clock, draining, paying, self.settings), draining, paying

    async def look(self, *pacers: Pacer, seconds: float = 0.2) -> tuple[float, str]:
        for pacer in pacers:
            await pacer.measure_once()
        self.clock.advance(seconds=seconds)
        return await self.told()

    async def told(self) -> tuple[float, str]:
        per_second, hop = await self.redis.hmget(PACE_KEY, "per_second", "hop")
        return float(per_second), hop.decode()

    async def enqueue(self, sale_id: str, entries: int, size: int) -> None:
        batch = "\n".join(["id user items"] * size)
        async with self.redis.pipeline(transaction=False) as pipe:
            for _ in range(entries):
                pipe.xadd(shard_keys(sale_id).orders, {"batch": batch})
            await pipe.execute()


async def test_backlog_is_that_of_all_sales(redis: Redis) -> None:
    stand = Stand(redis)
    pacer, draining, _ = stand.pacer("one", "two")
    for _ in range(40):
        draining.drained.add(2000, 20)  # 10,000 per second.
        assert await stand.look(pacer) == (inf, "")
    await stand.enqueue("one", 150, 100)
    assert await stand.look(pacer) == (inf, "")
    await stand.enqueue("two", 150, 100)
    draining.drained.add(2000, 20)
    pace, hop = await stand.look(pacer)
    assert hop == "drain"
    assert pace < 20_000


async def test_workers_count_together_and_find_the_same(redis: Redis) -> None:
    stand = Stand(redis)
    here, draining_here, _ = stand.pacer("demo")
    there, draining_there, _ = stand.pacer("demo")
    await stand.enqueue("demo", 2000, 20)
    for _ in range(50):
        for draining in (draining_here, draining_there):
            draining.drained.add(400, 20)  # Together 4,000 per second, in entries of 20.
        await stand.look(here, there)
    rates = [pacer._drain.rate for pacer in (here, there)]
    assert rates == [pytest.approx(4000, rel=0.05)] * 2
    assert (await stand.told())[1] == "drain"


async def test_operators_ceiling_is_the_pace_of_a_calm_fleet(redis: Redis) -> None:
    stand = Stand(redis, pace_max=500)
    pacer, _, _ = stand.pacer("demo")
    assert await stand.look(pacer) == (500, "pace_max")
    assert REGISTRY.get_sample_value("doorbuster_pace") == 500
    assert REGISTRY.get_sample_value("doorbuster_hop_pace", {"hop": "drain"}) == inf


async def test_commits_that_take_long_slow_admission_before_anything_waits(redis: Redis) -> None:
    stand = Stand(redis, drain_connections=2, drain_batch_max=4000)
    pacer, draining, _ = stand.pacer("demo")
    with draining.drained.statement():
        assert await stand.look(pacer, seconds=2) == (inf, "")
        assert await stand.look(pacer) == (4000, "postgres")  # It has been waited for 2 s.


async def test_slow_statement_limits_nobody_once_nothing_is_stored_any_more(redis: Redis) -> None:
    stand = Stand(redis)
    pacer, draining, _ = stand.pacer("demo")
    with draining.drained.statement():
        stand.clock.advance(seconds=30)
    assert (await stand.look(pacer))[1] == "postgres"
    stand.clock.advance(seconds=5)
    await stand.look(pacer, seconds=2)
    assert await stand.look(pacer) == (inf, "")
    with draining.drained.statement():
        stand.clock.advance(seconds=0.1)
    assert await stand.look(pacer) == (inf, "")


async def test_worker_that_stores_nothing_leaves_the_pace_of_one_that_does(redis: Redis) -> None:
    stand = Stand(redis, drain_connections=2, drain_batch_max=4000)
    busy, draining, _ = stand.pacer("demo")
    idle, _, _ = stand.pacer("demo")
    with draining.drained.statement():
        stand.clock.advance(seconds=2)
    for _ in range(4):
        assert await stand.look(busy, idle) == (4000, "postgres")
    stand.clock.advance(seconds=1)
    await stand.look(busy, idle, seconds=2)
    assert await stand.look(busy, idle) == (inf, "")


async def test_provider_that_is_away_stops_no_sale(redis: Redis) -> None:
    stand = Stand(redis)
    pacer, _, paying = stand.pacer("demo")
    await stand.look(pacer)
    paying.payments_away = True
    for _ in range(1000):
        paying.payments_waiting += 40
        assert await stand.look(pacer) == (inf, "")
    paying.payments_waiting = 10_000_000
    pace, hop = await stand.look(pacer)
    assert (pace, hop) == (PAYMENT_FLOOR * PAYMENT_FIRST, "payment")


class Charging:
    """A payer that serves what a test says."""

    def __init__(self, *kinds: str) -> None:
        self.charges_of = set(kinds)
        self.is_away = False


async def test_payments_that_wait_are_those_that_a_provider_would_be_asked_for_now(
    valkey: EmbeddedValkey, postgres_url: str
) -> None:
    async with opened_engine(valkey, postgres_url) as engine:
        sale = await open_sale(engine.pool, engine.inventory, stock={"phone-black": 1})
        async with engine.pool.acquire() as connection:
            for kind in ("capture", "capture", "pay", "pay", "refund", "confirm"):
                await outbox.put(connection, kind, [(sale.sale_id, "it")])
            await connection.execute(
                "UPDATE outbox SET due_at = now() + interval '1 hour' WHERE message_id = "
                "(SELECT max(message_id) FROM outbox WHERE kind = 'pay')"
            )
        for charging, waiting in ((Charging("capture", "pay"), 3), (Charging("pay"), 1)):
            gauges = Gauges(engine, charging)
            await gauges.measure_once()
            assert gauges.payments_waiting == waiting


async def test_payments_may_lag_but_not_until_reservations_run_out(redis: Redis) -> None:
    stand = Stand(redis)
    pacer, _, paying = stand.pacer("demo")
    paying.payments_waiting = int(0.9 * PAYMENT_SECONDS_MAX * 1000)
    await stand.look(pacer)
    assert await stand.look(pacer) == (inf, "")
    for _ in range(20):
        paying.payments_waiting += 10_000
        pace, hop = await stand.look(pacer)
    assert hop == "payment"
    assert pace < 1000


async def test_limit_is_said_in_the_log_when_it_comes_and_goes(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="engine.pacer")
    stand = Stand(redis)
    pacer, draining, _ = stand.pacer("demo")
    with draining.drained.statement():
        await stand.look(pacer, seconds=5)
        await stand.look(pacer)
        await stand.look(pacer)
    while draining.drained.commit_seconds > 0.5:
        with draining.drained.statement():
            pass
    await stand.look(pacer)
    await stand.look(pacer)
    actions = [getattr(record, "action", None) for record in caplog.records]
    assert actions == ["pace_limited", "pace_free"]


def test_charges_that_came_to_an_end_are_counted() -> None:
    before = Gauges.payments_done()
    for status in ("captured", "failed", "pending"):
        metrics.payments.labels(status).inc()
    assert Gauges.payments_done() == before + 2
