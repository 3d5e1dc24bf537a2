"""A glance at a waiting room shows it and moves nothing."""

from redis.asyncio import Redis

from engine.admission.room.glance import glance
from engine.admission.room.settings import RoomSettings
from engine.admission.room.store import RoomStore
from engine.clock import ManualClock, SystemClock
from engine.keys import room_keys
from engine.store.database import Pool
from tests.support.sales import make_inventory, open_sale

SEED = "00" * 32


async def test_a_glance_shows_the_last_turn_and_changes_nothing(redis: Redis, pool: Pool) -> None:
    clock = ManualClock(SystemClock().now_ms())
    await open_sale(pool, make_inventory(redis))
    store = RoomStore(redis, clock, our_clock_rules=True)
    await store.furnish("demo", RoomSettings(revision=1, on=True), SEED)
    assert await glance(redis, "demo") is None  # Nobody has turned the crank.
    for user in ("u1", "u2", "u3"):
        await store.enter("demo", user, holds_ticket=False)
    await store.serve("demo", 10.0)
    clock.advance(seconds=0.1)
    turned = await store.serve("demo", 10.0)
    assert turned is not None
    assert turned.serving == 1
    before = await redis.hgetall(room_keys("demo").room)
    clock.advance(seconds=0.1)
    seen = await glance(redis, "demo")
    assert seen is not None
    assert seen._replace(now_ms=turned.now_ms) == turned
    assert await redis.hgetall(room_keys("demo").room) == before
    after = await store.serve("demo", 10.0)
    assert after is not None
    assert after.serving == 2  # The time that passed was not used up.


async def test_a_sale_without_a_room_shows_none(redis: Redis) -> None:
    assert await glance(redis, "nope") is None
