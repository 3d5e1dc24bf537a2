"""The fence: a Redis that lost data is noticed, whatever it lost, and its sales are shut."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from engine.config import Durability
from engine.connections import server_run_id
from engine.core import Engine
from engine.fence import Fence
from engine.keys import shard_keys
from engine.model import Outcome, Refused, SaleState
from engine.servers import EmbeddedValkey
from engine.store.database import Pool
from engine.store.fences import mark_server_stopped, server_standing, trust_server
from tests.support.sales import open_sale, reserve_for
from tests.support.truth import drain, opened_engine, ran_sale

KEYS = shard_keys("demo")


@pytest.fixture
async def engine(valkey: EmbeddedValkey, redis: Redis, postgres_url: str) -> AsyncIterator[Engine]:
    async with opened_engine(valkey, postgres_url) as engine:
        yield engine


def fence_of(engine: Engine, durability: Durability = Durability.STRICT) -> Fence:
    return Fence(engine.redis, engine.pool, engine.inventory, durability)


async def forget_server(engine: Engine, run_id: str) -> None:
    """Makes the running server look like one that started since."""
    async with engine.pool.acquire() as connection:
        await connection.execute(
            "UPDATE redis_servers SET run_id = run_id || ' of ' || now() WHERE run_id = $1", run_id
        )


async def test_intact_sale_stays_open(engine: Engine) -> None:
    await ran_sale(engine)
    verdicts = await fence_of(engine).inspect()
    assert [(verdict.sale_id, verdict.intact) for verdict in verdicts] == [("demo", True)]
    assert (await engine.sales.get("demo")).fenced is None


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        ("everything", "no longer knows the sale"),
        ("the epoch", "epoch 0, Postgres at 1"),
        ("the stream", "stream of orders is gone"),
        ("the group", "stream of orders is gone"),
        ("the stream's tail", "those up to"),
    ],
)
async def test_loss_shuts_the_sale_in_both_and_once(
    engine: Engine, redis: Redis, loss: str, reason: str
) -> None:
    sale, _ = await ran_sale(engine)
    match loss:
        case "everything":
            await redis.flushall()
        case "the epoch":
            await redis.hset(KEYS.config, "epoch", 0)
        case "the stream":
            await redis.delete(KEYS.orders)
        case "the group":
            await redis.xgroup_destroy(KEYS.orders, "drain")
        case _:
            await redis.delete(KEYS.orders)
            await redis.xgroup_create(KEYS.orders, "drain", id="0", mkstream=True)
    fence = fence_of(engine)
    assert await fence.watch_once() == 1
    assert await fence.watch_once() == 0
    shut = await engine.sales.get("demo")
    assert reason in (shut.fenced or "")
    assert (await engine.inventory.snapshot("demo")).state is SaleState.DRAINING
    assert await reserve_for(engine.inventory, sale, ["x"]) == [Refused(Outcome.STALE_EPOCH)]


async def test_fence_that_redis_missed_is_put_up_later(engine: Engine) -> None:
    await ran_sale(engine)
    async with engine.pool.acquire() as connection:
        await connection.execute("UPDATE sales SET fenced = 'Redis was away'")
    assert await fence_of(engine).watch_once() == 0
    assert (await engine.inventory.snapshot("demo")).state is SaleState.DRAINING


async def test_strict_redis_may_restart_but_a_balanced_one_is_not_believed(engine: Engine) -> None:
    await ran_sale(engine)
    balanced = fence_of(engine, Durability.BALANCED)
    run_id = await server_run_id(engine.redis)
    await balanced.trust(run_id)
    assert await balanced.watch_once() == 0
    await forget_server(engine, run_id)
    assert await fence_of(engine, Durability.STRICT).watch_once() == 0
    await forget_server(engine, run_id)
    assert await balanced.watch_once() == 1
    assert "restarted or failed over" in ((await engine.sales.get("demo")).fenced or "")


async def test_balanced_redis_that_we_stopped_ourselves_is_believed(engine: Engine) -> None:
    await ran_sale(engine)
    balanced = fence_of(engine, Durability.BALANCED)
    run_id = await server_run_id(engine.redis)
    await balanced.trust(run_id)
    await balanced.mark_stopped(run_id)
    await forget_server(engine, run_id)
    assert await balanced.watch_once() == 0


async def test_crash_of_a_believed_successor_is_noticed_although_another_sale_is_shut(
    engine: Engine,
) -> None:
    await ran_sale(engine)
    await open_sale(engine.pool, engine.inventory, "shut")
    balanced = fence_of(engine, Durability.BALANCED)
    run_id = await server_run_id(engine.redis)
    await balanced.trust(run_id)
    await engine.pool.execute("UPDATE sales SET fenced = 'earlier' WHERE sale_id = 'shut'")
    await balanced.mark_stopped(run_id)
    await forget_server(engine, run_id)
    assert await balanced.watch_once() == 0
    await forget_server(engine, run_id)
    assert await balanced.watch_once() == 1
    assert (await engine.sales.get("demo")).fenced


async def test_first_server_of_an_empty_engine_is_believed(engine: Engine) -> None:
    balanced = fence_of(engine, Durability.BALANCED)
    assert await balanced.watch_once() == 0
    await open_sale(engine.pool, engine.inventory)
    await drain(engine)
    assert await balanced.watch_once() == 0


async def test_crashed_server_is_not_believed_though_the_clock_was_set_back(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await trust_server(connection, "first")
        await trust_server(connection, "second")
        await trust_server(connection, "first")
        await mark_server_stopped(connection, "first")
        assert (await server_standing(connection, "next")).trusted
        await connection.execute("UPDATE redis_servers SET trusted_at = now() + interval '1 hour'")
        await trust_server(connection, "crashed")
        assert not (await server_standing(connection, "next")).trusted
