"""Random sales on real Valkey: memory says what reserve.lua says, or nothing; nothing to holders."""

import asyncio
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.clock import ManualClock
from engine.connections import connect_redis
from engine.inventory import Inventory
from engine.inventory.inventory import Counters
from engine.inventory.memory import StockMemory
from engine.model import Outcome, Refused, ReserveRequest, SaleState
from engine.servers import EmbeddedValkey
from tests.lua.shelf import SALE, open_settings, wish, word_of
from tests.lua.test_memory import DROP

SKUS = ["black", "red", "white"]
USERS = st.sampled_from([f"user-{number}" for number in range(8)])
REPEATABLE = {"SOLD_OUT", "ALL_RESERVED", "NOT_STARTED", "ENDED", "PAUSED"}

carts = st.dictionaries(
    st.sampled_from([*SKUS, "green"]), st.integers(1, 4), min_size=1, max_size=3
)
WISHES = st.one_of(
    carts.map(lambda cart: ",".join(f"{sku}*{cart[sku]}" for sku in sorted(cart))),
    st.sampled_from(["", "black", "black*1,black*1", "*1", "black*1;red*1", "red*x", "black*٣"]),
)
COUNTERS = st.builds(Counters, st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
RESERVE = st.tuples(st.just("reserve"), USERS, st.sampled_from("ab"), WISHES)
RESOLVE = st.tuples(
    st.sampled_from(["confirm", "released", "refunded"]), USERS, st.sampled_from("ab")
)
RESTOCK = st.tuples(st.just("restock"), st.sampled_from(SKUS), st.integers(0, 12))
CONFIGURE = st.tuples(
    st.just("configure"),
    st.sampled_from([SaleState.OPEN, SaleState.OPEN, SaleState.PAUSED, SaleState.CLOSED]),
    st.integers(-2, 2),  # opens in ms
    st.integers(0, 4),  # closes in ms
    st.integers(1, 6),  # limit per buyer
)
TICK = st.tuples(st.just("tick"), st.integers(1, 3))
STEPS = st.lists(
    st.one_of(RESERVE, RESERVE, RESERVE, RESOLVE, RESTOCK, CONFIGURE, TICK), max_size=25
)


class Day:
    """One sale, its memory, and everybody who ever got a record."""

    def __init__(self, redis: Any) -> None:
        self.redis = redis
        self.clock = ManualClock()
        self.inventory = Inventory(redis, self.clock, batch_max=8, queue_max=8)
        self.memory = StockMemory(self.inventory, redis, self.clock, refresh_seconds=3600)
        self.holders: set[str] = set()
        self.revision = 1

    async def run(self, stock: dict[str, Counters], steps: list[Any]) -> None:
        await self.redis.flushall()
        await self.inventory.launch(SALE, open_settings(self.clock), stock)
        self.memory.learnt(DROP, Outcome.SOLD_OUT)
        try:
            for verb, *rest in steps:
                step = getattr(self, verb) if hasattr(self, verb) else self.release
                await (step(verb, *rest) if step == self.release else step(*rest))
        finally:
            await self.memory.stop()

    async def reserve(self, user: str, key: str, items: str) -> None:
        assert await self.memory.refresh_once() == 1
        said = self.memory.refusal(DROP, user, items, self.clock.now_ms())
        [answer] = await self.inventory.reserve_batch(SALE, [wish(user, items, key)])
        word = word_of(answer)
        expected = word if word in REPEATABLE and user not in self.holders else None
        assert said == expected
        if not isinstance(answer, Refused):
            self.holders.add(user)

    async def confirm(self, user: str, key: str) -> None:
        await self.inventory.confirm(SALE, [(user, request(user, key).reservation_id)])

    async def release(self, reason: str, user: str, key: str) -> None:
        await self.inventory.release(SALE, [(user, request(user, key).reservation_id, reason)])

    async def restock(self, sku: str, stocked: int) -> None:
        await self.inventory.restock(SALE, sku, stocked)

    async def configure(self, state: SaleState, opens: int, closes: int, limit: int) -> None:
        self.revision += 1
        now_ms = self.clock.now_ms()
        changed = open_settings(
            self.clock,
            revision=self.revision,
            state=state,
            opens_at_ms=now_ms + opens,
            closes_at_ms=now_ms + closes,
            per_user_max=limit,
        )
        assert await self.inventory.configure(SALE, changed) == "CONFIGURED"

    async def tick(self, ms: int) -> None:
        self.clock.advance(seconds=ms / 1000)


def request(user: str, key: str) -> ReserveRequest:
    return wish(user, "", key)


def test_memory_says_what_the_script_says_to_everybody_who_holds_nothing(
    valkey: EmbeddedValkey,
) -> None:
    with asyncio.Runner() as runner:
        redis = connect_redis(valkey.url, 5)

        @settings(
            max_examples=120,
            deadline=None,
            print_blob=True,  # The line that replays a failure.
            suppress_health_check=list(HealthCheck),
        )
        @given(stock=st.fixed_dictionaries(dict.fromkeys(SKUS, COUNTERS)), steps=STEPS)
        def any_day(stock: dict[str, Counters], steps: list[Any]) -> None:
            runner.run(Day(redis).run(stock, steps))

        any_day()
        runner.run(redis.aclose())
