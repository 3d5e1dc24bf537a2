"""Operators' control of waiting rooms, on real servers: Postgres first, Redis follows."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
from redis.asyncio import Redis

from engine.admission.room.control import RoomControl
from engine.admission.room.settings import RoomChanges, RoomOrder, RoomSettings
from engine.admission.room.store import RoomStore
from engine.clock import ManualClock, SystemClock
from engine.connections import connect_redis
from engine.errors import Conflict, RedisUnavailable, UnknownSale
from engine.inventory import Inventory
from engine.keys import room_keys
from engine.recovery import recover
from engine.sales import Sale, SaleControl
from engine.servers import EmbeddedValkey
from engine.store.database import Pool
from tests.support.sales import make_inventory, open_sale
from tests.support.truth import opened_engine

SEED = bytes(range(32))
ON = RoomChanges(on=True)


@pytest.fixture
def inventory(redis: Redis) -> Inventory:
    return make_inventory(redis)


@pytest.fixture
def store(redis: Redis) -> RoomStore:
    return RoomStore(redis, SystemClock())


@pytest.fixture
def control(pool: Pool, store: RoomStore) -> RoomControl:
    return RoomControl(pool, store, SystemClock(), lambda: SEED)


async def sale_of(pool: Pool, inventory: Inventory) -> Sale:
    return await SaleControl(pool, inventory, SystemClock()).get("demo")


async def audits(pool: Pool) -> list[tuple[str, dict[str, Any]]]:
    rows = await pool.fetch(
        "SELECT actor, detail FROM audit_log WHERE action = 'change_room' ORDER BY entry_id"
    )
    return [(row["actor"], row["detail"]) for row in rows]


async def test_a_sale_without_a_room_has_one_that_is_off(
    control: RoomControl, pool: Pool, inventory: Inventory
) -> None:
    sale = await open_sale(pool, inventory)
    assert sale.room is None
    assert await control.get("demo") == RoomSettings()
    with pytest.raises(UnknownSale):
        await control.get("nothing")
    with pytest.raises(UnknownSale):
        await control.change("nothing", "olga", ON)


async def test_a_change_stands_in_postgres_and_redis_and_is_audited(
    control: RoomControl, store: RoomStore, pool: Pool, inventory: Inventory
) -> None:
    await open_sale(pool, inventory)

    made = await control.change("demo", "olga", RoomChanges(on=True, pace_max=50))
    changed = await control.change("demo", "otto", RoomChanges(pace_max=None, absent_seconds=60))

    look = await store.serve("demo", 10)
    assert look is not None
    assert (look.revision, look.on) == (changed.revision, True) == (2, True)
    assert (made.pace_max, changed.pace_max, changed.absent_seconds) == (50, None, 60)
    assert changed == await control.get("demo") == (await sale_of(pool, inventory)).room
    assert await audits(pool) == [
        ("olga", {"on": {"from": False, "to": True}, "pace_max": {"from": None, "to": 50}}),
        (
            "otto",
            {"pace_max": {"from": 50, "to": None}, "absent_seconds": {"from": 45, "to": 60}},
        ),
    ]


async def test_what_changes_nothing_is_not_recorded(
    control: RoomControl, pool: Pool, inventory: Inventory
) -> None:
    await open_sale(pool, inventory)
    assert await control.change("demo", "olga", RoomChanges(on=False)) == RoomSettings()
    await control.change("demo", "olga", ON)
    assert (await control.change("demo", "olga", ON)).revision == 1
    assert len(await audits(pool)) == 1


async def test_the_seed_is_committed_to_from_the_start_and_never_changes(
    control: RoomControl, store: RoomStore, pool: Pool, inventory: Inventory
) -> None:
    await open_sale(pool, inventory, opens_in=3600)
    settings = await control.change("demo", "olga", RoomChanges(on=True, order=RoomOrder.DRAW))
    assert settings.seed_hash == sha256(SEED).hexdigest()
    other = RoomControl(pool, store, SystemClock(), lambda: bytes(32))
    assert (await other.change("demo", "olga", RoomChanges(captcha=True))).seed_hash == (
        settings.seed_hash
    )
    look = await store.serve("demo", 10)
    assert look is not None
    assert look.seed is None
    await SaleControl(pool, inventory, SystemClock()).open("demo", "olga", now=True)
    look = await store.serve("demo", 10)
    while look is not None and look.seed is None:  # A turn is due every 50 ms.
        look = await store.serve("demo", 10)
    assert look is not None
    assert sha256(bytes.fromhex(look.seed or "")).hexdigest() == settings.seed_hash


async def test_the_order_is_settled_once_the_sale_has_opened(
    control: RoomControl, pool: Pool, inventory: Inventory
) -> None:
    await open_sale(pool, inventory)
    draw = RoomChanges(on=True, order=RoomOrder.DRAW)
    with pytest.raises(Conflict, match="settled"):
        await control.change("demo", "olga", draw)
    assert (await control.get("demo")).on is False
    await open_sale(pool, inventory, "later", opens_in=60)
    assert (await control.change("later", "olga", draw)).order is RoomOrder.DRAW


async def test_a_sale_may_come_with_its_room(
    control: RoomControl, store: RoomStore, pool: Pool, inventory: Inventory
) -> None:
    sale = await open_sale(pool, inventory, room={"order": "draw", "over_admission": 1.5})
    assert sale.room is not None
    assert (sale.room.on, sale.room.order, sale.room.over_admission) == (True, "draw", 1.5)
    assert sale.room.revision == 1
    assert len(sale.room.seed_hash) == 64
    assert await store.serve("demo", 1) is None

    assert await control.sync() == 1

    look = await store.serve("demo", 1)
    assert look is not None
    assert look.on
    assert await control.sync() == 0


async def test_two_rooms_have_different_seeds(pool: Pool, inventory: Inventory) -> None:
    one = await open_sale(pool, inventory, "one", room={})
    two = await open_sale(pool, inventory, "two", room={})
    assert one.room is not None
    assert two.room is not None
    assert one.room.seed_hash != two.room.seed_hash


async def test_a_change_while_redis_is_away_is_recorded_and_made_up_for(
    control: RoomControl, store: RoomStore, pool: Pool, inventory: Inventory
) -> None:
    await open_sale(pool, inventory)
    client = connect_redis("unix:///nowhere/redis.sock", 1)
    away = RoomControl(pool, RoomStore(client, SystemClock()), SystemClock())
    with pytest.raises(RedisUnavailable, match="Recorded"):
        await away.change("demo", "olga", ON)
    await client.aclose()

    assert (await control.get("demo")).on
    assert await control.sync() == 1
    look = await store.serve("demo", 1)
    assert look is not None
    assert look.on


async def test_sync_gives_back_what_redis_lost(
    control: RoomControl, redis: Redis, pool: Pool, inventory: Inventory
) -> None:
    await open_sale(pool, inventory)
    await control.change("demo", "olga", ON)
    store = RoomStore(redis, SystemClock())
    for name in ("ann", "bob", "cid"):
        await store.enter("demo", name, holds_ticket=False)
    await control.sync()

    await redis.flushdb()
    assert await control.sync() == 1

    # A front that just started knows of nobody; its first number is a new one all the same.
    fresh = RoomStore(redis, SystemClock())
    look = await fresh.serve("demo", 0)
    assert look is not None
    assert look.issued == 3


async def test_the_draw_is_remembered(
    control: RoomControl, redis: Redis, pool: Pool, inventory: Inventory
) -> None:
    await open_sale(pool, inventory, opens_in=3600)
    await control.change("demo", "olga", RoomChanges(on=True, order=RoomOrder.DRAW))
    clock = ManualClock(SystemClock().now_ms())
    store = RoomStore(redis, clock, our_clock_rules=True)
    clock.advance(seconds=3000)
    await store.enter("demo", "ann", holds_ticket=False)
    clock.advance(seconds=700)
    await store.serve("demo", 0)
    await store.enter("demo", "bob", holds_ticket=False)

    await control.sync()
    await redis.flushdb()
    await SaleControl(pool, inventory, SystemClock()).sync()
    await control.sync()

    look = await RoomStore(redis, clock, our_clock_rules=True).serve("demo", 0)
    assert look is not None
    assert (look.drawn, look.issued, look.seed) == (1, 2, SEED.hex())


async def test_rooms_of_sales_that_are_long_over_are_left_alone(
    control: RoomControl, redis: Redis, pool: Pool, inventory: Inventory
) -> None:
    await open_sale(pool, inventory)
    await control.change("demo", "olga", ON)
    await pool.execute(
        "UPDATE sales SET opens_at = $1, closes_at = $2",
        datetime.now(UTC) - timedelta(days=3),
        datetime.now(UTC) - timedelta(days=2),
    )
    await redis.flushdb()
    assert await control.sync() == 0
    assert await redis.dbsize() == 0


async def test_a_recovery_leaves_the_room_as_it_is(
    valkey: EmbeddedValkey, postgres_url: str, redis: Redis
) -> None:
    async with opened_engine(valkey, postgres_url) as engine:
        await open_sale(engine.pool, engine.inventory)
        store = RoomStore(redis, SystemClock())
        control = RoomControl(engine.pool, store, SystemClock())
        await control.change("demo", "olga", ON)
        await store.enter("demo", "ann", holds_ticket=False)
        before = await redis.hmget(room_keys("demo").room, "revision", "issued")  # type: ignore[misc]

        await recover(engine, "demo")

        assert await redis.hmget(room_keys("demo").room, "revision", "issued") == before  # type: ignore[misc]
        kept = await store.enter("demo", "ann", holds_ticket=False)
        assert kept == (1, True)


async def test_a_room_left_over_from_another_postgres_is_replaced(
    control: RoomControl, store: RoomStore, redis: Redis, pool: Pool, inventory: Inventory
) -> None:
    await open_sale(pool, inventory)
    await store.furnish("demo", RoomSettings(revision=9, on=True), "ff" * 32)
    await store.enter("demo", "ann", holds_ticket=False)
    await control.change("demo", "olga", ON)
    assert await store.standings(["demo"]) == [(1, SEED.hex(), (0, 0, None))]

    await redis.hset(room_keys("demo").room, mapping={"seed": "ff" * 32, "issued": 5})  # type: ignore[misc]
    assert await control.sync() == 1

    assert await store.standings(["demo"]) == [(1, SEED.hex(), (0, 0, None))]
    assert await pool.fetchval("SELECT issued FROM sale_rooms") == 0
