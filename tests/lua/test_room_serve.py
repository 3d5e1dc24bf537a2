"""serve.lua and attend.lua: at the pace, in order, past the absent, and never beyond the stock."""

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from engine.admission.room.settings import RoomOrder
from engine.admission.room.store import Numbers, RoomStore, read_look
from engine.clock import ManualClock
from engine.errors import RedisUnavailable
from engine.inventory import Inventory
from engine.keys import room_keys, serve_keys
from engine.lua import LuaScript
from engine.model import SaleState
from tests.lua.lobby import (
    PERIOD,
    SALE_ID,
    SEED,
    attend,
    crowd,
    enter,
    look,
    open_room,
    places_in,
    room_settings,
    stay,
    turn,
)
from tests.lua.shelf import KEYS, SALE, ask, open_settings, put_up, wish

ROOM = room_keys(SALE_ID)
JUDGED_SECONDS = 3 * PERIOD  # By then everybody who is not there is known to be absent.
UNLIMITED = float("inf")


async def test_people_are_served_in_order_at_the_pace(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await crowd(store, 1000)

    found = await turn(store, clock, 50, seconds=10, steps=100)

    assert found.serving == found.admitted == 500
    assert (found.issued, found.waiting, found.rate) == (1000, 500, 50)


@pytest.mark.parametrize("pace", [0.1, 0.7, 3.3, 19.9])
async def test_a_slow_pace_is_kept_although_a_turn_serves_less_than_one(
    store: RoomStore, inventory: Inventory, clock: ManualClock, pace: float
) -> None:
    await open_room(store, inventory, clock)
    await crowd(store, 500)
    found = await turn(store, clock, pace, seconds=20, steps=200)
    assert abs(found.admitted - 20 * pace) <= 1


@pytest.mark.parametrize(("pace_max", "served"), [(7, 70), (1000, 300), (None, 300)])
async def test_the_sales_own_ceiling_holds_as_well(
    store: RoomStore,
    inventory: Inventory,
    clock: ManualClock,
    pace_max: int | None,
    served: int,
) -> None:
    await open_room(store, inventory, clock, pace_max=pace_max)
    await crowd(store, 1000)
    assert (await turn(store, clock, 30, seconds=10, steps=100)).admitted == served


async def test_no_limit_serves_everybody_at_once(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await crowd(store, 3000)
    assert (await turn(store, clock, UNLIMITED, seconds=0.1, steps=1)).serving == 3000


async def test_whoever_calls_how_often_the_pace_is_the_same(
    store: RoomStore, redis: Redis, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await crowd(store, 1000)
    fronts = [store, *(RoomStore(redis, clock, our_clock_rules=True) for _ in range(4))]

    for _ in range(1000):
        clock.advance(seconds=0.01)
        await asyncio.gather(*(front.serve(SALE_ID, 20) for front in fronts))

    looks = await asyncio.gather(*(front.serve(SALE_ID, 20) for front in fronts))
    assert abs(looks[0].admitted - 200) <= 1  # type: ignore[union-attr]
    assert len(set(looks)) == 1


async def test_between_two_turns_a_call_only_looks(
    store: RoomStore, redis: Redis, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await crowd(store, 100)
    clock.advance(seconds=0.049)
    before: Any = await redis.hgetall(ROOM.room)  # type: ignore[misc]
    assert (await look(store, UNLIMITED)).serving == 0
    assert await redis.hgetall(ROOM.room) == before  # type: ignore[misc]
    clock.advance(seconds=0.001)
    assert (await look(store, UNLIMITED)).serving == 100


@pytest.mark.parametrize("hours", [1, 100])
async def test_time_without_a_call_or_a_clock_set_ahead_is_made_up_for_a_second_only(
    store: RoomStore, inventory: Inventory, clock: ManualClock, hours: int
) -> None:
    closing = clock.now_ms() + 1_000_000_000_000
    await open_room(store, inventory, clock, sale={"closes_at_ms": closing})
    await crowd(store, 1000)
    clock.advance(seconds=3600 * hours)
    assert (await look(store, 50)).admitted == 50


@pytest.mark.parametrize("seconds", [0.2, 60, 3600, 86_400])
async def test_a_clock_set_back_takes_nobody_back_and_jams_nothing(
    store: RoomStore, inventory: Inventory, clock: ManualClock, seconds: float
) -> None:
    window = {"opens_at_ms": clock.now_ms() - 10**8, "closes_at_ms": clock.now_ms() + 10**8}
    await open_room(store, inventory, clock, units=1000, sale=window, admission_seconds=10)
    await crowd(store, 1000)
    before = await turn(store, clock, 50)

    clock.advance(seconds=-seconds)
    stepped = await look(store, 50)
    after = await turn(store, clock, 50)

    assert before.serving == stepped.serving == 50
    assert after.serving == 100
    assert (await turn(store, clock, 50, seconds=15, steps=150)).serving == 850


async def test_what_nobody_was_there_to_take_is_not_saved_up(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await turn(store, clock, 100, seconds=60, steps=600)
    await crowd(store, 500)
    clock.advance(seconds=0.1)
    assert (await look(store, 100)).admitted == 11  # What a tenth of a second grants, and one.


@pytest.mark.parametrize(
    "change",
    [
        {"state": SaleState.PAUSED},
        {"state": SaleState.CLOSED},
        {"closes_at_ms": 1_700_000_000_000},
        {"opens_at_ms": 1_700_000_060_000},
    ],
)
async def test_nobody_is_served_while_nobody_may_buy(
    store: RoomStore, inventory: Inventory, clock: ManualClock, change: dict[str, Any]
) -> None:
    await open_room(store, inventory, clock)
    await crowd(store, 10)
    await inventory.configure(SALE, open_settings(clock, revision=2, **change))

    shut = await turn(store, clock, 100)
    await inventory.configure(SALE, open_settings(clock, revision=3))
    clock.advance(seconds=0.05)

    assert (shut.serving, shut.rate, shut.waiting) == (0, 0, 10)
    assert (await look(store, 100)).serving == 5  # Not what was missed meanwhile.


async def test_nobody_is_served_behind_a_fence_and_the_room_survives_it(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await crowd(store, 100)
    before = await turn(store, clock, 20)
    later = SALE._replace(epoch=2)
    assert await inventory.fence(later) == "FENCED"
    fenced = await turn(store, clock, 20)
    stock = (await inventory.snapshot(SALE_ID)).stock
    assert await inventory.launch(later, open_settings(clock), stock) == "LAUNCHED"
    after = await turn(store, clock, 20)

    assert fenced.state is SaleState.DRAINING
    assert (before.serving, fenced.serving, after.serving) == (20, 20, 40)
    assert await enter(store, "user-99", "new") == ["KEPT 100", "ENTERED 101"]


async def test_nobody_is_served_while_nobody_drains(
    store: RoomStore, redis: Redis, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await crowd(store, 100)
    async with redis.pipeline(transaction=False) as pipe:
        for _ in range(10_001):
            pipe.xadd(KEYS.orders, {"batch": ""})
        await pipe.execute()

    assert (await turn(store, clock, 20)).serving == 0
    await redis.xtrim(KEYS.orders, maxlen=10_000, approximate=False)
    assert (await turn(store, clock, 20)).serving == 20


async def test_absent_people_are_passed_without_taking_anybodys_turn(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await crowd(store, 1000)
    there = range(4, 1001, 4)
    attendance = await stay(store, clock, there, seconds=JUDGED_SECONDS)
    assert attendance.mark == 1000
    assert places_in(attendance.present) == [*there]

    found = await turn(store, clock, 10, seconds=5, steps=50)

    assert found.admitted == 50
    assert 200 <= found.serving < 204  # The fiftieth of those there stands in place 200.
    assert found.waiting == 200


async def test_a_thousand_absent_in_a_row_do_not_jam_a_slow_room(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await crowd(store, 1001)
    await stay(store, clock, [1001], seconds=JUDGED_SECONDS)
    assert (await turn(store, clock, 2, seconds=10, steps=100)).serving == 1001


async def test_no_turn_passes_more_places_than_a_few_times_the_pace(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await crowd(store, 3000)
    await stay(store, clock, [3000], seconds=JUDGED_SECONDS)
    clock.advance(seconds=0.1)
    assert (await look(store, 100)).serving == 4 * 10 + 1024


async def test_who_is_too_new_to_be_judged_counts_as_present(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await crowd(store, 10)
    await stay(store, clock, [10], seconds=JUDGED_SECONDS)
    await crowd(store, 10, "new")
    attendance = await attend(store, [10])

    assert attendance.mark == 10
    assert (await turn(store, clock, 1, seconds=1, steps=10)).serving == 10
    assert (await turn(store, clock, 1, seconds=4, steps=40)).serving == 14
    assert (await look(store)).waiting == 6


async def test_after_two_periods_newcomers_are_judged_as_well(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await crowd(store, 10)
    await stay(store, clock, [10], seconds=JUDGED_SECONDS)
    await crowd(store, 10, "new")
    attendance = await stay(store, clock, [10, 11], seconds=2 * PERIOD)
    assert (attendance.mark, (await look(store)).waiting) == (20, 2)


async def test_who_comes_back_counts_again(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await crowd(store, 10)
    await stay(store, clock, [10], seconds=JUDGED_SECONDS)
    assert places_in((await attend(store, [3])).present) == [3, 10]


async def test_two_fronts_polls_are_added_up(
    store: RoomStore, redis: Redis, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    other = RoomStore(redis, clock, our_clock_rules=True)
    await attend(store, [2, 700])
    assert places_in((await attend(other, [5, 6])).present) == [2, 5, 6, 700]
    assert places_in((await attend(store)).present) == [2, 5, 6, 700]


async def test_where_nobody_polled_everybody_counts_as_present(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await crowd(store, 100)
    attendance = await stay(store, clock, [], seconds=JUDGED_SECONDS)
    assert attendance == (b"", 0)
    assert (await look(store)).waiting == 100


async def test_after_a_gap_nobody_is_judged_until_all_had_time_to_poll_again(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await crowd(store, 100)
    await stay(store, clock, range(1, 101), seconds=JUDGED_SECONDS)
    clock.advance(seconds=20)  # All fronts were away …
    first = await attend(store, [7])  # … and one is back.
    soon = await stay(store, clock, [7], seconds=PERIOD)
    late = await stay(store, clock, [7], seconds=2 * PERIOD)
    assert (first.mark, soon.mark, late.mark) == (0, 0, 100)


async def test_attendance_that_grew_old_judges_nobody(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await crowd(store, 100)
    await stay(store, clock, [100], seconds=JUDGED_SECONDS)
    assert (await turn(store, clock, 0)).waiting == 1
    clock.advance(seconds=20)
    assert (await look(store)).waiting == 100


@pytest.mark.parametrize("seconds", [-1, -PERIOD, -3600, 3600])
async def test_a_clock_step_takes_nobody_for_absent(
    store: RoomStore, inventory: Inventory, clock: ManualClock, seconds: float
) -> None:
    window = {"opens_at_ms": clock.now_ms() - 10**8, "closes_at_ms": clock.now_ms() + 10**8}
    await open_room(store, inventory, clock, sale=window)
    await crowd(store, 10)
    await stay(store, clock, range(1, 11), seconds=JUDGED_SECONDS)

    clock.advance(seconds=seconds)
    for _ in range(60):  # Everybody polls every 30 seconds, some now and some then.
        await attend(store, range(1, 6))
        clock.advance(seconds=5)
        await attend(store, range(6, 11))
        assert (await look(store)).waiting == 10


async def test_attending_needs_a_room(store: RoomStore) -> None:
    with pytest.raises(RedisUnavailable):
        await attend(store, [1])


async def test_a_look_without_a_pace_moves_nothing(
    store: RoomStore, redis: Redis, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await crowd(store, 100)
    turned = await turn(store, clock, 10)
    before = await redis.hgetall(ROOM.room)
    clock.advance(seconds=5)
    reply = await LuaScript("serve").run(redis, serve_keys(SALE_ID), ["", 0, 0, -1, clock.now_ms()])
    assert read_look(reply) == turned._replace(now_ms=clock.now_ms())
    assert await redis.hgetall(ROOM.room) == before


async def test_before_the_opening_people_gather_and_from_it_on_they_are_served(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock, sale={"opens_at_ms": clock.now_ms() + 60_000})
    await crowd(store, 100)
    before = await turn(store, clock, 10, seconds=59.9, steps=60)
    after = await turn(store, clock, 10, seconds=1.1, steps=11)
    assert (before.serving, before.waiting, before.drawn) == (0, 100, None)
    assert (after.serving, after.drawn, after.seed) == (10, None, None)


async def test_the_draw_is_held_once_at_the_opening_and_its_seed_told_then(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    opening = {"opens_at_ms": clock.now_ms() + 60_000}
    await open_room(store, inventory, clock, order=RoomOrder.DRAW, sale=opening)
    await crowd(store, 100)
    before = await turn(store, clock, 10, seconds=59)
    clock.advance(seconds=1)
    at = await look(store)
    await crowd(store, 5, "late")
    after = await turn(store, clock, 10)

    assert (before.drawn, before.seed) == (None, None)
    assert (at.drawn, at.seed, at.issued) == (100, SEED, 100)
    assert (after.drawn, after.seed, after.issued) == (100, SEED, 105)


async def test_attendance_by_number_says_nothing_of_the_places_drawn(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    opening = {"opens_at_ms": clock.now_ms() + 10 * PERIOD * 1000}
    await open_room(store, inventory, clock, order=RoomOrder.DRAW, sale=opening)
    await crowd(store, 100)
    numbers = await stay(store, clock, range(1, 51), seconds=9 * PERIOD)
    assert (len(places_in(numbers.present)), numbers.mark) == (50, 100)
    clock.advance(seconds=PERIOD)

    assert (await look(store)).waiting == 100
    # A front that has not heard of the draw still thinks in numbers.
    assert places_in((await attend(store, [9], drawn=None)).present) == []
    assert places_in((await attend(store, [9], drawn=100)).present) == [9]
    places = await stay(store, clock, range(1, 21), seconds=PERIOD, drawn=100)
    assert places.mark == 0
    places = await stay(store, clock, range(1, 21), seconds=2 * PERIOD, drawn=100)
    assert (len(places_in(places.present)), places.mark) == (20, 100)


async def test_redis_forgets_a_room_days_after_its_sale_and_not_before(
    store: RoomStore, redis: Redis, inventory: Inventory, clock: ManualClock
) -> None:
    day, closing = 86_400_000, clock.now_ms() + 7_200_000
    await open_room(store, inventory, clock, sale={"closes_at_ms": closing})
    await enter(store, "ann")
    await turn(store, clock, 10)
    assert await ask(inventory, wish("ann", "black*1"), tickets=[1]) == ["RESERVED"]
    await turn(store, clock, 10)
    for key in (ROOM.room, ROOM.used):
        assert 7_190_000 + 2 * day < await redis.pttl(key) <= 7_200_000 + 3 * day
    clock.advance(seconds=30 * 86_400)
    await look(store)
    assert 2 * day < await redis.pttl(ROOM.room) <= 3 * day


async def test_a_room_switched_on_after_the_opening_draws_nobody(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock, order=RoomOrder.DRAW)
    await crowd(store, 10)
    assert (await turn(store, clock, 100)).drawn == 0


async def test_an_order_changed_after_the_opening_draws_nobody(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await crowd(store, 10)
    await store.furnish(SALE_ID, room_settings(revision=2, order=RoomOrder.DRAW), SEED)
    found = await turn(store, clock, 1)
    assert (found.order, found.drawn, found.seed) == (RoomOrder.DRAW, None, None)


async def test_redis_losing_everything_takes_nobodys_place_and_draws_no_second_time(
    store: RoomStore, redis: Redis, inventory: Inventory, clock: ManualClock
) -> None:
    opening = {"opens_at_ms": clock.now_ms() + 60_000}
    await open_room(store, inventory, clock, order=RoomOrder.DRAW, sale=opening)
    await crowd(store, 100)
    clock.advance(seconds=60)
    await look(store)
    await crowd(store, 20, "late")
    before = await turn(store, clock, 30)

    await redis.flushdb()
    assert await store.serve(SALE_ID, 30) is None
    await put_up(inventory, clock, {"black": 1000})
    await store.furnish(SALE_ID, room_settings(order=RoomOrder.DRAW), SEED)
    after = await turn(store, clock, 30)

    assert (before.issued, before.serving, before.drawn) == (120, 30, 100)
    # The first turn of a room that was lost knows of no time that passed.
    assert (after.issued, after.serving, after.drawn) == (120, 57, 100)


async def test_a_front_that_knows_more_from_tickets_heals_the_numbers(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    store.know(SALE_ID, Numbers(issued=500, serving=200))
    store.know(SALE_ID, Numbers(issued=400))
    found = await look(store)
    assert (found.issued, found.serving) == (500, 200)
    assert await enter(store, "ann") == ["ENTERED 501"]


async def test_a_sale_that_redis_does_not_know_serves_nobody(
    store: RoomStore, clock: ManualClock
) -> None:
    await store.furnish(SALE_ID, room_settings(), SEED)
    found = await turn(store, clock, 10)
    assert (found.state, found.rate, found.available, found.opens_at_ms) == (None, 0, 0, 0)


async def test_all_skus_are_counted_together(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 7, "available": 5, "sold": 3})
    await store.furnish(SALE_ID, room_settings(), SEED)
    request = wish("ann", "black*2")
    await ask(inventory, request, wish("bob", "sold*1"))
    await inventory.confirm(SALE, [("ann", request.reservation_id)])
    found = await turn(store, clock, 10)
    assert (found.available, found.reserved, found.sold) == (12, 1, 2)
