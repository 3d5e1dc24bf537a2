"""Recovery: whatever Redis lost, the rebuilt sale equals Postgres and sells on."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from redis.asyncio import Redis

from engine.core import Engine
from engine.errors import Conflict, UnknownSale
from engine.fence import Fence
from engine.inventory.inventory import Counters
from engine.keys import shard_keys
from engine.model import Refused, ReservationState, Reserved
from engine.reconciler import check
from engine.recovery import Recovery, recover
from engine.servers import EmbeddedValkey
from engine.store.database import connect
from engine.store.fences import recovery_lock
from engine.store.resolutions import CANCEL, EXPIRE, PAY
from tests.support.sales import reserve_for
from tests.support.truth import BUYERS, dispatch, drain, move, opened_engine, ran_sale

KEYS = shard_keys("demo")
AT_REST = {"phone-black": Counters(14, 5, 1), "case": Counters(14, 5, 1)}


@pytest.fixture
async def engine(valkey: EmbeddedValkey, redis: Redis, postgres_url: str) -> AsyncIterator[Engine]:
    async with opened_engine(valkey, postgres_url) as engine:
        yield engine


async def watch(engine: Engine) -> int:
    fence = Fence(engine.redis, engine.pool, engine.inventory, engine.settings.durability)
    return await fence.watch_once()


async def assert_sound(engine: Engine) -> None:
    findings = await check(engine, settle_seconds=0)
    assert [finding.line for finding in findings if not finding.ok] == []


async def test_sale_is_rebuilt_after_redis_lost_everything(engine: Engine, redis: Redis) -> None:
    old, bought = await ran_sale(engine)
    records = {user: await engine.inventory.reservations("demo", user) for user in BUYERS}
    await redis.flushall()
    assert await watch(engine) == 1
    report = await recover(engine, "demo")
    assert (report.epoch, report.orders, report.buyers) == (2, 8, 8)
    assert report.before == {}
    assert report.after == AT_REST
    assert (await engine.inventory.snapshot("demo")).stock == AT_REST
    assert {u: await engine.inventory.reservations("demo", u) for u in BUYERS} == records
    assert await watch(engine) == 0
    await assert_sound(engine)

    # It sells on, at the new epoch only, and a repeated request gets its first answer.
    sale = await engine.sales.get("demo")
    assert isinstance((await reserve_for(engine.inventory, old, ["new"]))[0], Refused)
    [new] = await reserve_for(engine.inventory, sale, ["new"])
    assert isinstance(new, Reserved)
    [again] = await reserve_for(engine.inventory, sale, BUYERS[5:6], "case*1,phone-black*1")
    assert again == Reserved(
        bought[BUYERS[5]].reservation_id,
        ReservationState.RESERVED,
        bought[BUYERS[5]].reserved_until_ms,
        replayed=True,
    )
    await drain(engine)
    await assert_sound(engine)


async def test_what_is_left_of_the_stream_becomes_orders(engine: Engine, redis: Redis) -> None:
    sale, _ = await ran_sale(engine)
    await reserve_for(engine.inventory, sale, ["waiting", "read-by-a-dead-worker"])
    await redis.xreadgroup("drain", "dead", {KEYS.orders: ">"}, count=1)
    await redis.delete(KEYS.stock, KEYS.buyers, KEYS.config)
    report = await recover(engine, "demo")
    assert report.drained_entries == 1
    assert report.after["phone-black"] == Counters(12, 7, 1)
    await assert_sound(engine)


async def test_reservations_whose_stream_entries_are_lost_are_rescued(
    engine: Engine, redis: Redis
) -> None:
    sale, _ = await ran_sale(engine)
    [answer] = await reserve_for(engine.inventory, sale, ["acknowledged"])
    await redis.delete(KEYS.orders)
    assert await watch(engine) == 1
    report = await recover(engine, "demo")
    assert report.rescued == 1
    assert isinstance(answer, Reserved)
    [kept] = await engine.inventory.reservations("demo", "acknowledged")
    assert (kept.reservation_id, kept.state) == (answer.reservation_id, ReservationState.RESERVED)
    await assert_sound(engine)


async def test_messages_on_their_way_change_nothing_after_the_rebuild(
    engine: Engine, redis: Redis
) -> None:
    _, bought = await ran_sale(engine)
    for resolution, user in zip((PAY, CANCEL, EXPIRE), BUYERS[3:], strict=False):
        await move(engine, resolution, user, bought[user])
    await redis.flushall()
    report = await recover(engine, "demo")
    assert report.after["case"] == Counters(16, 2, 2)
    await dispatch(engine)
    assert (await engine.inventory.snapshot("demo")).stock["case"] == Counters(16, 2, 2)
    await assert_sound(engine)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
async def test_recovery_killed_at_any_step_is_simply_run_again(
    engine: Engine, redis: Redis, steps: int
) -> None:
    sale, _ = await ran_sale(engine)
    await reserve_for(engine.inventory, sale, ["waiting"])
    await redis.hdel(KEYS.buyers, *BUYERS)
    await redis.delete(KEYS.stock)
    url = engine.settings.postgres_url
    assert url is not None
    connection = await connect(url)
    first = Recovery(engine, connection, "demo")
    for step in (first.shut, first.drain, first.rescue, first.rebuild)[:steps]:
        await step()
    await connection.close()

    assert (await engine.sales.get("demo")).fenced
    assert await watch(engine) == 0
    report = await recover(engine, "demo")
    assert report.epoch == 3
    assert report.after["phone-black"] == Counters(13, 6, 1)
    await assert_sound(engine)


async def test_changes_made_while_the_sale_was_shut_are_there_afterwards(
    engine: Engine, redis: Redis
) -> None:
    await ran_sale(engine)
    await redis.flushall()
    assert await watch(engine) == 1
    await engine.sales.restock("demo", "case", 5, "tester", key="while-shut")
    await engine.sales.pause("demo", "tester")
    await recover(engine, "demo")
    snapshot = await engine.inventory.snapshot("demo")
    assert (snapshot.state, snapshot.stock["case"].stocked) == ("paused", 25)
    await assert_sound(engine)


async def test_only_one_recovers_a_sale_at_a_time(engine: Engine) -> None:
    await ran_sale(engine)
    url = engine.settings.postgres_url
    assert url is not None
    async with AsyncExitStack() as stack:
        connection = await connect(url)
        stack.push_async_callback(connection.close)
        assert await stack.enter_async_context(recovery_lock(connection, "demo"))
        with pytest.raises(Conflict, match="being recovered already"):
            await recover(engine, "demo")
    await recover(engine, "demo")


async def test_unknown_sale_is_refused(engine: Engine) -> None:
    with pytest.raises(UnknownSale):
        await recover(engine, "no-such-sale")
