"""Refusals from memory on real Valkey: never for a holder, never longer than true."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from redis.asyncio import Redis

from engine.clock import ManualClock
from engine.connections import connect_redis
from engine.inventory import Inventory, SaleRef
from engine.inventory import memory as memory_module
from engine.inventory.memory import FRESH_SECONDS, SALES_MAX, WATCH_SECONDS, StockMemory
from engine.model import Outcome, Refused, SaleState
from engine.servers import EmbeddedValkey
from tests.lua.shelf import KEYS, SALE, ask, open_settings, put_up, wish, word_of
from tests.support.waiting import until


class Known(NamedTuple):
    """A sale as a front knows it."""

    sale_id: str
    epoch: int
    revision: int


DROP = Known(SALE.sale_id, SALE.epoch, revision=1)
NEVER_SECONDS = 3600.0  # The background looks once; the tests ask for every further look.


@pytest.fixture
async def memory(
    inventory: Inventory, redis: Redis, clock: ManualClock
) -> AsyncIterator[StockMemory]:
    memory = StockMemory(inventory, redis, clock, refresh_seconds=NEVER_SECONDS)
    yield memory
    await memory.stop()


@pytest.fixture
async def elsewhere(valkey: EmbeddedValkey, clock: ManualClock) -> AsyncIterator[Inventory]:
    """Another front process."""
    client = connect_redis(valkey.url, 5)
    yield Inventory(client, clock, batch_max=64, queue_max=1000)
    await client.aclose()


@pytest.fixture
def own_valkey() -> Iterator[EmbeddedValkey]:
    """A Valkey to take away and bring back."""
    with tempfile.TemporaryDirectory(prefix="doorbuster-test-") as folder:
        server = EmbeddedValkey(Path(folder))
        server.start()
        yield server
        server.stop()


async def watched(memory: StockMemory, sale: Known = DROP) -> None:
    memory.learnt(sale, Outcome.SOLD_OUT)
    assert await memory.refresh_once() == 1


def told(
    memory: StockMemory,
    clock: ManualClock,
    items: str = "black*1",
    user: str = "new",
    sale: Known = DROP,
) -> Outcome | None:
    return memory.refusal(sale, user, items, clock.now_ms())


async def test_nothing_is_said_of_a_sale_that_nobody_was_refused_in(
    memory: StockMemory, inventory: Inventory, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 0})
    assert told(memory, clock) is None
    assert await memory.refresh_once() == 0
    memory.learnt(DROP, Outcome.LIMIT_REACHED)
    assert await memory.refresh_once() == 0


async def test_shortages_are_told_apart_as_the_script_does(
    memory: StockMemory, inventory: Inventory, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"gone": 0, "black": 2, "white": 9})
    assert await ask(inventory, wish("ann", "black*1")) == ["RESERVED"]
    await watched(memory)

    expected = {
        "white*1": None,
        "black*1": None,
        "black*2": Outcome.ALL_RESERVED,
        "black*3": None,  # above the limit per buyer: the script says so
        "gone*1": Outcome.SOLD_OUT,
        "black*1,gone*1": Outcome.SOLD_OUT,
        "gone*1,white*1": Outcome.SOLD_OUT,
        "black*2,gone*1": None,
        "gone*1,green*1": None,
        "green*1": None,
        "gone*1,gone*1": None,
        "gone": None,
        "": None,
    }
    assert {items: told(memory, clock, items) for items in expected} == expected
    assert await ask(inventory, wish("new", "black*2"), wish("new", "black*1,gone*1")) == [
        "ALL_RESERVED",
        "SOLD_OUT",
    ]


@pytest.mark.parametrize("way", ["release", "refund", "restock"])
async def test_units_that_come_back_are_for_sale_at_the_next_look(
    memory: StockMemory, inventory: Inventory, clock: ManualClock, way: str
) -> None:
    await put_up(inventory, clock, {"black": 1})
    request = wish("ann", "black*1")
    await ask(inventory, request)
    if way == "refund":
        await inventory.confirm(SALE, [("ann", request.reservation_id)])
    await watched(memory)
    assert told(memory, clock) is (Outcome.SOLD_OUT if way == "refund" else Outcome.ALL_RESERVED)

    if way == "restock":
        assert await inventory.restock(SALE, "black", 2) == "RESTOCKED"
    else:
        reason = "refunded" if way == "refund" else "released"
        await inventory.release(SALE, [("ann", request.reservation_id, reason)])
    await memory.refresh_once()

    assert told(memory, clock) is None
    assert await ask(inventory, wish("new", "black*1")) == ["RESERVED"]


async def test_who_ever_held_a_reservation_is_always_sent_to_redis(
    memory: StockMemory, inventory: Inventory, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 3})
    requests = [wish(user, "black*1") for user in ("held", "paid", "gave-back")]
    await ask(inventory, *requests)
    await inventory.confirm(SALE, [("paid", requests[1].reservation_id)])
    await inventory.release(SALE, [("gave-back", requests[2].reservation_id, "released")])
    await inventory.configure(SALE, open_settings(clock, revision=2, state=SaleState.PAUSED))
    await watched(memory)

    assert told(memory, clock) is Outcome.PAUSED
    assert [told(memory, clock, user=r.user_id) for r in requests] == [None] * 3
    assert await ask(inventory, *requests) == ["DUPLICATE"] * 3


async def test_holder_made_by_another_process_is_known_before_the_next_look_is_used(
    memory: StockMemory, inventory: Inventory, elsewhere: Inventory, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 300})
    memory.learnt(DROP, Outcome.ALL_RESERVED)
    await memory.refresh_once()

    buyers = [f"buyer-{number}" for number in range(300)]
    answers = await asyncio.gather(
        *(elsewhere.reserve(SALE, wish(buyer, "black*1")) for buyer in buyers)
    )
    await memory.refresh_once()

    assert {word_of(answer) for answer in answers} == {"RESERVED"}
    assert told(memory, clock) is Outcome.ALL_RESERVED
    assert {told(memory, clock, user=buyer) for buyer in buyers} == {None}


async def test_holder_is_honoured_as_soon_as_the_news_arrives_without_a_look(
    memory: StockMemory, inventory: Inventory, elsewhere: Inventory, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 1})
    first = wish("ann", "black*1")
    await ask(inventory, first)
    await watched(memory)
    await elsewhere.release(SALE, [("ann", first.reservation_id, "released")])
    assert told(memory, clock, user="bob") is Outcome.ALL_RESERVED, "the look is older"

    assert await ask(elsewhere, wish("bob", "black*1")) == ["RESERVED"]
    await memory._feed.catch_up()

    assert told(memory, clock, user="bob") is None
    assert told(memory, clock, user="cyn") is Outcome.ALL_RESERVED


async def test_buyers_who_come_while_the_records_are_read_are_not_missed(
    memory: StockMemory,
    inventory: Inventory,
    elsewhere: Inventory,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.inventory.holders.SCAN_COUNT", 1)
    await put_up(inventory, clock, {"black": 100_000, "gone": 0})
    early = [f"early-{number}" for number in range(600)]
    for start in range(0, 600, 200):
        await ask(inventory, *(wish(user, "black*1") for user in early[start : start + 200]))

    memory.learnt(DROP, Outcome.SOLD_OUT)
    loading = asyncio.create_task(memory.refresh_once())
    late = []
    while not loading.done():
        late.append(f"late-{len(late)}")
        await ask(elsewhere, wish(late[-1], "black*1"))

    assert await loading == 1
    await memory.refresh_once()
    assert told(memory, clock, "gone*1") is Outcome.SOLD_OUT
    assert {told(memory, clock, "gone*1", user) for user in (*early, *late)} == {None}


async def test_look_is_believed_for_a_tenth_of_a_second(
    memory: StockMemory, inventory: Inventory, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 0})
    await watched(memory)
    clock.advance(seconds=FRESH_SECONDS - 0.001)
    assert told(memory, clock) is Outcome.SOLD_OUT
    clock.advance(seconds=0.001)
    assert told(memory, clock) is None
    await memory.refresh_once()
    assert told(memory, clock) is Outcome.SOLD_OUT


async def test_window_is_that_of_the_moment_and_not_of_the_look(
    memory: StockMemory, inventory: Inventory, clock: ManualClock
) -> None:
    opens, closes = clock.now_ms() + 50, clock.now_ms() + 60
    await put_up(inventory, clock, {"black": 1}, opens_at_ms=opens, closes_at_ms=closes)
    await watched(memory)

    def at(now_ms: int) -> Outcome | None:
        return memory.refusal(DROP, "new", "black*1", now_ms)

    assert [at(opens - 1), at(opens), at(closes - 1), at(closes)] == [
        Outcome.NOT_STARTED,
        None,
        None,
        Outcome.ENDED,
    ]


async def test_pause_is_over_at_the_next_look(
    memory: StockMemory, inventory: Inventory, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 1}, state=SaleState.PAUSED)
    await watched(memory)
    assert told(memory, clock) is Outcome.PAUSED
    await inventory.configure(SALE, open_settings(clock, revision=2))
    await memory.refresh_once()
    assert told(memory, clock) is None
    await inventory.configure(SALE, open_settings(clock, revision=3, state=SaleState.CLOSED))
    await memory.refresh_once()
    assert told(memory, clock) is Outcome.ENDED


async def test_caller_who_knows_of_a_later_change_is_not_answered_from_before_it(
    memory: StockMemory, inventory: Inventory, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 1}, state=SaleState.PAUSED)
    await watched(memory)
    await inventory.configure(SALE, open_settings(clock, revision=2))
    assert told(memory, clock) is Outcome.PAUSED
    assert told(memory, clock, sale=DROP._replace(revision=2)) is None
    await inventory.configure(SALE, open_settings(clock, revision=3, state=SaleState.CLOSED))
    await memory.refresh_once()
    assert told(memory, clock, sale=DROP._replace(revision=2)) is Outcome.ENDED


async def test_other_epochs_and_fenced_sales_are_left_to_redis(
    memory: StockMemory, inventory: Inventory, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 0})
    await watched(memory)
    assert told(memory, clock, sale=DROP._replace(epoch=2)) is None
    assert told(memory, clock, sale=DROP._replace(sale_id="other")) is None
    await inventory.fence(SALE)
    assert await memory.refresh_once() == 0
    assert told(memory, clock) is None


async def test_records_are_read_anew_after_a_recovery(
    memory: StockMemory, inventory: Inventory, redis: Redis, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 0})
    await watched(memory)
    later = SaleRef(SALE.sale_id, 2)
    await inventory.fence(later)
    # What only Postgres knew is written back, and nothing is published.
    await redis.hset(KEYS.buyers, "rescued", "i" * 20 + "r1700000900black*1")
    stock = (await inventory.snapshot(SALE.sale_id)).stock
    assert await inventory.launch(later, open_settings(clock), stock) == "LAUNCHED"

    assert await memory.refresh_once() == 1
    assert told(memory, clock, sale=DROP._replace(epoch=2)) is Outcome.SOLD_OUT
    assert told(memory, clock, user="rescued", sale=DROP._replace(epoch=2)) is None
    assert told(memory, clock) is None, "the caller's epoch is over"


async def test_without_the_feed_nothing_is_said_until_the_records_are_read_anew(
    memory: StockMemory, inventory: Inventory, redis: Redis, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 2})
    await ask(inventory, wish("ann", "black*2"))
    await watched(memory)
    assert told(memory, clock) is Outcome.ALL_RESERVED

    await redis.client_kill_filter(_type="pubsub")

    async def silent() -> bool:
        return told(memory, clock) is None

    await until(silent, "the loss is noticed")
    # Nobody hears of this one.
    await redis.hset(KEYS.buyers, "unheard", "i" * 20 + "x1700000900black*1")

    async def sees() -> bool:
        return await memory.refresh_once() == 1

    await until(sees, "a new feed")
    assert told(memory, clock) is Outcome.ALL_RESERVED
    assert told(memory, clock, user="unheard") is None
    assert told(memory, clock, user="ann") is None


async def test_redis_that_went_away_silences_memory_until_it_is_back(
    own_valkey: EmbeddedValkey, clock: ManualClock
) -> None:
    client = connect_redis(own_valkey.url, 5)
    inventory = Inventory(client, clock, batch_max=64, queue_max=1000)
    memory = StockMemory(inventory, client, clock, refresh_seconds=NEVER_SECONDS)
    await put_up(inventory, clock, {"black": 1})
    await ask(inventory, wish("ann", "black*1"))
    await watched(memory)

    await asyncio.to_thread(own_valkey.stop)
    assert await memory.refresh_once() == 0
    assert told(memory, clock) is None
    await asyncio.to_thread(own_valkey.start)

    async def sees() -> bool:
        return await memory.refresh_once() == 1

    await until(sees, "Redis again")
    assert told(memory, clock) is Outcome.ALL_RESERVED
    assert told(memory, clock, user="ann") is None
    await memory.stop()
    await client.aclose()


@pytest.mark.parametrize("holders", [2, 3])
async def test_sale_with_more_holders_than_fit_is_left_to_redis(
    inventory: Inventory, redis: Redis, clock: ManualClock, holders: int
) -> None:
    memory = StockMemory(inventory, redis, clock, refresh_seconds=NEVER_SECONDS, holders_max=2)
    await put_up(inventory, clock, {"black": 3, "gone": 0})
    await ask(inventory, *(wish(f"buyer-{number}", "black*1") for number in range(holders)))
    memory.learnt(DROP, Outcome.SOLD_OUT)

    assert await memory.refresh_once() == (holders <= 2)
    assert told(memory, clock, "gone*1") is (Outcome.SOLD_OUT if holders <= 2 else None)
    await ask(inventory, wish("one-more", "black*1"))
    assert await memory.refresh_once() == 0
    assert told(memory, clock, "gone*1") is None
    assert await redis.pubsub_shardchannels() == [], "nothing is listened to in vain"
    await memory.stop()


async def test_no_more_sales_are_watched_than_the_bound(
    memory: StockMemory, inventory: Inventory, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 0})
    await watched(memory)
    for number in range(SALES_MAX + 5):
        memory.learnt(Known(f"sale-{number}", 1, 1), Outcome.SOLD_OUT)
    assert len(memory.watched) == SALES_MAX
    assert await memory.refresh_once() == 1


async def test_outcomes_remembered_per_look_are_bounded(
    memory: StockMemory,
    inventory: Inventory,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory_module, "OUTCOMES_MAX", 3)
    await put_up(inventory, clock, {"black": 0})
    await watched(memory)
    assert {told(memory, clock, f"guess-{number}*1") for number in range(10)} == {None}
    assert told(memory, clock) is Outcome.SOLD_OUT
    look = memory.watched[SALE.sale_id].look
    assert look is not None
    assert len(look._outcomes) == 3


async def test_sale_is_watched_by_itself_and_only_while_it_refuses(
    inventory: Inventory, redis: Redis, clock: ManualClock
) -> None:
    memory = StockMemory(inventory, redis, clock, refresh_seconds=0.001)
    await put_up(inventory, clock, {"black": 1})
    request = wish("ann", "black*1")
    await ask(inventory, request)
    memory.learnt(DROP, Outcome.ALL_RESERVED)

    async def refuses() -> bool:
        return told(memory, clock) is Outcome.ALL_RESERVED

    async def lets_in() -> bool:
        return told(memory, clock) is None

    await until(refuses, "a first look")
    await inventory.release(SALE, [("ann", request.reservation_id, "released")])
    await until(lets_in, "the unit is back")
    await ask(inventory, request, wish("bob", "black*1"))
    await until(refuses, "the unit is gone again")

    async def forgotten() -> bool:
        clock.advance(seconds=WATCH_SECONDS)
        return not memory.watched

    await until(forgotten, "nobody was refused for long")
    assert await redis.pubsub_shardchannels() == []
    memory.learnt(DROP, Outcome.ALL_RESERVED)
    await until(refuses, "watched again")
    await memory.stop()


async def test_stop_is_idempotent_and_final(
    memory: StockMemory, inventory: Inventory, redis: Redis, clock: ManualClock
) -> None:
    unused = StockMemory(inventory, redis, clock)
    await unused.stop()
    await put_up(inventory, clock, {"black": 0})
    await watched(memory)
    await memory.stop()
    await memory.stop()
    assert told(memory, clock) is None
    memory.learnt(DROP, Outcome.SOLD_OUT)
    assert await memory.refresh_once() == 0
    assert [
        r.outcome
        for r in await inventory.reserve_batch(SALE, [wish("ann", "black*1")])
        if isinstance(r, Refused)
    ] == [Outcome.SOLD_OUT]
