"""confirm.lua, release.lua and rereserve.lua on real Valkey: resolved exactly once."""

import asyncio

import pytest
from redis.asyncio import Redis

from engine.clock import ManualClock
from engine.inventory import Inventory
from engine.inventory.inventory import RESOLVE_BATCH_MAX
from engine.model import ReservationState, ReserveRequest
from tests.lua.shelf import SALE, ask, counters, dump, open_settings, put_up, wish


@pytest.fixture
async def held(inventory: Inventory, clock: ManualClock) -> ReserveRequest:
    """Ann's reservation of two blacks among five."""
    await put_up(inventory, clock, {"black": 5})
    request = wish("ann", "black*2")
    assert await ask(inventory, request) == ["RESERVED"]
    return request


async def state_of(inventory: Inventory, request: ReserveRequest) -> ReservationState:
    reservation = await inventory.reservation(SALE.sale_id, request.user_id, request.reservation_id)
    assert reservation is not None
    return reservation.state


async def confirm(inventory: Inventory, request: ReserveRequest) -> str:
    return (await inventory.confirm(SALE, [(request.user_id, request.reservation_id)]))[0]


async def release(inventory: Inventory, request: ReserveRequest, reason: str) -> str:
    triple = (request.user_id, request.reservation_id, reason)
    return (await inventory.release(SALE, [triple]))[0]


async def test_confirm_sells_once(inventory: Inventory, held: ReserveRequest) -> None:
    assert await confirm(inventory, held) == "CONFIRMED"
    assert await confirm(inventory, held) == "ALREADY_RESOLVED"
    assert await counters(inventory, "black") == (3, 0, 2)


@pytest.mark.parametrize(
    ("reason", "state"),
    [("released", ReservationState.RELEASED), ("expired", ReservationState.EXPIRED)],
)
async def test_release_gives_back_once(
    inventory: Inventory, held: ReserveRequest, reason: str, state: ReservationState
) -> None:
    assert await release(inventory, held, reason) == "RELEASED"
    assert await release(inventory, held, reason) == "ALREADY_RESOLVED"
    assert await counters(inventory, "black") == (5, 0, 0)
    assert await state_of(inventory, held) is state


async def test_only_a_refund_takes_sold_units_back(
    inventory: Inventory, held: ReserveRequest
) -> None:
    await confirm(inventory, held)
    assert await release(inventory, held, "expired") == "ALREADY_RESOLVED"
    assert await release(inventory, held, "released") == "ALREADY_RESOLVED"
    assert await counters(inventory, "black") == (3, 0, 2)

    assert await release(inventory, held, "refunded") == "RELEASED"
    assert await release(inventory, held, "refunded") == "ALREADY_RESOLVED"
    assert await counters(inventory, "black") == (5, 0, 0)


async def test_confirm_racing_a_release_has_one_winner(
    inventory: Inventory, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 100})
    requests = [wish(f"buyer-{n}", "black*1") for n in range(50)]
    await ask(inventory, *requests)

    words = await asyncio.gather(
        *(confirm(inventory, request) for request in requests),
        *(release(inventory, request, "expired") for request in requests),
    )

    sold, given_back = words.count("CONFIRMED"), words.count("RELEASED")
    assert sold + given_back == words.count("ALREADY_RESOLVED") == 50
    assert await counters(inventory, "black") == (100 - sold, 0, sold)


async def test_strangers_are_not_found_and_harm_nobody(
    inventory: Inventory, held: ReserveRequest
) -> None:
    stranger = wish("bob", "black*1")
    pairs = [(r.user_id, r.reservation_id) for r in (stranger, held)]
    pairs.append(("ann", stranger.reservation_id))

    assert await inventory.confirm(SALE, pairs) == ["NOT_FOUND", "CONFIRMED", "NOT_FOUND"]
    triples = [(user, reservation_id, "refunded") for user, reservation_id in pairs]
    assert await inventory.release(SALE, triples) == ["NOT_FOUND", "RELEASED", "NOT_FOUND"]
    assert await counters(inventory, "black") == (5, 0, 0)


async def test_each_of_a_buyers_reservations_is_resolved_by_itself(
    inventory: Inventory, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 9, "white": 9}, per_user_max=9)
    first, second, third = (
        wish("ann", items, key=items) for items in ("black*1", "black*2,white*1", "white*2")
    )
    await ask(inventory, first, second, third)

    assert await confirm(inventory, second) == "CONFIRMED"
    assert await release(inventory, third, "expired") == "RELEASED"

    states = [r.state for r in await inventory.reservations(SALE.sale_id, "ann")]
    assert states == [
        ReservationState.RESERVED,
        ReservationState.CONFIRMED,
        ReservationState.EXPIRED,
    ]
    assert await counters(inventory, "black") == (6, 1, 2)
    assert await counters(inventory, "white") == (8, 0, 1)


async def test_more_than_one_batch_is_cut_into_several(
    inventory: Inventory, clock: ManualClock
) -> None:
    count = RESOLVE_BATCH_MAX + 1
    await put_up(inventory, clock, {"black": count})
    requests = [wish(f"buyer-{n}", "black*1") for n in range(count)]
    await ask(inventory, *requests[:-1])
    await ask(inventory, requests[-1])

    words = await inventory.confirm(SALE, [(r.user_id, r.reservation_id) for r in requests])

    assert words == ["CONFIRMED"] * count
    assert await counters(inventory, "black") == (0, 0, count)
    assert await inventory.confirm(SALE, []) == []


async def test_released_units_can_be_bought_again_within_the_limit(
    inventory: Inventory, held: ReserveRequest
) -> None:
    assert await ask(inventory, wish("ann", "black*1", key="new")) == ["LIMIT_REACHED"]
    await release(inventory, held, "expired")
    assert await ask(inventory, wish("ann", "black*2", key="new")) == ["RESERVED"]


async def test_late_payment_takes_the_units_again_while_some_are_left(
    inventory: Inventory, held: ReserveRequest
) -> None:
    await release(inventory, held, "expired")
    assert await inventory.rereserve(SALE, "ann", held.reservation_id) == "RERESERVED"
    assert await counters(inventory, "black") == (3, 0, 2)
    assert await inventory.rereserve(SALE, "ann", held.reservation_id) == "ALREADY_CONFIRMED"
    assert await counters(inventory, "black") == (3, 0, 2)


async def test_late_payment_of_a_reservation_still_held_confirms_it(
    inventory: Inventory, held: ReserveRequest
) -> None:
    assert await inventory.rereserve(SALE, "ann", held.reservation_id) == "RERESERVED"
    assert await counters(inventory, "black") == (3, 0, 2)


async def test_late_payment_after_the_sale_ended_still_counts(
    inventory: Inventory, held: ReserveRequest, clock: ManualClock
) -> None:
    await release(inventory, held, "expired")
    await inventory.configure(SALE, open_settings(clock, revision=2, closes_at_ms=1))
    assert await inventory.rereserve(SALE, "ann", held.reservation_id) == "RERESERVED"


async def test_late_payment_loses_where_it_must_and_changes_nothing(
    inventory: Inventory, redis: Redis, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 2, "white": 9})
    sold_out, limited = wish("ann", "black*1,white*1"), wish("bob", "white*2")
    released = wish("cyn", "white*1")
    await ask(inventory, sold_out, limited, released)
    await release(inventory, sold_out, "expired")
    await release(inventory, limited, "expired")
    await release(inventory, released, "released")
    rivals = [wish("dan", "black*2"), wish("bob", "white*1", key="new")]
    assert await ask(inventory, *rivals) == ["RESERVED", "RESERVED"]
    before = await dump(redis)

    assert [
        await inventory.rereserve(SALE, request.user_id, request.reservation_id)
        for request in (sold_out, limited, released, wish("eve", "white*1"))
    ] == ["SOLD_OUT", "LIMIT_REACHED", "RELEASED", "NOT_FOUND"]
    assert await dump(redis) == before


async def test_late_payment_takes_the_very_last_unit(
    inventory: Inventory, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 2})
    request = wish("ann", "black*2")
    await ask(inventory, request)
    await release(inventory, request, "expired")
    assert await inventory.rereserve(SALE, "ann", request.reservation_id) == "RERESERVED"
    assert await counters(inventory, "black") == (0, 0, 2)
