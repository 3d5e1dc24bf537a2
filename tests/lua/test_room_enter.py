"""enter.lua: one number per user, kept while he may come back, and a proof good for one number."""

from typing import Any

import pytest
from redis.asyncio import Redis

from engine.admission.room.settings import RoomOrder
from engine.admission.room.store import (
    ENTER_BATCH_MAX,
    TICKETS_MAX,
    Numbers,
    Proof,
    RoomStore,
)
from engine.clock import ManualClock
from engine.errors import RedisUnavailable
from engine.inventory import Inventory
from engine.keys import ATTENDANCE_SLOTS, room_keys
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
    room_settings,
    stay,
    turn,
)
from tests.lua.shelf import SALE, ask, put_up, wish

KEYS = room_keys(SALE_ID)
LONG = {"closes_at_ms": 2_000_000_000_000}
AWAY_SECONDS = 331  # Longer than a place is kept for somebody who only just entered.


async def test_each_user_gets_one_number_in_the_order_of_coming(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)

    assert await enter(store, "ann", "bob", "ann") == ["ENTERED 1", "ENTERED 2", "KEPT 1"]
    assert await enter(store, "cid", "bob") == ["ENTERED 3", "KEPT 2"]

    assert (await look(store)).issued == 3


async def test_a_crowd_larger_than_a_call_gets_every_number_once(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    count = 3 * ENTER_BATCH_MAX + 1

    words = await enter(store, *(f"user-{n}" for n in range(count)))

    assert words == [f"ENTERED {n}" for n in range(1, count + 1)]


async def test_two_processes_count_on_together(
    store: RoomStore, redis: Redis, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    other = RoomStore(redis, clock, our_clock_rules=True)
    assert await enter(store, "ann") == ["ENTERED 1"]
    assert await enter(other, "ann", "bob") == ["KEPT 1", "ENTERED 2"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"on": False}, "ROOM_OFF"),
        ({"sale": {"state": SaleState.CLOSED}}, "ENDED"),
        ({"sale": {"closes_at_ms": 1_700_000_000_000}}, "ENDED"),
        ({"sale": {"opens_at_ms": 1_700_000_060_001}, "prequeue_seconds": 60}, "TOO_EARLY"),
        ({"sale": {"opens_at_ms": 1_700_000_060_000}, "prequeue_seconds": 60}, "ENTERED 1"),
        ({"sale": {"state": SaleState.PAUSED}}, "ENTERED 1"),
        ({"numbers": Numbers(issued=TICKETS_MAX)}, "FULL"),
        ({"numbers": Numbers(issued=TICKETS_MAX - 1)}, f"ENTERED {TICKETS_MAX}"),
    ],
)
async def test_when_there_are_numbers_and_when_not(
    store: RoomStore, inventory: Inventory, clock: ManualClock, change: dict[str, Any], word: str
) -> None:
    await open_room(store, inventory, clock, **change)
    assert await enter(store, "ann") == [word]


async def test_a_fenced_sale_still_gives_numbers(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    assert await inventory.fence(SALE._replace(epoch=2)) == "FENCED"
    assert await enter(store, "ann") == ["ENTERED 1"]


async def test_where_redis_knows_no_room_or_no_sale_nobody_is_told_that_the_room_is_off(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    with pytest.raises(RedisUnavailable):
        await enter(store, "ann")
    await put_up(inventory, clock, {"black": 1})
    with pytest.raises(RedisUnavailable):
        await enter(store, "ann")


async def test_who_just_entered_keeps_the_number_without_a_ticket(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await enter(store, "ann", "bob")
    clock.advance(seconds=AWAY_SECONDS - 2)
    assert await enter(store, "ann") == ["KEPT 1"]
    clock.advance(seconds=2)
    assert await enter(store, "ann") == ["ENTERED 3"]
    assert await enter(store, "ann") == ["KEPT 3"]


async def test_who_stayed_away_too_long_goes_to_the_end_unless_he_holds_a_ticket(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await enter(store, "ann", "bob", "cid")
    clock.advance(seconds=AWAY_SECONDS)
    assert await enter(store, "bob", holds_ticket=True) == ["KEPT 2"]
    assert await enter(store, "ann") == ["ENTERED 4"]


async def test_who_polled_within_five_minutes_keeps_the_number(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await enter(store, "ann", "bob")
    await stay(store, clock, [1], seconds=AWAY_SECONDS)
    await stay(store, clock, [], seconds=295)
    assert await enter(store, "ann", "bob") == ["KEPT 1", "ENTERED 3"]


@pytest.mark.parametrize("absent_seconds", [20, 45, 300])
async def test_the_ring_of_attendance_is_used_again_without_what_it_held(
    store: RoomStore, inventory: Inventory, clock: ManualClock, absent_seconds: int
) -> None:
    await open_room(store, inventory, clock, absent_seconds=absent_seconds, sale=LONG)
    await enter(store, "ann", "bob")
    await attend(store, [1])
    # Around the ring and back into the slot where Ann stood.
    for _ in range(ATTENDANCE_SLOTS + 1):
        clock.advance(seconds=absent_seconds)
        await attend(store, [2])
    assert await enter(store, "ann", "bob") == ["ENTERED 3", "KEPT 2"]


async def test_the_ring_is_emptied_when_nobody_attended_for_longer_than_it_reaches(
    store: RoomStore, redis: Redis, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock, sale=LONG)
    await enter(store, "ann", "bob")
    await stay(store, clock, [1], seconds=20 * PERIOD)
    clock.advance(seconds=100 * PERIOD)
    await attend(store, [2])
    assert await enter(store, "ann", "bob") == ["ENTERED 3", "KEPT 2"]
    assert await redis.exists(*KEYS.attendance) == 1


async def test_a_number_that_was_used_is_not_given_again(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await enter(store, "ann")
    await turn(store, clock, 10)
    assert await ask(inventory, wish("ann", "black*1"), tickets=[1]) == ["RESERVED"]
    assert await enter(store, "ann", holds_ticket=True) == ["ENTERED 2"]


async def test_after_the_draw_those_drawn_keep_their_numbers(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    opens_at_ms = clock.now_ms() + 600_000
    await open_room(
        store, inventory, clock, order=RoomOrder.DRAW, sale={"opens_at_ms": opens_at_ms}
    )
    await enter(store, "ann", "bob")
    clock.advance(seconds=600)
    assert (await look(store)).drawn == 2
    await enter(store, "cid")
    clock.advance(seconds=AWAY_SECONDS)
    assert await enter(store, "ann", "cid") == ["KEPT 1", "ENTERED 4"]


async def test_a_proof_is_good_for_one_number(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    proof = Proof("same", clock.now_ms() + 60_000)
    assert await enter(store, "ann", proof=proof) == ["ENTERED 1"]
    assert await enter(store, "bob", proof=proof) == ["PROOF_USED"]
    assert await enter(store, "bob", proof=Proof("other", proof.expires_at_ms)) == ["ENTERED 2"]


async def test_whoever_repeats_his_call_is_not_told_that_his_proof_is_used(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    proof = Proof("same", clock.now_ms() + 60_000)
    assert await enter(store, "ann", proof=proof) == ["ENTERED 1"]
    assert await enter(store, "ann", proof=proof) == ["KEPT 1"]


async def test_a_proof_shown_twice_in_one_call_is_good_once(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    proof = Proof("same", clock.now_ms() + 60_000)
    assert await enter(store, "ann", "bob", "ann", proof=proof) == [
        *("ENTERED 1", "PROOF_USED", "KEPT 1"),
    ]


async def test_a_proof_is_remembered_until_it_expires(
    store: RoomStore, redis: Redis, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await enter(store, "ann", proof=Proof("same", clock.now_ms() + 60_000))
    (key,) = [key async for key in redis.scan_iter(f"sale:{{{SALE_ID}.0}}:proof:*")]
    assert 0 < await redis.pttl(key) <= 60_000


async def test_a_proof_of_somebody_who_gets_no_number_is_not_used_up(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock, on=False)
    proof = Proof("same", clock.now_ms() + 60_000)
    assert await enter(store, "ann", proof=proof) == ["ROOM_OFF"]
    await store.furnish(SALE_ID, room_settings(revision=2), SEED)
    assert await enter(store, "ann", proof=proof) == ["ENTERED 1"]


async def test_switching_the_room_off_and_on_loses_nobody(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await crowd(store, 20)
    await turn(store, clock, 5)
    before = await look(store)
    assert 0 < before.serving < 20

    await store.furnish(SALE_ID, room_settings(revision=2, on=False), SEED)
    away = await turn(store, clock, 5)
    await store.furnish(SALE_ID, room_settings(revision=3), SEED)

    assert (away.on, away.serving) == (False, before.serving)
    assert await enter(store, "user-19", "ann") == ["KEPT 20", "ENTERED 21"]
    assert (await turn(store, clock, 100)).serving == 21


async def test_numbers_go_on_after_redis_lost_everything(
    store: RoomStore, redis: Redis, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await crowd(store, 10)
    await turn(store, clock, 5)
    before = await look(store)

    await redis.flushdb()
    assert await store.serve(SALE_ID, 5) is None
    await put_up(inventory, clock, {"black": 9}, revision=2)
    await store.furnish(SALE_ID, room_settings(), SEED)

    assert await enter(store, "new") == ["ENTERED 11"]
    after = await look(store)
    assert (after.issued, after.serving) == (11, before.serving)


async def test_a_good_ticket_keeps_its_number_also_where_redis_lost_it(
    store: RoomStore, redis: Redis, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await crowd(store, 1000)
    await redis.flushdb()
    await put_up(inventory, clock, {"black": 9}, revision=2)
    anew = RoomStore(redis, clock, our_clock_rules=True)  # Nobody remembers any number.
    assert await anew.furnish(SALE_ID, room_settings(), SEED)

    assert await enter(anew, "user-4", holds_ticket=True, number=5) == ["KEPT 5"]
    assert await enter(anew, "user-4") == ["KEPT 5"]
    assert await enter(anew, "user-899", "new", holds_ticket=True, number=900) == [
        *("KEPT 900", "KEPT 900")
    ]
    assert await enter(anew, "other") == ["ENTERED 901"]
    assert (await look(anew)).issued == 901


async def test_a_lost_number_that_was_used_is_not_kept(
    store: RoomStore, redis: Redis, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await redis.setbit(KEYS.used, 5, 1)
    for number in (0, 5, TICKETS_MAX + 1):
        (word,) = await enter(store, f"user-{number}", holds_ticket=True, number=number)
        assert word.startswith("ENTERED")


async def test_a_number_that_lapsed_is_not_kept_and_no_other_is_lost_by_it(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await enter(store, "ann", "bob")
    assert await enter(store, "ann", number=1) == ["ENTERED 3"]
    assert await enter(store, "ann", number=1) == ["KEPT 3"]
    assert await enter(store, "bob", number=1) == ["KEPT 2"]


async def test_places_lapse_when_their_time_to_reserve_is_over_and_a_tickets_with_it(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    long = {"closes_at_ms": clock.now_ms() + 10**8}
    await open_room(store, inventory, clock, admission_seconds=60, sale=long)
    await crowd(store, 100)
    served = await turn(store, clock, 10, seconds=5, steps=50)
    await turn(store, clock, 0, seconds=355, steps=71)
    soon = await look(store)
    later = await turn(store, clock, 0, seconds=30, steps=6)
    late = await turn(store, clock, 10, seconds=1)
    assert (served.serving, served.lapsed, soon.lapsed, later.lapsed) == (50, 0, 0, 50)
    assert (late.serving, late.lapsed) == (60, 50)


async def test_what_postgres_remembers_holds_where_nobody_else_does(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock, numbers=Numbers(40, 30, 20))
    assert await enter(store, "ann") == ["ENTERED 41"]
    found = await look(store)
    assert (found.issued, found.serving, found.drawn) == (41, 30, 20)


async def test_older_settings_change_nothing(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock, revision=5)
    assert not await store.furnish(SALE_ID, room_settings(revision=5, on=False), SEED)
    assert not await store.furnish(SALE_ID, room_settings(revision=4, on=False), SEED)
    assert await store.furnish(SALE_ID, room_settings(revision=6, on=False), SEED)
    found = await look(store)
    assert (found.revision, found.on) == (6, False)


async def test_the_clock_of_redis_rules_unless_ours_is_said_to(
    redis: Redis, inventory: Inventory, clock: ManualClock
) -> None:
    far_off = ManualClock(4_000_000_000_000)
    store = RoomStore(redis, far_off)
    await put_up(inventory, clock, {"black": 1}, closes_at_ms=4_000_000_000_000)
    await store.furnish(SALE_ID, room_settings(), SEED)
    assert await enter(store, "ann") == ["ENTERED 1"]
    assert (await look(store)).now_ms < 4_000_000_000_000


async def test_nothing_is_kept_of_another_sales_room_of_the_same_name(
    store: RoomStore, redis: Redis, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock, revision=7)
    await crowd(store, 10)
    await turn(store, clock, 5)
    assert await ask(inventory, wish("ann", "black*1"), tickets=[1]) == ["RESERVED"]

    anew = RoomStore(redis, clock, our_clock_rules=True)
    assert await anew.furnish(SALE_ID, room_settings(), "0ddba11" * 9)

    assert await enter(anew, "user-5", "user-0") == ["ENTERED 1", "ENTERED 2"]
    found = await look(anew)
    assert (found.revision, found.serving, found.used) == (1, 0, 0)
    assert not await redis.exists(KEYS.used)


async def test_nobody_attended_another_sales_room_of_the_same_name(
    store: RoomStore, redis: Redis, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await crowd(store, 10)
    await stay(store, clock, [1, 2], seconds=3 * PERIOD)
    await turn(store, clock, 5)
    ring = (*KEYS.attendance, KEYS.present, KEYS.passed, KEYS.fronts)
    assert await redis.exists(*ring) > 2

    anew = RoomStore(redis, clock, our_clock_rules=True)
    assert await anew.furnish(SALE_ID, room_settings(), "0ddba11" * 9)

    assert await redis.exists(*ring) == 0


async def test_a_ticket_that_was_polled_but_not_noted_yet_is_no_second_number(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock)
    await enter(store, "ann")
    await stay(store, clock, (), seconds=295)
    clock.advance(
        seconds=29
    )  # Ann polled at 299 s: good until 599, and her front could not attend.
    assert await enter(store, "ann") == ["KEPT 1"]


async def test_at_the_shortest_periods_a_poll_is_remembered_as_long_as_its_ticket_is_good(
    store: RoomStore, inventory: Inventory, clock: ManualClock
) -> None:
    await open_room(store, inventory, clock, absent_seconds=20)
    await enter(store, "ann")
    await stay(store, clock, [1], seconds=400)
    await stay(store, clock, (), seconds=330)
    assert await enter(store, "ann") == ["KEPT 1"]
