"""The drainer against real Valkey and real Postgres."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from engine.clock import ManualClock, SystemClock
from engine.connections import connect_redis_blocking
from engine.drainer import Drainer
from engine.errors import StoreUnavailable
from engine.gauges import Gauges
from engine.inventory import Inventory
from engine.keys import DRAIN_GROUP, shard_keys
from engine.reconciler import check
from engine.sales import SaleDirectory
from engine.servers import EmbeddedValkey
from engine.store import orders as order_store
from engine.store.database import Connection, Pool, connect
from tests.support.sales import make_inventory, open_sale, reserve_for
from tests.support.truth import opened_engine

MakeDrainer = Callable[..., Drainer]


@pytest.fixture
async def inventory(redis: Redis) -> Inventory:
    return make_inventory(redis)


@pytest.fixture
async def make_drainer(
    valkey: EmbeddedValkey, redis: Redis, pool: Pool, postgres_url: str
) -> AsyncIterator[MakeDrainer]:
    client = connect_redis_blocking(valkey.url)
    made: list[Drainer] = []

    def make(
        consumer: str = "worker-0",
        *,
        attempts_max: int = 3,
        idle: float = 60,
        clock: ManualClock | None = None,
    ) -> Drainer:
        drainer = Drainer(
            client,
            lambda: connect(postgres_url),
            SaleDirectory(pool, SystemClock()),
            clock or ManualClock(),
            consumer=consumer,
            batch_max=100,
            attempts_max=attempts_max,
            claim_idle_seconds=idle,
        )
        made.append(drainer)
        return drainer

    yield make
    for drainer in made:
        await drainer.close()
    await client.aclose()


async def drain_all(drainer: Drainer, passes_max: int = 50) -> int:
    """Passes until one finds nothing."""
    total = 0
    for _ in range(passes_max):
        finished = await drainer.drain_once(block_ms=1)
        total += finished
        if not finished:
            return total
    raise AssertionError("the drainer does not come to an end")


async def counters(pool: Pool, sku: str = "phone-black") -> tuple[int, int, int]:
    """(orders, ordered units, units in the ledger)."""
    return (
        await pool.fetchval("SELECT count(*) FROM orders"),
        await pool.fetchval("SELECT ordered FROM sale_items WHERE sku = $1", sku),
        await pool.fetchval(
            "SELECT coalesce(sum(units), 0) FROM ledger WHERE counter = 'ordered' AND sku = $1", sku
        ),
    )


async def test_every_reservation_becomes_one_order(
    pool: Pool, redis: Redis, inventory: Inventory, make_drainer: MakeDrainer
) -> None:
    sale = await open_sale(pool, inventory, stock={"phone-black": 500, "phone-white": 500})
    for start in range(0, 300, 50):
        users = [f"buyer-{n}" for n in range(start, start + 50)]
        await reserve_for(inventory, sale, users, "phone-black*1,phone-white*1")

    assert await drain_all(make_drainer()) == 6

    assert await counters(pool) == (300, 300, 300)
    assert await redis.xlen(shard_keys("demo").orders) == 0
    assert (await redis.xpending(shard_keys("demo").orders, DRAIN_GROUP))["pending"] == 0
    row = await pool.fetchrow("SELECT * FROM orders WHERE user_id = 'buyer-7'")
    assert row["items"] == {"phone-black": 1, "phone-white": 1}
    assert row["amount_minor"] == 2 * 129900
    assert row["status"] == "awaiting_payment"


async def test_kill_between_commit_and_ack_stores_nothing_twice(
    pool: Pool,
    redis: Redis,
    inventory: Inventory,
    make_drainer: MakeDrainer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sale = await open_sale(pool, inventory)
    await reserve_for(inventory, sale, [f"buyer-{n}" for n in range(20)])
    first = make_drainer()

    class Killed(BaseException):
        pass

    async def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(first._streams, "finish", die)
        with pytest.raises(Killed):
            await first.drain_once(block_ms=1)
    assert await counters(pool) == (20, 20, 20)

    # The same consumer, started again, finds its own entries.
    assert await drain_all(make_drainer()) == 1
    assert await counters(pool) == (20, 20, 20)
    assert await redis.xlen(shard_keys("demo").orders) == 0


async def test_entries_of_a_dead_consumer_are_claimed(
    pool: Pool, redis: Redis, inventory: Inventory, make_drainer: MakeDrainer
) -> None:
    sale = await open_sale(pool, inventory)
    await reserve_for(inventory, sale, ["buyer-1"])
    orders = shard_keys("demo").orders
    await redis.xreadgroup(DRAIN_GROUP, "dead", {orders: ">"})

    assert await drain_all(make_drainer("alive", idle=3600)) == 0
    assert await drain_all(make_drainer("alive", idle=0)) == 1
    assert (await counters(pool))[0] == 1


async def test_poison_entry_is_buried_and_harms_no_neighbour(
    pool: Pool, redis: Redis, inventory: Inventory, make_drainer: MakeDrainer
) -> None:
    sale = await open_sale(pool, inventory)
    orders = shard_keys("demo").orders
    await reserve_for(inventory, sale, ["before"])
    await redis.xadd(orders, {"what": "is this"})
    await redis.xadd(orders, {"until_s": 1, "at_ms": 1, "batch": "no line of ours"})
    line = "A" * 20 + " buyer-x no-such-sku*1"
    await redis.xadd(orders, {"until_s": 1, "at_ms": 1, "batch": line})
    await reserve_for(inventory, sale, ["after"])

    await drain_all(make_drainer(attempts_max=3))

    assert await counters(pool) == (2, 2, 2)
    letters = await pool.fetch("SELECT body, error FROM dead_letters ORDER BY letter_id")
    assert [letter["body"][:5] for letter in letters] == [b"what=", b"until", b"until"]
    assert "no-such-sku" in letters[2]["error"]
    assert await redis.xlen(orders) == 0


async def test_entry_deleted_before_it_was_stored_raises_an_alarm(
    pool: Pool, redis: Redis, inventory: Inventory, make_drainer: MakeDrainer
) -> None:
    sale = await open_sale(pool, inventory)
    await reserve_for(inventory, sale, ["buyer-1"])
    orders = shard_keys("demo").orders
    [[_, [(entry_id, _)]]] = await redis.xreadgroup(DRAIN_GROUP, "dead", {orders: ">"})
    await redis.xdel(orders, entry_id)

    await drain_all(make_drainer("alive", idle=0))

    assert await pool.fetchval("SELECT reference FROM dead_letters") == entry_id.decode()


async def test_database_refuses_what_exceeds_the_stock_and_tells_the_buyer(
    pool: Pool, redis: Redis, inventory: Inventory, make_drainer: MakeDrainer
) -> None:
    sale = await open_sale(pool, inventory, stock={"phone-black": 3})
    # Redis forgets what it sold: the very fault the CHECK guards against.
    await redis.hset(shard_keys("demo").stock, "phone-black:available", 10)
    await reserve_for(inventory, sale, [f"buyer-{n}" for n in range(5)])

    await drain_all(make_drainer())

    assert await pool.fetchval("SELECT ordered FROM sale_items") == 3
    refused = await pool.fetch("SELECT * FROM orders WHERE status_reason = 'oversold'")
    assert len(refused) == 2
    assert {row["status"] for row in refused} == {"cancelled"}
    releases = await pool.fetch("SELECT reference, user_id FROM outbox WHERE kind = 'release'")
    assert {r["reference"] for r in releases} == {row["reservation_id"] for row in refused}


async def test_postgres_away_keeps_entries_pending(
    pool: Pool,
    redis: Redis,
    inventory: Inventory,
    make_drainer: MakeDrainer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sale = await open_sale(pool, inventory)
    await reserve_for(inventory, sale, ["buyer-1"])
    drainer = make_drainer()

    async def gone(connection: Connection, *_: object) -> int:
        await connection.close()
        raise asyncpg.ConnectionDoesNotExistError("gone")

    with monkeypatch.context() as patch:
        patch.setattr("engine.drainer.store_orders", gone)
        with pytest.raises(asyncpg.ConnectionDoesNotExistError):
            await drainer.drain_once(block_ms=1)

    assert await redis.xlen(shard_keys("demo").orders) == 1
    assert await drain_all(drainer) == 1
    assert (await counters(pool))[0] == 1


async def test_drain_sale_takes_other_consumers_entries_too(
    pool: Pool, redis: Redis, inventory: Inventory, make_drainer: MakeDrainer
) -> None:
    sale = await open_sale(pool, inventory)
    await reserve_for(inventory, sale, ["buyer-1"])
    await redis.xreadgroup(DRAIN_GROUP, "other", {shard_keys("demo").orders: ">"})
    await reserve_for(inventory, sale, ["buyer-2"])

    assert await make_drainer().drain_sale("demo") == 2
    assert (await counters(pool))[0] == 2


async def test_stream_position_moves_forward_only(
    pool: Pool, redis: Redis, inventory: Inventory, make_drainer: MakeDrainer
) -> None:
    sale = await open_sale(pool, inventory)
    await reserve_for(inventory, sale, ["buyer-1"])
    orders = shard_keys("demo").orders
    await redis.xreadgroup(DRAIN_GROUP, "slow", {orders: ">"})
    await reserve_for(inventory, sale, ["buyer-2"])
    newest = (await redis.xinfo_stream(orders))["last-generated-id"].decode()

    await drain_all(make_drainer("fast"))
    assert await pool.fetchval("SELECT drained_through FROM sales") == newest
    await drain_all(make_drainer("fast", idle=0))
    assert (await counters(pool))[0] == 2
    assert await pool.fetchval("SELECT drained_through FROM sales") == newest


def test_stream_ids_are_ordered_as_numbers() -> None:
    assert order_store.newest_of(["12-9", "12-10", "9-99"]) == "12-10"


async def test_stuck_sale_holds_no_other_up_and_is_drained_when_it_is_free(
    pool: Pool,
    inventory: Inventory,
    make_drainer: MakeDrainer,
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.drainer.LOCK_SECONDS_MAX", 0.02)
    stuck = await open_sale(pool, inventory, "demo")
    other = await open_sale(pool, inventory, "other", opens_in=-120)
    await reserve_for(inventory, stuck, ["ann"])
    await reserve_for(inventory, other, ["bob"])
    clock = ManualClock()
    drainer = make_drainer(clock=clock)
    holder = await connect(postgres_url)
    async with holder.transaction():  # Somebody's forgotten transaction.
        await holder.execute("SELECT FROM sale_items WHERE sale_id = 'demo' FOR UPDATE")
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            await drainer.drain_once(block_ms=1)
        assert await pool.fetchval("SELECT count(*) FROM orders WHERE sale_id = 'other'") == 1
        await reserve_for(inventory, other, ["cid"])
        assert await drain_all(drainer) == 1  # The stuck one rests: nothing is raised.
    await holder.close()
    clock.advance(seconds=1)
    assert await drain_all(drainer) == 1
    assert await pool.fetchval("SELECT count(*) FROM orders WHERE sale_id = 'demo'") == 1


async def test_statement_undone_by_a_deadlock_is_tried_again(
    pool: Pool,
    redis: Redis,
    inventory: Inventory,
    make_drainer: MakeDrainer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sale = await open_sale(pool, inventory)
    await reserve_for(inventory, sale, ["ann"])
    undone = [asyncpg.DeadlockDetectedError("deadlock"), asyncpg.SerializationError("conflict")]

    async def store(*args: Any) -> int:
        if undone:
            raise undone.pop()
        return await order_store.store_orders(*args)

    monkeypatch.setattr("engine.drainer.store_orders", store)
    assert await make_drainer().drain_once(block_ms=1) == 1
    assert not undone
    assert (await counters(pool))[0] == 1


async def test_oldest_of_more_sales_than_are_listed_is_drained_and_checked(
    inventory: Inventory,
    make_drainer: MakeDrainer,
    valkey: EmbeddedValkey,
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.sales.rows.SALES_LISTED_MAX", 2)
    monkeypatch.setattr("engine.drainer.STREAMS_MAX", 2)
    names = [f"sale-{number}" for number in range(5)]
    async with opened_engine(valkey, postgres_url) as engine:
        for age, name in enumerate(names):
            sale = await open_sale(engine.pool, inventory, name, opens_in=-60 * (age + 1))
            await reserve_for(inventory, sale, ["ann"])
        assert await Gauges(engine).measure_once() == 0
        assert REGISTRY.get_sample_value("doorbuster_stream_entries") == 5
        assert await drain_all(make_drainer()) == 5
        stored = await engine.pool.fetch("SELECT sale_id FROM orders ORDER BY sale_id")
        assert [row["sale_id"] for row in stored] == names
        checked: list[int | None] = []
        await check(engine, progress=lambda stage, done, total: checked.append(total))
        assert 5 in checked


async def test_backlog_after_a_trickle_is_read_in_small_parts(
    pool: Pool,
    redis: Redis,
    inventory: Inventory,
    make_drainer: MakeDrainer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.drainer.READS_MAX", 1)
    sale = await open_sale(pool, inventory, stock={"phone-black": 10_000})
    drainer = make_drainer()
    for number in range(5):
        await reserve_for(inventory, sale, [f"early-{number}"])
        assert await drainer.drain_once(block_ms=1) == 1
    for number in range(40):
        await reserve_for(inventory, sale, [f"late-{number}-{n}" for n in range(50)])
    assert await drainer.drain_once(block_ms=1) == 16
    assert await drainer.drain_once(block_ms=1) == 2  # 50 each: one statement of 100.
