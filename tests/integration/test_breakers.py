"""Breakers around real servers: a Postgres that is gone or hangs, a provider that is down."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import asyncpg
import pytest
from redis.asyncio import Redis

from engine.admission import unreachable_servers
from engine.admission.breaker import IN_A_ROW_MAX, Breaker, BreakerState
from engine.clock import ManualClock, SystemClock
from engine.errors import CircuitOpen, StoreUnavailable
from engine.payment import payer as payer_module
from engine.payment.guarded import GuardedProvider
from engine.payment.late import LateCaptures
from engine.payment.payer import Payer
from engine.payment.provider import Provider
from engine.servers import EmbeddedPostgres, EmbeddedValkey
from engine.store.database import Pool, connect, open_pool, postgres_errors
from tests.support.shop import ObedientProvider, Shop
from tests.support.waiting import until

CLOSED, OPEN = BreakerState.CLOSED, BreakerState.OPEN
PAUSE_SECONDS_MAX = 2.0


def make_breaker(name: str, clock: ManualClock | SystemClock) -> Breaker:
    return Breaker(name, clock, Random(1), pause_seconds_max=PAUSE_SECONDS_MAX)


async def ask(pool: Pool) -> int:
    with postgres_errors():
        async with pool.acquire() as connection:
            return int(await connection.fetchval("SELECT 1"))


async def fail(pool: Pool, times: int) -> None:
    for _ in range(times):
        with pytest.raises(StoreUnavailable):
            await ask(pool)


@pytest.fixture
def own_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="doorbuster-test-") as folder:
        yield Path(folder)


@pytest.fixture
def own_postgres(own_folder: Path) -> Iterator[EmbeddedPostgres]:
    """A Postgres of this test's own, to take away and bring back."""
    server = EmbeddedPostgres(own_folder)
    server.start()
    yield server
    server.stop()


@asynccontextmanager
async def guarded_pool(url: str, breaker: Breaker, size: int = 4) -> AsyncIterator[Pool]:
    async with await open_pool(url, size, breaker) as pool:
        yield pool


async def test_postgres_that_is_gone_is_not_asked_until_it_is_back(
    own_postgres: EmbeddedPostgres, redis: Redis
) -> None:
    breaker = make_breaker("postgres", SystemClock())
    async with guarded_pool(own_postgres.url_of("postgres"), breaker) as pool:
        assert await ask(pool) == 1
        assert await unreachable_servers(redis, pool) == []
        await asyncio.to_thread(own_postgres.stop)
        await fail(pool, IN_A_ROW_MAX)
        assert breaker.state is OPEN
        with pytest.raises(CircuitOpen):
            await ask(pool)
        assert await unreachable_servers(redis, pool) == ["postgres"]

        await asyncio.to_thread(own_postgres.start)
        # The breaker may be shut for a moment yet; who asks for the truth is told it.
        assert await unreachable_servers(redis, pool) == []

        async def answers() -> bool:
            try:
                return await ask(pool) == 1
            except StoreUnavailable:
                return False

        await until(answers, "Postgres is asked again", 2 * PAUSE_SECONDS_MAX)
        assert breaker.state is CLOSED


async def test_reads_that_callers_give_up_open_it_and_the_pool_is_spared(postgres_url: str) -> None:
    clock = ManualClock()
    breaker = make_breaker("postgres", clock)
    holder = await connect(postgres_url)
    async with guarded_pool(postgres_url, breaker) as pool, holder.transaction():
        await holder.execute("LOCK TABLE sales IN ACCESS EXCLUSIVE MODE")
        for _ in range(IN_A_ROW_MAX):
            with pytest.raises(TimeoutError):
                await _read_impatiently(pool, clock)
        assert breaker.state is OPEN
        with pytest.raises(CircuitOpen):
            await ask(pool)
    await holder.close()


async def _read_impatiently(pool: Pool, clock: ManualClock) -> None:
    reading = asyncio.create_task(pool.fetchval("SELECT count(*) FROM sales"))
    await until(lambda: _waits_for_a_lock(pool), "the read waits")
    clock.advance(seconds=2)
    reading.cancel()
    try:
        await reading
    except asyncio.CancelledError:
        raise TimeoutError from None


async def _waits_for_a_lock(pool: Pool) -> bool:
    async with pool.acquire_unguarded() as connection:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        return bool(await connection.fetchval(f"{waiting} AND datname = current_database()"))


async def test_errors_of_sql_are_answers(postgres_url: str) -> None:
    breaker = make_breaker("postgres", ManualClock())
    async with guarded_pool(postgres_url, breaker) as pool:
        for _ in range(2 * IN_A_ROW_MAX):
            with pytest.raises(asyncpg.UndefinedTableError):
                await pool.execute("SELECT * FROM no_such_table")
    assert breaker.state is CLOSED


async def test_connections_that_were_dropped_open_nothing_while_new_ones_are_made(
    postgres_url: str,
) -> None:
    breaker = make_breaker("postgres", ManualClock())
    holder = await connect(postgres_url)
    async with guarded_pool(postgres_url, breaker) as pool:
        for _ in range(3):
            await asyncio.gather(*(ask(pool) for _ in range(4)))
            await holder.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )

            async def answers() -> bool:
                try:
                    return await ask(pool) == 1
                except StoreUnavailable:
                    return False

            await until(answers, "a new connection")
            assert breaker.state is CLOSED
    await holder.close()


@pytest.fixture
async def shop(
    pool: Pool, redis: Redis, valkey: EmbeddedValkey, postgres_url: str
) -> AsyncIterator[Shop]:
    stock = {"phone-black": 50, "phone-white": 1}
    shop = await Shop.open(pool, redis, valkey.url, postgres_url, stock)
    yield shop
    await shop.close()


def guarded_payer(shop: Shop, breaker: Breaker, **others: Provider) -> Payer:
    return Payer(
        shop.pool,
        shop.ids,
        {"sandbox": GuardedProvider(shop.provider, breaker), **others},
        LateCaptures(shop.pool, shop.inventory, shop.directory),
        capture_with="sandbox",
        concurrency_max=1,
    )


async def make_due(shop: Shop) -> None:
    await shop.pool.execute("UPDATE outbox SET due_at = now()")


async def test_payments_wait_in_the_outbox_while_their_provider_is_cut_off(shop: Shop) -> None:
    clock = ManualClock()
    breaker = make_breaker("sandbox", clock)
    payer = guarded_payer(shop, breaker)
    orders = await shop.order([f"u{n}" for n in range(20)])
    for number, order in enumerate(orders):
        await shop.pay(order, f"u{number}")
    shop.provider.down = True
    assert await payer.pay_once() == 20
    assert breaker.state is OPEN
    assert payer.is_away
    assert shop.provider.calls["create"] == IN_A_ROW_MAX, "the others were not even sent"

    await make_due(shop)
    assert await payer.pay_once() == 0
    assert await payer.query_once() == 0
    waiting = "SELECT count(*), max(attempts) FROM outbox WHERE kind = 'pay'"
    assert tuple(await shop.pool.fetchrow(waiting)) == (20, 1), "they were not even taken again"
    assert await shop.pool.fetchval("SELECT count(*) FROM dead_letters") == 0
    assert shop.provider.calls["create"] == IN_A_ROW_MAX

    shop.provider.down = False
    clock.advance(seconds=2 * PAUSE_SECONDS_MAX)
    assert await payer.pay_once() == 20
    await make_due(shop)
    while await payer.pay_once():
        await make_due(shop)
    assert breaker.state is CLOSED
    assert not payer.is_away
    assert len(shop.provider.charges) == 20
    assert await shop.pool.fetchval("SELECT count(*) FROM outbox WHERE kind = 'pay'") == 0


async def test_a_provider_that_is_cut_off_holds_up_nobody_who_pays_with_another(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payer_module, "BATCH_MAX", 4)
    monkeypatch.setattr(payer_module, "QUERY_BATCH_MAX", 4)
    breaker, other = make_breaker("sandbox", ManualClock()), ObedientProvider()
    payer = guarded_payer(shop, breaker, other=other)
    orders = await shop.order([f"u{n}" for n in range(10)])
    for number, order in enumerate(orders[:-1]):
        await shop.pay(order, f"u{number}")
    last = await shop.payments.start("demo", orders[-1], "u9", "other", {}, "k")
    for _ in range(IN_A_ROW_MAX):
        breaker.failed()

    assert await payer.pay_once() == 1, "those of the provider that is cut off are not even taken"
    assert await shop.payment_status(last.payment_id) == "captured"
    assert shop.provider.calls.total() == 0

    await shop.pool.execute(
        "UPDATE payments SET status = 'pending', updated_at = now() - interval '1 hour'"
    )
    assert await payer.query_once() == 1, "nor are they asked about"
    assert (shop.provider.calls.total(), other.calls["query"]) == (0, 1)


async def test_a_provider_that_refuses_is_not_down(shop: Shop) -> None:
    breaker = make_breaker("sandbox", ManualClock())
    payer = guarded_payer(shop, breaker)
    orders = await shop.order([f"u{n}" for n in range(2 * IN_A_ROW_MAX)])
    payments = [await shop.pay(order, f"u{number}") for number, order in enumerate(orders)]
    await payer.pay_once()
    for payment in payments:
        await shop.payments.request_refund(payment.payment_id, "op")
        shop.provider.become(payment.payment_id, shop.provider.answer.FAILED)
    while await payer.pay_once():
        pass
    assert shop.provider.calls["refund"] >= 2 * IN_A_ROW_MAX
    assert breaker.state is CLOSED
