"""serve.lua's stock rule: how many people are let in for the units that are left."""

from typing import Any

import pytest
from redis.asyncio import Redis

from engine.admission.room.buying import Buying
from engine.admission.room.store import RoomStore
from engine.clock import ManualClock
from engine.inventory import Inventory
from engine.keys import room_keys
from tests.lua.lobby import SALE_ID, crowd, open_room, turn
from tests.lua.shelf import SALE, ask, wish

ROOM = room_keys(SALE_ID)
UNLIMITED = float("inf")


async def test_people_let_in_at_once_do_not_outnumber_the_units_by_more_than_the_factor(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock, units=100, over_admission=1.2)
    await crowd(store, 1000)
    found = await turn(store, clock, UNLIMITED, seconds=0.1, steps=1)
    assert (found.admitted, found.available) == (120, 100)


async def test_who_lets_it_be_makes_way_little_by_little(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock, units=100, over_admission=1.2, admission_seconds=60)
    await crowd(store, 1000)
    admitted = [
        (await turn(store, clock, UNLIMITED, seconds=seconds, steps=round(10 * seconds))).admitted
        for seconds in (0.1, 6, 6, 12)
    ]
    # A weight of 120 is kept up, of which 120 / 12 s wane.
    assert admitted == [pytest.approx(n, abs=3) for n in (120, 180, 240, 360)]


async def test_the_last_unit_is_not_offered_twice_at_the_same_moment(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock, units=1, over_admission=1.0, admission_seconds=60)
    await crowd(store, 10)
    admitted = [
        (await turn(store, clock, UNLIMITED, seconds=seconds, steps=80)).admitted
        for seconds in (8, 8, 60)
    ]
    # Half a person is left after 12 s x ln 2 = 8.3 s; the next two together after 12 s x ln 3.
    assert admitted[:2] == [1, 2]
    assert 5 <= admitted[2] <= 7


async def test_who_reserved_makes_room_for_nobody_and_who_lets_it_be_does(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    changes: dict[str, Any] = {"over_admission": 1.0, "admission_seconds": 60}
    await open_room(store, inventory, clock, units=10, **changes)
    await crowd(store, 1000)
    assert (await turn(store, clock, UNLIMITED, seconds=0.1, steps=1)).admitted == 10
    buyers = [wish(f"user-{n}", "black*1") for n in range(6)]
    assert await ask(inventory, *buyers, tickets=range(1, 7)) == ["RESERVED"] * 6

    soon = await turn(store, clock, 100, seconds=10, steps=100)
    later = await turn(store, clock, 100, seconds=5, steps=50)
    late = [wish("user-7", "black*1"), wish("user-8", "black*1")]

    # Four undecided for four units: until all ten weigh less than the four who are left.
    assert (soon.admitted, soon.used, soon.available, soon.reserved) == (10, 6, 4, 6)
    assert 10 < later.admitted <= 12
    assert await ask(inventory, *late, tickets=[8, 9]) == ["RESERVED"] * 2


async def test_buyers_who_are_quick_are_not_waited_for(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock, units=20, over_admission=1.0)
    await crowd(store, 100)
    await turn(store, clock, 100, seconds=0.1, steps=1)
    buyers = [wish(f"user-{n}", "black*1") for n in range(10)]
    assert await ask(inventory, *buyers, tickets=range(1, 11)) == ["RESERVED"] * 10
    found = await turn(store, clock, UNLIMITED, seconds=0.1, steps=1)
    assert (found.available, found.admitted) == (10, 20)


async def test_a_clock_set_back_makes_way_for_nobody(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    window = {"opens_at_ms": clock.now_ms() - 10**8, "closes_at_ms": clock.now_ms() + 10**8}
    await open_room(store, inventory, clock, units=100, over_admission=1.0, sale=window)
    await crowd(store, 1000)
    assert (await turn(store, clock, UNLIMITED, seconds=0.1, steps=1)).admitted == 100
    clock.advance(seconds=-3600)
    assert (await turn(store, clock, UNLIMITED, seconds=0.2, steps=2)).admitted <= 101


async def test_the_forecast_weighs_the_admitted_as_the_script_does(
    store: RoomStore, redis: Redis, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock, units=500, admission_seconds=60)
    await crowd(store, 2000)
    buying = Buying()
    for pace in [20.0] * 50 + [0.0] * 50 + [70.0] * 100:
        buying.keep(await turn(store, clock, pace, seconds=0.1, steps=1), 60)
    assert 100 < buying.deciding < 700
    script = float(await redis.hget(ROOM.room, "deciding") or 0)
    assert buying.deciding == pytest.approx(script, rel=0.01)


async def test_how_much_people_take_decides_how_many_are_let_in(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    sale = {"per_user_max": 5}
    await open_room(store, inventory, clock, units=100, over_admission=1.0, sale=sale)
    await crowd(store, 1000)
    await turn(store, clock, 10)
    buyers = [wish(f"user-{n}", "black*5") for n in range(10)]
    assert await ask(inventory, *buyers, tickets=range(1, 11)) == ["RESERVED"] * 10
    found = await turn(store, clock, 100)
    assert (found.available, found.admitted) == (50, 20)  # Five each: ten people more.


async def test_nobody_is_let_in_while_all_is_reserved_and_some_are_when_units_come_back(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock, units=2, over_admission=10.0)
    await crowd(store, 100)
    await turn(store, clock, 10, seconds=0.2, steps=2)
    request = wish("user-0", "black*2")
    assert await ask(inventory, request, tickets=[1]) == ["RESERVED"]

    none_left = await turn(store, clock, 10, seconds=10, steps=100)
    released = ("user-0", request.reservation_id, "expired")
    assert await inventory.release(SALE, [released]) == ["RELEASED"]
    some_left = await turn(store, clock, 10, seconds=10, steps=100)

    assert (none_left.available, none_left.rate) == (0, 0)
    assert none_left.admitted < some_left.admitted
