"""serve.lua and attend.lua: who was passed over as absent, and when nobody may be called absent."""

from typing import Any

from redis.asyncio import Redis

from engine.admission.room.store import RoomStore
from engine.clock import ManualClock
from engine.inventory import Inventory
from engine.keys import room_keys
from tests.lua.lobby import PERIOD, SALE_ID, attend, crowd, look, open_room, places_in, stay, turn

ROOM = room_keys(SALE_ID)
JUDGED_SECONDS = 3 * PERIOD  # By then everybody who is not there is known to be absent.


async def test_who_was_passed_over_and_is_back_counts_as_admitted_and_is_waited_for(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock, units=100, over_admission=1.0)
    await crowd(store, 5000)
    few = range(4901, 5001)
    await stay(store, clock, few, seconds=JUDGED_SECONDS)
    passed = await turn(store, clock, 100, seconds=2, steps=20)
    await crowd(store, 200, "late")

    await attend(store, range(1, 5001))
    back = await look(store)
    await attend(store, range(1, 5001))
    later = await turn(store, clock, 100, seconds=30, steps=300)

    assert (passed.serving, passed.admitted) == (5000, 100)
    assert (back.serving, back.admitted) == (5000, 5000)
    assert (later.serving, later.admitted) == (5000, 5000)  # Once each, and nobody more.


async def test_only_who_was_passed_over_counts_when_he_is_back(
    store: RoomStore, redis: Redis, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await crowd(store, 100)
    await stay(store, clock, [*range(3, 30, 2), 77, 90], seconds=JUDGED_SECONDS)
    await crowd(store, 20, "new")  # Too new to be judged.
    found = await turn(store, clock, 10, seconds=2, steps=20)
    assert (found.admitted, found.serving) == (20, 104)
    noted: Any = await redis.get(ROOM.passed)
    assert places_in(noted) == sorted({*range(1, 101)} - {*range(3, 30, 2), 77, 90})

    await attend(store, [2, 3, 77, 101, 102, 110])
    assert (await look(store)).admitted == 21
    await attend(store, [1, 2, 100])
    assert (await look(store)).admitted == 23


async def test_while_a_front_is_missing_nobody_is_judged(
    redis: Redis, inventory: Inventory, clock: ManualClock
) -> None:
    one, other = (RoomStore(redis, clock, our_clock_rules=True, name=name) for name in "ab")
    await open_room(one, inventory, clock)
    await crowd(one, 100)
    for _ in range(27):
        clock.advance(seconds=5)
        await attend(one, range(1, 51))
        both = await attend(other, range(51, 101))
    missing = await stay(one, clock, range(1, 51), seconds=170)
    await attend(other, range(51, 101))
    again = await stay(one, clock, range(1, 51), seconds=10)
    dead = await stay(one, clock, range(1, 51), seconds=180 + 3 * PERIOD)
    assert (both.mark, missing.mark, again.mark, dead.mark) == (100, 0, 0, 100)
    assert len(places_in(dead.present)) == 50


async def test_a_front_that_left_is_not_missed(
    redis: Redis, inventory: Inventory, clock: ManualClock
) -> None:
    one, other = (RoomStore(redis, clock, our_clock_rules=True, name=name) for name in "ab")
    await open_room(one, inventory, clock)
    await crowd(one, 100)
    await attend(other, [])
    await stay(one, clock, range(1, 51), seconds=10)
    await other.leave(SALE_ID)
    alone = await stay(one, clock, range(1, 51), seconds=JUDGED_SECONDS)
    assert alone.mark == 100
