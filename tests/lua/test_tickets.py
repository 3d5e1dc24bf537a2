"""reserve.lua where a waiting room is on: each number is good for one reservation."""

import random
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from engine.clock import ManualClock
from engine.inventory import Inventory
from engine.inventory.queue import NO_ROOM, TICKET_MISSING
from engine.keys import room_keys
from engine.model import SaleState
from tests.lua.shelf import KEYS, SALE, ask, counters, open_settings, put_up, wish

ROOM = room_keys(SALE.sale_id)


async def spent(redis: Redis, number: int) -> bool:
    return bool(await redis.getbit(ROOM.used, number))


async def room_counts(redis: Any) -> tuple[int, int]:
    """(tickets used, units taken with them)"""
    used, units = await redis.hmget(ROOM.room, "used", "used_units")
    return int(used or 0), int(units or 0)


async def test_a_ticket_is_good_for_one_reservation(
    inventory: Inventory, redis: Redis, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 9})

    assert await ask(inventory, wish("ann", "black*2"), tickets=[5]) == ["RESERVED"]
    assert await ask(inventory, wish("ann", "black*1", key="2"), tickets=[5]) == ["TICKET_USED"]
    assert await ask(inventory, wish("bob", "black*1"), tickets=[5]) == ["TICKET_USED"]
    assert await ask(inventory, wish("bob", "black*1"), tickets=[6]) == ["RESERVED"]

    assert await counters(inventory, "black") == (6, 3, 0)
    assert await room_counts(redis) == (2, 3)
    assert [await spent(redis, n) for n in (4, 5, 6, 7)] == [False, True, True, False]


async def test_a_ticket_that_stands_twice_in_a_batch_is_used_once(
    inventory: Inventory, redis: Redis, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 9})
    wishes = [wish(user, "black*1") for user in ("ann", "bob", "cid")]

    assert await ask(inventory, *wishes, tickets=[5, 5, 6]) == [
        "RESERVED",
        "TICKET_USED",
        "RESERVED",
    ]
    assert await room_counts(redis) == (2, 2)


@pytest.mark.parametrize("ticket", [5, TICKET_MISSING, 6, NO_ROOM])
async def test_an_earlier_answer_is_given_again_whatever_the_ticket(
    inventory: Inventory, redis: Redis, clock: ManualClock, ticket: int
) -> None:
    await put_up(inventory, clock, {"black": 9})
    assert await ask(inventory, wish("ann", "black*1"), tickets=[5]) == ["RESERVED"]

    assert await ask(inventory, wish("ann", "black*1"), tickets=[ticket]) == ["DUPLICATE"]
    assert await ask(inventory, wish("ann", "black*2"), tickets=[ticket]) == ["MISMATCH"]

    assert await room_counts(redis) == (1, 1)
    assert not await spent(redis, 6)


async def test_without_a_ticket_nothing_is_taken(
    inventory: Inventory, redis: Redis, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 9})
    wishes = [wish("ann", "black*1"), wish("bob", "black*1,white*1"), wish("cid", "white*1")]

    assert await ask(inventory, *wishes, tickets=[TICKET_MISSING] * 3) == ["TICKET_REQUIRED"] * 3

    assert await counters(inventory, "black") == (9, 0, 0)
    assert await redis.exists(KEYS.buyers, KEYS.orders, ROOM.used, ROOM.room) == 1  # the stream


@pytest.mark.parametrize("items", ["black*9", "green*1", "gone*1", "black*3"])
async def test_a_ticket_outlives_a_refusal(
    inventory: Inventory, redis: Redis, clock: ManualClock, items: str
) -> None:
    await put_up(inventory, clock, {"black": 2, "gone": 0})

    (word,) = await ask(inventory, wish("ann", items), tickets=[5])
    assert word in {"LIMIT_REACHED", "UNKNOWN_SKU", "SOLD_OUT"}

    assert not await spent(redis, 5)
    assert await ask(inventory, wish("ann", "black*1", key="2"), tickets=[5]) == ["RESERVED"]


async def test_some_of_a_batch_need_tickets_and_others_none(
    inventory: Inventory, redis: Redis, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 3})
    users, numbers = ("ann", "bob", "cid", "dan", "eve"), [NO_ROOM, 1, TICKET_MISSING, 1 << 24, 9]

    assert await ask(inventory, *(wish(u, "black*1") for u in users), tickets=numbers) == [
        *("RESERVED", "RESERVED", "TICKET_REQUIRED", "RESERVED", "ALL_RESERVED"),
    ]
    assert await room_counts(redis) == (2, 2)
    assert [await spent(redis, n) for n in (0, 1, 9, 1 << 24)] == [False, True, False, True]


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"state": SaleState.PAUSED}, "PAUSED"), ({"opens_at_ms": 2_000_000_000_000}, "NOT_STARTED")],
)
async def test_that_a_sale_is_shut_is_said_before_tickets_are_asked_for(
    inventory: Inventory, redis: Redis, clock: ManualClock, changes: dict[str, Any], word: str
) -> None:
    changes = {"closes_at_ms": 2_000_000_000_001} | changes
    await put_up(inventory, clock, {"black": 3}, **changes)
    numbers = [TICKET_MISSING, 5]
    assert await ask(
        inventory, wish("ann", "black*1"), wish("bob", "black*1"), tickets=numbers
    ) == [word, word]
    assert not await spent(redis, 5)


async def test_a_full_batch_of_tickets_fits_into_one_call(
    inventory: Inventory, redis: Redis, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 512})
    wishes = [wish(f"user-{n}", "black*1") for n in range(512)]

    words = await ask(inventory, *wishes, tickets=range(1, 513))

    assert words == ["RESERVED"] * 512
    assert await cast("Any", redis).bitcount(ROOM.used) == 512


async def test_used_tickets_outlive_a_recovery(
    inventory: Inventory, redis: Redis, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 3})
    await ask(inventory, wish("ann", "black*1"), tickets=[5])
    later = SALE._replace(epoch=2)
    stock = (await inventory.snapshot(SALE.sale_id)).stock

    assert await inventory.fence(later) == "FENCED"
    assert await inventory.launch(later, open_settings(clock), stock) == "LAUNCHED"

    assert await ask(inventory, wish("bob", "black*1"), sale=later, tickets=[5]) == ["TICKET_USED"]


async def test_a_ticket_refused_for_one_request_of_a_batch_is_good_for_another(
    inventory: Inventory, redis: Redis, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 9})
    wishes = [wish("ann", "black*9"), wish("ann", "black*2", key="2"), wish("bob", "black*1")]
    assert await ask(inventory, *wishes, tickets=[5, 5, 5]) == [
        *("LIMIT_REACHED", "RESERVED", "TICKET_USED"),
    ]
    assert await room_counts(redis) == (1, 2)


@pytest.mark.parametrize("seed", range(20_261_111, 20_261_121))
async def test_a_batch_with_tickets_decides_as_its_requests_one_by_one(
    inventory: Inventory, redis: Redis, clock: ManualClock, seed: int
) -> None:
    draw = random.Random(seed)
    requests, tickets = [], []
    for _ in range(200):
        items = draw.choices(["black*1", "black*2", "black*1,white*1", "green*1"], [9, 3, 2, 1])[0]
        requests.append(wish(f"user-{draw.randrange(60)}", items, key=str(draw.randrange(3))))
        tickets.append(draw.choice([*[TICKET_MISSING, NO_ROOM] * 9, *range(1, 60)]))
    stock = {"black": 60, "white": 10}

    said, kept = [], []
    for size in (1, 7, 200):
        await redis.flushdb()
        await put_up(inventory, clock, stock)
        words: list[str] = []
        for start in range(0, 200, size):
            part = slice(start, start + size)
            words += await ask(inventory, *requests[part], tickets=tickets[part])
        said.append(words)
        kept.append(
            (
                await redis.hgetall(KEYS.buyers),  # type: ignore[misc]
                await counters(inventory, "black"),
                await room_counts(redis),
                await redis.get(ROOM.used),
            )
        )

    assert said[0] == said[1] == said[2]
    assert kept[0] == kept[1] == kept[2]
    assert {"RESERVED", "TICKET_USED", "TICKET_REQUIRED", "DUPLICATE"} <= {*said[0]}
