"""Operators' control of sales, and the copies that the front reads, on real servers."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from redis.asyncio import Redis

from engine.clock import ManualClock, SystemClock
from engine.connections import connect_redis
from engine.errors import (
    Conflict,
    Invalid,
    RedisUnavailable,
    StaleEpoch,
    StoreUnavailable,
    UnknownSale,
)
from engine.inventory import Inventory, StockSnapshot
from engine.inventory.inventory import Counters
from engine.keys import shard_keys
from engine.model import Outcome, Refused, Reserved, SaleState
from engine.recovery import recover
from engine.sales import LiveStock, SaleControl, SaleDirectory, SalePhase, parse_sale_document
from engine.servers import EmbeddedValkey
from engine.store.database import Pool, open_pool
from tests.support.sales import make_inventory, open_sale, reserve_for, sale_document
from tests.support.truth import opened_engine

KEYS = shard_keys("demo")


@pytest.fixture
def inventory(redis: Redis) -> Inventory:
    return make_inventory(redis)


@pytest.fixture
def control(pool: Pool, inventory: Inventory) -> SaleControl:
    return SaleControl(pool, inventory, SystemClock())


@pytest.fixture
async def away(pool: Pool) -> AsyncIterator[SaleControl]:
    """A control that finds no Redis."""
    client = connect_redis("unix:///nowhere/redis.sock", 1)
    yield SaleControl(pool, make_inventory(client), SystemClock())
    await client.aclose()


async def audit(pool: Pool) -> list[tuple[str, str]]:
    rows = await pool.fetch("SELECT actor, action FROM audit_log ORDER BY entry_id")
    return [(row["actor"], row["action"]) for row in rows]


async def ledger(pool: Pool) -> list[tuple[str, int, str, str | None]]:
    rows = await pool.fetch("SELECT sku, units, reason, reference FROM ledger ORDER BY line_id")
    return [tuple(row) for row in rows]


async def test_created_sale_stands_in_postgres_and_sells_in_redis(
    control: SaleControl, pool: Pool, inventory: Inventory
) -> None:
    document = parse_sale_document(sale_document(stock={"phone-black": 5, "case": 9}))
    sale = await control.create(document, "olga")
    assert sale.launched
    assert sale.items == document.items
    assert (sale.opens_at, sale.closes_at) == (document.opens_at, document.closes_at)
    assert sale == await control.get("demo")
    assert await audit(pool) == [("olga", "create")]
    assert await ledger(pool) == [
        ("phone-black", 5, "created", None),
        ("case", 9, "created", None),
    ]
    assert isinstance((await reserve_for(inventory, sale, ["a"]))[0], Reserved)


async def test_second_sale_of_a_name_is_refused_and_changes_nothing(
    control: SaleControl, pool: Pool, inventory: Inventory
) -> None:
    sale = await open_sale(pool, inventory)
    other = parse_sale_document(sale_document(stock={"tablet": 1}))
    with pytest.raises(Conflict) as refused:
        await control.create(other, "olga")
    assert refused.value.code == "sale_exists"
    assert await control.get("demo") == sale
    assert len(await audit(pool)) == 1


async def test_every_step_of_a_sale_reaches_redis_with_its_audit_line(
    control: SaleControl, pool: Pool, inventory: Inventory
) -> None:
    sale = await open_sale(pool, inventory)
    seen = []
    for step in (control.pause, control.resume, control.close, control.open):
        await step("demo", "olga")
        [answer] = await reserve_for(inventory, sale, [f"buyer-{len(seen)}"])
        seen.append(answer.outcome if isinstance(answer, Refused) else "sells")
    assert seen == [Outcome.PAUSED, "sells", Outcome.ENDED, "sells"]
    actions = [action for _, action in await audit(pool)]
    assert actions == ["create", "pause", "resume", "close", "open"]


async def test_repeated_step_is_fine_and_leaves_no_trace(
    control: SaleControl, pool: Pool, inventory: Inventory
) -> None:
    await open_sale(pool, inventory)
    first = await control.pause("demo", "olga")
    assert await control.pause("demo", "olga") == first
    assert len(await audit(pool)) == 2


async def test_open_now_moves_an_opening_still_to_come(
    control: SaleControl, pool: Pool, inventory: Inventory
) -> None:
    sale = await open_sale(pool, inventory, opens_in=3600)
    assert await reserve_for(inventory, sale, ["a"]) == [Refused(Outcome.NOT_STARTED)]
    await control.open("demo", "olga")
    assert await reserve_for(inventory, sale, ["a"]) == [Refused(Outcome.NOT_STARTED)]
    opened = await control.open("demo", "olga", now=True)
    assert opened.opens_at < sale.opens_at
    assert isinstance((await reserve_for(inventory, sale, ["a"]))[0], Reserved)


async def test_ended_sale_opens_only_after_it_was_extended(
    control: SaleControl, pool: Pool, inventory: Inventory
) -> None:
    sale = await open_sale(pool, inventory, opens_in=-3600, closes_in=-60)
    with pytest.raises(Conflict) as refused:
        await control.open("demo", "olga")
    assert refused.value.code == "sale_ended"
    later = datetime.now(UTC) + timedelta(hours=1)
    assert (await control.extend("demo", later, "olga")).closes_at == later
    assert isinstance((await reserve_for(inventory, sale, ["a"]))[0], Reserved)


async def test_window_never_ends_earlier_than_promised(
    control: SaleControl, pool: Pool, inventory: Inventory
) -> None:
    sale = await open_sale(pool, inventory)
    for end in (sale.closes_at - timedelta(seconds=1), datetime(2030, 1, 1)):  # noqa: DTZ001
        with pytest.raises(Invalid) as refused:
            await control.extend("demo", end, "olga")
        assert refused.value.field == "closes_at"
    assert await control.get("demo") == sale


async def test_closed_sale_is_neither_paused_nor_resumed(
    control: SaleControl, pool: Pool, inventory: Inventory
) -> None:
    await open_sale(pool, inventory)
    await control.close("demo", "olga")
    for step in (control.pause, control.resume):
        with pytest.raises(Conflict) as refused:
            await step("demo", "olga")
        assert refused.value.code == "sale_closed"


async def test_restock_sells_more_units_once_per_key(
    control: SaleControl, pool: Pool, inventory: Inventory
) -> None:
    sale = await open_sale(pool, inventory, stock={"phone-black": 1})
    await reserve_for(inventory, sale, ["a"])
    for _ in range(2):
        restocked = await control.restock("demo", "phone-black", 3, "olga", key="monday")
        assert restocked.items[0].units == 4
    assert (await inventory.snapshot("demo")).stock == {"phone-black": Counters(3, 1, 0)}
    assert (await ledger(pool))[1:] == [("phone-black", 3, "restocked", "monday")]
    assert await audit(pool) == [("tester", "create"), ("olga", "restock")]
    with pytest.raises(Conflict) as refused:
        await control.restock("demo", "phone-black", 4, "olga", key="monday")
    assert refused.value.code == "idempotency_mismatch"


async def test_concurrent_restocks_with_one_key_count_once(
    control: SaleControl, pool: Pool, inventory: Inventory
) -> None:
    await open_sale(pool, inventory, stock={"phone-black": 1})
    await asyncio.gather(
        *(control.restock("demo", "phone-black", 3, "olga", key="monday") for _ in range(5))
    )
    assert (await inventory.snapshot("demo")).stock == {"phone-black": Counters(4, 0, 0)}


@pytest.mark.parametrize(
    ("sku", "units", "key", "field"),
    [
        ("tablet", 1, None, "sku"),
        ("phone-black", 0, None, "units"),
        ("phone-black", -1, None, "units"),
        ("phone-black", 1_000_000_000, None, "units"),
        ("phone-black", 1, "", "key"),
        ("phone-black", 1, "k" * 129, "key"),
    ],
)
async def test_bad_restock_is_refused_and_changes_nothing(  # noqa: PLR0917  # a table
    control: SaleControl, pool: Pool, sku: str, units: int, key: str | None, field: str
) -> None:
    sale = await control.create(parse_sale_document(sale_document()), "olga")
    with pytest.raises(Invalid) as refused:
        await control.restock("demo", sku, units, "olga", key)
    assert refused.value.field == field
    assert await control.get("demo") == sale
    assert len(await audit(pool)) == 1


async def test_every_call_on_an_unknown_sale_says_so(control: SaleControl) -> None:
    calls = [
        control.get("none"),
        control.open("none", "olga"),
        control.pause("none", "olga"),
        control.close("none", "olga"),
        control.extend("none", datetime.now(UTC), "olga"),
        control.restock("none", "case", 1, "olga"),
    ]
    for call in calls:
        with pytest.raises(UnknownSale):
            await call


async def test_change_without_redis_is_recorded_and_synced_later(
    control: SaleControl, away: SaleControl, pool: Pool, inventory: Inventory
) -> None:
    document = parse_sale_document(sale_document(stock={"phone-black": 5}))
    with pytest.raises(RedisUnavailable, match="Recorded; takes effect when Redis answers"):
        await away.create(document, "olga")
    assert (await control.get("demo")).phase(SystemClock().now_ms()) is SalePhase.RECOVERING
    assert await control.sync() == 1
    assert await control.sync() == 0

    for call in (away.pause("demo", "olga"), away.restock("demo", "phone-black", 2, "olga")):
        with pytest.raises(RedisUnavailable, match="Recorded"):
            await call
    assert await control.sync() == 1
    snapshot = await inventory.snapshot("demo")
    assert snapshot.state is SaleState.PAUSED
    assert snapshot.stock == {"phone-black": Counters(7, 0, 0)}


async def test_old_copy_of_a_sale_changes_nothing(
    control: SaleControl, pool: Pool, inventory: Inventory
) -> None:
    old = await open_sale(pool, inventory, stock={"phone-black": 5})
    await control.pause("demo", "olga")
    await control.restock("demo", "phone-black", 1, "olga")
    before = await inventory.snapshot("demo")
    await control.publish(old)
    assert await inventory.snapshot("demo") == before


async def test_lost_sale_is_never_put_up_a_second_time(
    control: SaleControl, pool: Pool, inventory: Inventory, redis: Redis
) -> None:
    await open_sale(pool, inventory)
    await redis.flushall()
    with pytest.raises(StaleEpoch, match="Recorded; takes effect once the sale is recovered"):
        await control.pause("demo", "olga")
    assert await control.sync() == 0
    assert await redis.keys() == []


async def test_list_names_the_newest_window_first(
    control: SaleControl, pool: Pool, inventory: Inventory
) -> None:
    for name, opens_in in (("old", -900), ("new", 900), ("present", 0)):
        await open_sale(pool, inventory, name, opens_in=opens_in)
    assert [sale.sale_id for sale in await control.list()] == ["new", "present", "old"]


async def test_phase_follows_the_window_the_state_and_the_fence(
    pool: Pool, inventory: Inventory
) -> None:
    sale = await open_sale(pool, inventory)
    inside, late = sale.opens_at_ms, sale.closes_at_ms
    replace = msgspec.structs.replace
    assert sale.phase(inside - 1) is SalePhase.SCHEDULED
    assert sale.phase(inside) is SalePhase.OPEN
    assert sale.phase(late) is SalePhase.ENDED
    assert replace(sale, state=SaleState.PAUSED).phase(inside) is SalePhase.PAUSED
    assert replace(sale, state=SaleState.CLOSED).phase(inside) is SalePhase.CLOSED
    assert replace(sale, fenced="lost").phase(inside) is SalePhase.RECOVERING
    assert sale.phase(inside, fenced_in_redis=True) is SalePhase.RECOVERING


async def test_stock_of_an_earlier_sale_of_the_same_name_is_never_sold_again(
    valkey: EmbeddedValkey, redis: Redis, postgres_url: str
) -> None:
    async with opened_engine(valkey, postgres_url) as engine:
        before = await open_sale(engine.pool, engine.inventory, stock={"phone-black": 2})
        await reserve_for(engine.inventory, before, ["ann"])
        async with engine.pool.acquire() as connection:  # Postgres is made anew; Redis is kept.
            await connection.execute("SET session_replication_role = replica")
            await connection.execute(
                "DELETE FROM ledger; DELETE FROM sale_items; DELETE FROM sales"
            )
            await connection.execute("RESET session_replication_role")

        with pytest.raises(StaleEpoch, match="once the sale is recovered"):
            await open_sale(engine.pool, engine.inventory, stock={"phone-black": 2})

        sale = await engine.sales.get("demo")
        assert sale.fenced is not None
        assert "Redis holds another sale of this name" in sale.fenced
        assert await reserve_for(engine.inventory, sale, ["bob"]) == [Refused(Outcome.STALE_EPOCH)]
        await recover(engine, "demo")
        sale = await engine.sales.get("demo")
        answers = await reserve_for(engine.inventory, sale, ["bob", "cid"])
        assert isinstance(answers[0], Reserved)
        assert answers[1] == Refused(Outcome.ALL_RESERVED)  # Ann has kept hers.


@pytest.mark.parametrize("restocked", [0, 3])
async def test_launch_that_was_cut_off_goes_on(
    control: SaleControl, pool: Pool, inventory: Inventory, redis: Redis, restocked: int
) -> None:
    sale = await open_sale(pool, inventory, stock={"phone-black": 2})
    await redis.hset(KEYS.config, mapping={"revision": 0, "state": "paused"})
    await pool.execute("UPDATE sales SET launched = false")
    await pool.execute("UPDATE sale_items SET stocked = stocked + $1", restocked)
    assert await control.sync() == 1
    finished = await control.get("demo")
    assert finished.launched
    assert finished.fenced is None
    assert (await inventory.snapshot("demo")).stock == {
        "phone-black": Counters(2 + restocked, 0, 0)
    }
    assert isinstance((await reserve_for(inventory, sale, ["ann"]))[0], Reserved)


async def test_directory_is_at_most_a_second_behind(
    control: SaleControl, pool: Pool, inventory: Inventory
) -> None:
    clock = ManualClock()
    directory = SaleDirectory(pool, clock)
    assert directory.peek("demo") is None
    assert await directory.get("demo") is None
    sale = await open_sale(pool, inventory)
    clock.advance(seconds=0.2)
    assert await directory.get("demo") == sale
    assert directory.peek("demo") == sale
    paused = await control.pause("demo", "olga")
    assert directory.peek("demo") == sale
    clock.advance(seconds=1)
    assert directory.peek("demo") is None
    assert await directory.get("demo") == paused
    closed = await control.close("demo", "olga")
    directory.forget("demo")
    assert await directory.get("demo") == closed
    assert await directory.all() == [closed]


async def test_directory_bridges_a_postgres_that_is_away(
    postgres_url: str, pool: Pool, inventory: Inventory
) -> None:
    clock = ManualClock()
    sale = await open_sale(pool, inventory)
    own = await open_pool(postgres_url, 2)
    directory = SaleDirectory(own, clock)
    assert await directory.get("demo") == sale
    await own.close()
    clock.advance(seconds=500)
    assert await directory.get("demo") == sale
    clock.advance(seconds=101)
    with pytest.raises(StoreUnavailable):
        await directory.get("demo")


async def test_crowd_shares_one_look_at_the_stock(redis: Redis) -> None:
    looks = 0

    class Counting(Inventory):
        async def snapshot(self, sale_id: str) -> StockSnapshot:
            nonlocal looks
            looks += 1
            await asyncio.sleep(0)
            return StockSnapshot({}, {"phone-black": Counters(looks, 0, 0)})

    clock = ManualClock()
    live = LiveStock(Counting(redis, clock, batch_max=1, queue_max=1), clock)
    waiting = [asyncio.create_task(live.get("demo")) for _ in range(100)]
    await asyncio.sleep(0)
    waiting[0].cancel()  # One buyer who leaves takes nothing from the others.
    answers = await asyncio.gather(*waiting[1:])
    assert looks == 1
    assert {answer.stock["phone-black"].available for answer in answers} == {1}
    clock.advance(seconds=0.11)
    assert (await live.get("demo")).stock["phone-black"].available == 2
