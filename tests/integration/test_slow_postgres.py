"""A Postgres that answers nothing, or late: buyers who need only Redis do not notice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from engine.clock import ManualClock
from engine.errors import StoreUnavailable
from engine.sales import SaleDirectory, rows
from engine.servers import EmbeddedValkey
from engine.store import database
from engine.store.database import Pool, connect, open_pool, postgres_errors
from tests.support.front import serve
from tests.support.sales import make_inventory, open_sale


@asynccontextmanager
async def hung_sales(postgres_url: str) -> AsyncIterator[None]:
    """No read of a sale is answered."""
    connection = await connect(postgres_url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE sales IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


async def test_buyers_reserve_while_no_read_of_the_sale_is_answered(
    valkey: EmbeddedValkey, redis: Redis, postgres_url: str
) -> None:
    async with serve(valkey.url, postgres_url) as shop:
        await shop.sell("demo")
        assert (await shop.reserve("ann")).status == 201
        clock = ManualClock()
        directory = shop.engine.directory
        directory._sales._clock = clock
        directory.forget("demo")
        assert (await shop.reserve("eve")).status == 201
        async with hung_sales(postgres_url):
            clock.advance(seconds=1.1)
            async with asyncio.timeout(1.5):  # Below the 2 s of the read that hangs.
                answers = await asyncio.gather(*(shop.reserve(f"buyer-{n}") for n in range(20)))
            assert {answer.status for answer in answers} == {201}


async def test_read_that_failed_rests_and_a_copy_bridges_it(
    pool: Pool, redis: Redis, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "READ_SECONDS_MAX", 0.05)
    clock = ManualClock()
    directory = SaleDirectory(pool, clock)
    sale = await open_sale(pool, make_inventory(redis))
    assert await directory.get("demo") == sale
    clock.advance(seconds=1)
    async with hung_sales(postgres_url):
        assert await directory.get("demo") == sale  # The read fails within its patience.
        with pytest.raises(StoreUnavailable, match="took too long"):
            await directory.get("never-read")
    await pool.execute("UPDATE sales SET revision = 7")
    assert await directory.get("demo") == sale
    clock.advance(seconds=1.1)
    renewed = await directory.get("demo")
    assert renewed is not None
    assert renewed.revision == 7


async def test_sale_that_did_not_exist_is_not_bridged(
    pool: Pool, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "READ_SECONDS_MAX", 0.05)
    clock = ManualClock()
    directory = SaleDirectory(pool, clock)
    assert await directory.get("demo") is None
    clock.advance(seconds=0.3)
    async with hung_sales(postgres_url):
        with pytest.raises(StoreUnavailable):
            await directory.get("demo")


async def test_pool_that_is_used_up_is_not_waited_for_without_end(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "ACQUIRE_SECONDS_MAX", 0.05)
    async with await open_pool(postgres_url, 1) as small, small.acquire():
        with pytest.raises(StoreUnavailable, match="took too long"), postgres_errors():
            async with asyncio.timeout(5):
                await small.fetchval("SELECT 1")


def test_reason_is_told_even_of_an_error_without_text() -> None:
    with (
        pytest.raises(StoreUnavailable, match="ConnectionResetError"),
        postgres_errors(),
    ):
        raise ConnectionResetError
