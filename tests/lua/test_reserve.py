"""reserve.lua on real Valkey."""

import asyncio
from collections import Counter

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from engine.clock import ManualClock
from engine.connections import connect_redis
from engine.inventory import Inventory, SaleRef
from engine.inventory.queue import TICKET_MISSING
from engine.lua import LuaScript
from engine.model import (
    ITEMS_MAX,
    QUANTITY_MAX,
    RESERVATIONS_PER_BUYER_MAX,
    UNITS_MAX,
    Outcome,
    Refused,
    Reservation,
    ReservationState,
    Reserved,
    SaleState,
)
from engine.servers import EmbeddedValkey
from tests.lua.shelf import (
    KEYS,
    SALE,
    WINDOW_SECONDS,
    ask,
    counters,
    dump,
    open_settings,
    put_up,
    streamed,
    wish,
    word_of,
)

BATCH_MAX = 512


async def test_reservation_is_held_recorded_and_streamed_in_one_step(
    inventory: Inventory, redis: Redis, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 5, "white": 5})
    request = wish("ann", "black*1,white*1")

    [answer] = await inventory.reserve_batch(SALE, [request])

    until_ms = clock.now_ms() + 900_000
    reserved = ReservationState.RESERVED
    assert answer == Reserved(request.reservation_id, reserved, until_ms, replayed=False)
    assert await counters(inventory, "black") == await counters(inventory, "white") == (4, 1, 0)
    assert await inventory.reservations(SALE.sale_id, "ann") == [
        Reservation(request.reservation_id, reserved, until_ms, "black*1,white*1")
    ]
    [entry] = await streamed(redis)
    assert entry == {
        b"until_s": b"%010d" % (until_ms // 1000),
        b"at_ms": b"%d" % clock.now_ms(),
        b"batch": f"{request.reservation_id} ann black*1,white*1".encode(),
    }


async def test_every_outcome_is_reachable(inventory: Inventory, clock: ManualClock) -> None:
    await put_up(inventory, clock, {"black": 2, "white": 1, "gone": 0})
    seen = await ask(
        inventory,
        wish("ann", "black*2"),
        wish("ann", "black*2"),
        wish("ann", "black*1"),
        wish("ann", "white*1", key="other"),
        wish("bob", "black*1"),
        wish("bob", "gone*1"),
        wish("bob", "green*1"),
    )
    seen += await ask(inventory, wish("bob", "white*1"), sale=SaleRef(SALE.sale_id, 2))
    seen += await ask(inventory, wish("bob", "white*1"), tickets=[TICKET_MISSING])
    seen += await ask(inventory, *(wish(u, "white*1") for u in ("cid", "dan")), tickets=[7, 7])
    for changes in (
        {"state": SaleState.PAUSED},
        {"opens_at_ms": clock.now_ms() + 1},
        {"closes_at_ms": clock.now_ms()},
    ):
        revision = len(seen) + 1  # always higher than the one before
        await inventory.configure(SALE, open_settings(clock, revision=revision, **changes))
        seen += await ask(inventory, wish("bob", "white*1"))

    assert seen == [
        "RESERVED",
        "DUPLICATE",
        "MISMATCH",
        "LIMIT_REACHED",
        "ALL_RESERVED",
        "SOLD_OUT",
        "UNKNOWN_SKU",
        "STALE_EPOCH",
        "TICKET_REQUIRED",
        "RESERVED",
        "TICKET_USED",
        "PAUSED",
        "NOT_STARTED",
        "ENDED",
    ]
    assert set(seen) == {outcome.value for outcome in Outcome}


async def test_bad_neighbours_in_a_batch_harm_nobody(
    inventory: Inventory, redis: Redis, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 3, "white": 1})

    words = await ask(
        inventory,
        wish("ann", "black*1"),
        wish("bad", "green*1"),
        wish("bad", "black*1,green*1"),
        wish("bad", "black*4"),
        wish("bob", "black*1,white*1"),
        wish("late", "black*1,white*1"),  # all or nothing: no white is left
        wish("ann", "black*2", key="more"),
        wish("cyn", "black*1"),
    )

    assert words == [
        "RESERVED",
        "UNKNOWN_SKU",
        "UNKNOWN_SKU",
        "LIMIT_REACHED",
        "RESERVED",
        "ALL_RESERVED",
        "LIMIT_REACHED",
        "RESERVED",
    ]
    assert await counters(inventory, "black") == (0, 3, 0)
    assert await counters(inventory, "white") == (0, 1, 0)
    assert sorted(await redis.hkeys(KEYS.buyers)) == [b"ann", b"bob", b"cyn"]
    [entry] = await streamed(redis)
    assert entry[b"batch"].count(b"\n") == 2


async def test_wish_that_no_front_would_send_reserves_nothing(
    inventory: Inventory, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 1})

    words = await ask(
        inventory,
        wish("eve", "black*1,black*1"),  # each line alone would fit
        wish("eve", ""),
        wish("eve", "black"),
        wish("ann", "black*1"),
    )

    assert words == ["UNKNOWN_SKU", "UNKNOWN_SKU", "UNKNOWN_SKU", "RESERVED"]
    assert await counters(inventory, "black") == (0, 1, 0)
    assert await ask(inventory, wish("eve", "")) == ["UNKNOWN_SKU"]


async def test_full_batch_of_large_unknown_carts_harms_nobody(
    inventory: Inventory, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 1})
    strangers = [
        wish(f"eve-{n}", ",".join(f"sku-{n}-{m:02d}*1" for m in range(ITEMS_MAX)))
        for n in range(BATCH_MAX - 1)
    ]

    words = await ask(inventory, *strangers, wish("ann", "black*1"))

    assert Counter(words) == {"UNKNOWN_SKU": BATCH_MAX - 1, "RESERVED": 1}


async def test_last_unit_goes_to_exactly_one_of_a_thousand_buyers(
    inventory: Inventory, valkey: EmbeddedValkey, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 1})
    other_redis = connect_redis(valkey.url, 5)
    other = Inventory(other_redis, clock, batch_max=64, queue_max=10_000)
    fronts = (inventory, other)

    answers = await asyncio.gather(
        *(fronts[n % 2].reserve(SALE, wish(f"buyer-{n}", "black*1")) for n in range(1000))
    )
    await other_redis.aclose()

    assert Counter(map(word_of, answers)) == {"RESERVED": 1, "ALL_RESERVED": 999}
    assert await counters(inventory, "black") == (0, 1, 0)


async def test_sold_out_is_said_only_when_nothing_can_come_back(
    inventory: Inventory, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 2})
    first, second = wish("ann", "black*1"), wish("bob", "black*1")
    await ask(inventory, first, second)
    await inventory.confirm(SALE, [("ann", first.reservation_id)])

    assert await ask(inventory, wish("cyn", "black*1")) == ["ALL_RESERVED"]
    assert await ask(inventory, wish("cyn", "black*2")) == ["SOLD_OUT"]
    await inventory.confirm(SALE, [("bob", second.reservation_id)])
    assert await ask(inventory, wish("cyn", "black*1")) == ["SOLD_OUT"]
    # The refused key may still win when units come back.
    await inventory.release(SALE, [("bob", second.reservation_id, "refunded")])
    assert await ask(inventory, wish("cyn", "black*1")) == ["RESERVED"]


@pytest.mark.parametrize(
    "change",
    [
        {"state": SaleState.PAUSED},
        {"state": SaleState.CLOSED},
        {"closes_at_ms": 1},
        {"per_user_max": 1},
    ],
)
async def test_replay_is_answered_although_nobody_else_is_let_in(
    inventory: Inventory, clock: ManualClock, change: dict[str, object]
) -> None:
    await put_up(inventory, clock, {"black": 2})
    request = wish("ann", "black*2")
    [first] = await inventory.reserve_batch(SALE, [request])
    await inventory.configure(SALE, open_settings(clock, revision=2, **change))
    clock.advance(seconds=10)

    [again] = await inventory.reserve_batch(SALE, [request])

    assert isinstance(first, Reserved)
    assert isinstance(again, Reserved)
    assert again.replayed
    assert again.reserved_until_ms == first.reserved_until_ms
    assert await ask(inventory, wish("ann", "black*1")) == ["MISMATCH"]


async def test_replay_tells_the_present_state(inventory: Inventory, clock: ManualClock) -> None:
    await put_up(inventory, clock, {"black": 9})
    sold, released, expired = (wish(user, "black*1") for user in ("ann", "bob", "cyn"))
    await ask(inventory, sold, released, expired)
    await inventory.confirm(SALE, [("ann", sold.reservation_id)])
    await inventory.release(
        SALE,
        [("bob", released.reservation_id, "released"), ("cyn", expired.reservation_id, "expired")],
    )

    answers = await inventory.reserve_batch(SALE, [sold, released, expired])

    assert [answer.state for answer in answers if isinstance(answer, Reserved)] == [
        ReservationState.CONFIRMED,
        ReservationState.RELEASED,
        ReservationState.EXPIRED,
    ]
    assert await counters(inventory, "black") == (8, 0, 1)


async def test_window_is_half_open(inventory: Inventory, clock: ManualClock) -> None:
    opens_at_ms = clock.now_ms() + 1000
    await put_up(
        inventory, clock, {"black": 9}, opens_at_ms=opens_at_ms, closes_at_ms=opens_at_ms + 1000
    )

    words = []
    for _ in range(4):
        words += await ask(inventory, wish(f"at-{clock.now_ms()}", "black*1"))
        clock.advance(seconds=0.999 if len(words) == 1 else 0.001 if len(words) == 2 else 0.999)
    words += await ask(inventory, wish("late", "black*1"))

    assert words == ["NOT_STARTED", "NOT_STARTED", "RESERVED", "RESERVED", "ENDED"]


@pytest.mark.parametrize("fenced", [False, True], ids=["other epoch", "fenced"])
async def test_script_of_a_stale_epoch_changes_nothing(
    inventory: Inventory, redis: Redis, clock: ManualClock, fenced: bool
) -> None:
    await put_up(inventory, clock, {"black": 5})
    request = wish("ann", "black*1")
    await ask(inventory, request)
    caller = SALE if fenced else SaleRef(SALE.sale_id, 2)
    if fenced:
        await inventory.fence(SALE)
    before = await dump(redis)

    words = await ask(inventory, request, wish("bob", "black*1"), sale=caller)
    words += await inventory.confirm(caller, [("ann", request.reservation_id)])
    words += await inventory.release(caller, [("ann", request.reservation_id, "expired")])
    words.append(await inventory.rereserve(caller, "ann", request.reservation_id))
    words.append(await inventory.restock(caller, "black", 99))
    words.append(await inventory.configure(caller, open_settings(clock, revision=9)))

    assert set(words) == {"STALE_EPOCH"}
    assert len(words) == 7
    assert await dump(redis) == before


async def test_sale_that_redis_does_not_know_is_stale(inventory: Inventory) -> None:
    assert await ask(inventory, wish("ann", "black*1")) == ["STALE_EPOCH"]


async def test_seventeenth_reservation_of_a_buyer_is_refused(
    inventory: Inventory, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 100}, per_user_max=50)

    words = []
    for number in range(RESERVATIONS_PER_BUYER_MAX + 1):
        request = wish("ann", "black*1", key=str(number))
        words += await ask(inventory, request)
        await inventory.release(SALE, [("ann", request.reservation_id, "released")])

    assert words == ["RESERVED"] * RESERVATIONS_PER_BUYER_MAX + ["LIMIT_REACHED"]
    assert await counters(inventory, "black") == (100, 0, 0)
    # Those within the bound are still known.
    assert await ask(inventory, wish("ann", "black*1", key="0")) == ["DUPLICATE"]


async def test_limit_holds_within_one_batch(inventory: Inventory, clock: ManualClock) -> None:
    await put_up(inventory, clock, {"black": 100, "white": 100}, per_user_max=3)

    words = await ask(
        inventory,
        wish("ann", "black*1", key="1"),
        wish("ann", "white*1", key="2"),
        wish("ann", "black*1,white*1", key="3"),
        wish("ann", "white*1", key="4"),
        wish("ann", "white*1", key="5"),
    )

    assert words == ["RESERVED", "RESERVED", "LIMIT_REACHED", "RESERVED", "LIMIT_REACHED"]
    assert len(await inventory.reservations(SALE.sale_id, "ann")) == 3


async def test_batch_beyond_its_bound_is_refused_whole(
    inventory: Inventory, redis: Redis, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 1000})
    full = [wish(f"buyer-{n}", "black*1") for n in range(BATCH_MAX)]
    assert await ask(inventory, *full) == ["RESERVED"] * BATCH_MAX
    before = await dump(redis)

    with pytest.raises(ResponseError, match="1 to 512 requests"):
        await ask(inventory, *full, wish("one-more", "black*1"))
    with pytest.raises(ResponseError, match="1 to 512 requests"):
        await ask(inventory)

    assert await dump(redis) == before


async def test_numbers_at_the_limits_stay_exact(inventory: Inventory, clock: ManualClock) -> None:
    quantity = f"black*{QUANTITY_MAX}"
    await put_up(inventory, clock, {"black": UNITS_MAX}, per_user_max=QUANTITY_MAX)
    request = wish("ann", quantity)

    assert await ask(inventory, request) == ["RESERVED"]
    assert await counters(inventory, "black") == (UNITS_MAX - QUANTITY_MAX, QUANTITY_MAX, 0)
    await inventory.confirm(SALE, [("ann", request.reservation_id)])
    assert await counters(inventory, "black") == (UNITS_MAX - QUANTITY_MAX, 0, QUANTITY_MAX)
    assert await inventory.restock(SALE, "black", 3 * UNITS_MAX) == "RESTOCKED"
    assert await counters(inventory, "black") == (3 * UNITS_MAX - QUANTITY_MAX, 0, QUANTITY_MAX)


async def test_longest_user_and_sku_names_fit(inventory: Inventory, clock: ManualClock) -> None:
    sku, user = "s" * 64, "~" * 128
    await put_up(inventory, clock, {sku: 1})
    assert await ask(inventory, wish(user, f"{sku}*1")) == ["RESERVED"]
    [held] = await inventory.reservations(SALE.sale_id, user)
    assert held.items_text == f"{sku}*1"


async def test_names_with_signs_that_mean_something_in_lua_patterns_are_just_names(
    inventory: Inventory, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"a-b.c_d": 2, "a-b.c": 2})
    request = wish("%d+%s*[^\\n]", "a-b.c*1,a-b.c_d*1")
    assert await ask(inventory, request, request) == ["RESERVED", "DUPLICATE"]
    assert await inventory.confirm(SALE, [(request.user_id, request.reservation_id)]) == [
        "CONFIRMED"
    ]
    assert await counters(inventory, "a-b.c") == await counters(inventory, "a-b.c_d") == (1, 0, 1)


async def test_batch_that_ran_twice_changes_nothing_the_second_time(
    inventory: Inventory, redis: Redis, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 5, "white": 1})
    requests = [wish("ann", "black*2"), wish("bob", "white*1"), wish("cyn", "black*1,white*1")]
    assert await ask(inventory, *requests) == ["RESERVED", "RESERVED", "ALL_RESERVED"]
    before = await dump(redis)

    assert await ask(inventory, *requests) == ["DUPLICATE", "DUPLICATE", "ALL_RESERVED"]
    assert await dump(redis) == before


async def test_script_is_loaded_again_after_redis_forgot_it(
    inventory: Inventory, redis: Redis, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 5})
    assert await ask(inventory, wish("ann", "black*1")) == ["RESERVED"]
    await redis.script_flush()

    assert await ask(inventory, wish("bob", "black*1")) == ["RESERVED"]
    assert await redis.script_exists(LuaScript("reserve").sha) == [True]


async def test_refusals_alone_write_nothing(
    inventory: Inventory, redis: Redis, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 0}, closes_at_ms=clock.now_ms() + WINDOW_SECONDS)
    before = await dump(redis)

    answers = await inventory.reserve_batch(SALE, [wish("ann", "black*1"), wish("bob", "x*1")])

    assert answers == [Refused(Outcome.SOLD_OUT), Refused(Outcome.UNKNOWN_SKU)]
    assert await dump(redis) == before


async def test_several_units_are_reserved_all_or_nothing(
    inventory: Inventory, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 3})
    words = await ask(
        inventory, wish("ann", "black*2"), wish("bob", "black*2"), wish("cyn", "black*1")
    )
    assert words == ["RESERVED", "ALL_RESERVED", "RESERVED"]
    assert await counters(inventory, "black") == (0, 3, 0)
