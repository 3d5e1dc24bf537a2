"""Random days of a sale on real Valkey, step by step against a model in plain Python."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from engine.clock import ManualClock
from engine.connections import connect_redis
from engine.inventory import Inventory, SaleRef
from engine.inventory.inventory import Counters, SaleSettings
from engine.keys import shard_keys
from engine.model import (
    Refused,
    Reserved,
    ReserveRequest,
    SaleState,
    make_reservation_id,
)
from engine.servers import EmbeddedValkey
from tests.property.shelf_model import HELD, ShelfModel, parse

SALE_ID = "drop"
KEYS = shard_keys(SALE_ID)
# Few names, so that keys, buyers and last units collide all the time.
USERS = st.sampled_from(["ann", "bob", "cyn"])
IDEMPOTENCY_KEYS = st.sampled_from([f"k{n}" for n in range(8)])
SKUS = ["black", "red", "white"]
QUANTITIES = st.integers(1, 3)
WISHES = st.one_of(
    st.dictionaries(st.sampled_from(SKUS), QUANTITIES, min_size=1, max_size=3),
    st.just({"green": 1}),
    st.just({"black": 1, "green": 1}),
).map(lambda items: ",".join(f"{sku}*{items[sku]}" for sku in sorted(items)))
REASONS = st.sampled_from(["released", "expired", "refunded"])
TARGETS = st.tuples(USERS, IDEMPOTENCY_KEYS)
STEPS_MS = st.sampled_from([1, 999, 5_000, 20_000])

Result = TypeVar("Result")


def request_of(user: str, key: str, items: str) -> ReserveRequest:
    return ReserveRequest(user, make_reservation_id(SALE_ID, user, key), items)


def told(answer: Reserved | Refused) -> str:
    """An answer in the model's words."""
    match answer:
        case Refused(outcome=outcome):
            return outcome.value
        case Reserved(replayed=False):
            return f"RESERVED {answer.reserved_until_ms}"
        case Reserved():
            return f"DUPLICATE {answer.state.value} {answer.reserved_until_ms}"


class ReservationMachine(RuleBasedStateMachine):
    """Every rule does the same to Valkey and to the model and compares what each says."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.redis = connect_redis(self.url, 5)
        self.clock = ManualClock()
        self.inventory = Inventory(self.redis, self.clock, batch_max=8, queue_max=100)
        self.await_(self.empty())

    async def empty(self) -> None:
        await self.redis.flushall()

    def await_(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.await_(self.inventory.stop())
        self.await_(self.redis.aclose())
        self.runner.close()

    @property
    def sale(self) -> SaleRef:
        return SaleRef(SALE_ID, self.model.epoch)

    @initialize(
        stock=st.fixed_dictionaries(dict.fromkeys(SKUS, st.integers(0, 5))),
        per_user_max=st.integers(1, 6),
        opens_in_ms=st.sampled_from([0, 0, 0, 5_000]),
    )
    def launch(self, stock: dict[str, int], per_user_max: int, opens_in_ms: int) -> None:
        now_ms = self.clock.now_ms()
        chosen = SaleSettings(
            revision=1,
            state=SaleState.OPEN,
            opens_at_ms=now_ms + opens_in_ms,
            closes_at_ms=now_ms + 300_000,
            per_user_max=per_user_max,
            reservation_seconds=60,
        )
        self.model = ShelfModel(chosen, epoch=1, stocked=stock)
        self.put_up()

    def put_up(self) -> None:
        """What recovery does too: the counters as they should be."""
        stock = {sku: Counters(*self.model.counters(sku)) for sku in SKUS}
        launched = self.inventory.launch(self.sale, self.model.settings, stock)
        assert self.await_(launched) == "LAUNCHED"

    @rule(wishes=st.lists(st.tuples(USERS, IDEMPOTENCY_KEYS, WISHES), min_size=1, max_size=6))
    def reserve_a_batch(self, wishes: list[tuple[str, str, str]]) -> None:
        self.reserve([request_of(*wish) for wish in wishes])

    @rule(user=USERS, key=IDEMPOTENCY_KEYS, items=WISHES, times=st.integers(2, 4))
    def click_many_times(self, user: str, key: str, items: str, times: int) -> None:
        self.reserve([request_of(user, key, items)] * times)

    @precondition(lambda self: self.model.streamed)
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        """Same key, same items: the first answer again, in whatever state the sale is."""
        user, reservation_id, items = data.draw(st.sampled_from(self.model.streamed))
        text = ",".join(f"{sku}*{units}" for sku, units in items.items())
        [answer] = self.reserve([ReserveRequest(user, reservation_id, text)])
        assert answer.startswith("DUPLICATE")

    @rule(wishes=st.lists(st.tuples(USERS, IDEMPOTENCY_KEYS, WISHES), min_size=2, max_size=12))
    def reserve_through_the_batcher(self, wishes: list[tuple[str, str, str]]) -> None:
        requests = [request_of(*wish) for wish in wishes]

        async def click_together() -> list[Reserved | Refused]:
            return await asyncio.gather(
                *(self.inventory.reserve(self.sale, request) for request in requests)
            )

        self.compare(requests, self.await_(click_together()))

    def reserve(self, requests: Sequence[ReserveRequest]) -> list[str]:
        return self.compare(
            requests, self.await_(self.inventory.reserve_batch(self.sale, requests))
        )

    def compare(
        self, requests: Sequence[ReserveRequest], answers: Sequence[Reserved | Refused]
    ) -> list[str]:
        words = [told(answer) for answer in answers]
        now_ms = self.clock.now_ms()
        assert words == [self.model.reserve(request, now_ms) for request in requests]
        return words

    @rule(whose=st.lists(TARGETS, min_size=1, max_size=4))
    def confirm(self, whose: list[tuple[str, str]]) -> None:
        pairs = [(user, make_reservation_id(SALE_ID, user, key)) for user, key in whose]
        words = self.await_(self.inventory.confirm(self.sale, pairs))
        assert words == [self.model.confirm(*pair) for pair in pairs]

    @rule(whose=st.lists(st.tuples(TARGETS, REASONS), min_size=1, max_size=4))
    def release(self, whose: list[tuple[tuple[str, str], str]]) -> None:
        triples = [
            (user, make_reservation_id(SALE_ID, user, key), reason) for (user, key), reason in whose
        ]
        words = self.await_(self.inventory.release(self.sale, triples))
        assert words == [self.model.release(*triple) for triple in triples]

    @rule()
    def expire_what_is_overdue(self) -> None:
        overdue = [
            (user, reservation_id, "expired")
            for user, mine in self.model.reservations.items()
            for reservation_id, held in mine.items()
            if held.state == "reserved" and held.until_ms <= self.clock.now_ms()
        ]
        words = self.await_(self.inventory.release(self.sale, overdue))
        assert words == [self.model.release(*triple) for triple in overdue]
        assert set(words) <= {"RELEASED"}

    @rule(whose=TARGETS)
    def rereserve(self, whose: tuple[str, str]) -> None:
        user, key = whose
        reservation_id = make_reservation_id(SALE_ID, user, key)
        word = self.await_(self.inventory.rereserve(self.sale, user, reservation_id))
        assert word == self.model.rereserve(user, reservation_id)

    @rule(sku=st.sampled_from([*SKUS, "green"]), stocked=st.integers(0, 12))
    def restock(self, sku: str, stocked: int) -> None:
        word = self.await_(self.inventory.restock(self.sale, sku, stocked))
        assert word == self.model.restock(sku, stocked)

    @rule(
        step=st.sampled_from([-1, 0, 1, 1, 1]),
        state=st.sampled_from([SaleState.OPEN, SaleState.OPEN, SaleState.PAUSED, SaleState.CLOSED]),
        closes_in_ms=st.sampled_from([1, 60_000, 600_000]),
    )
    def configure(self, step: int, state: SaleState, closes_in_ms: int) -> None:
        """Pause, resume, close, open again, extend; old news change nothing."""
        self.change(step, state=state, closes_at_ms=self.clock.now_ms() + closes_in_ms)

    def change(self, step: int, **changes: Any) -> None:
        revision = self.model.settings.revision + step
        changed = msgspec.structs.replace(self.model.settings, revision=revision, **changes)
        word = self.await_(self.inventory.configure(self.sale, changed))
        assert word == self.model.configure(changed)

    @rule(step_ms=STEPS_MS)
    def time_passes(self, step_ms: int) -> None:
        self.clock.advance(seconds=step_ms / 1000)

    @rule()
    def recover(self) -> None:
        """Fence, then put the same stock up at the next epoch; the old one is without power."""
        old = self.sale
        self.model.epoch += 1
        assert self.await_(self.inventory.fence(self.sale)) == "FENCED"
        self.put_up()
        for user, mine in self.model.reservations.items():
            triples = [(user, reservation_id, "refunded") for reservation_id in mine]
            words = self.await_(self.inventory.release(old, triples))
            assert set(words) <= {"STALE_EPOCH"}

    @invariant()
    def units_are_conserved(self) -> None:
        stock = self.await_(self.inventory.snapshot(SALE_ID)).stock
        assert stock == {sku: self.model.counters(sku) for sku in SKUS}
        for sku, counters in stock.items():
            assert min(counters) >= 0
            assert counters.stocked == self.model.stocked[sku]

    @invariant()
    def records_are_those_of_the_model(self) -> None:
        for user in ("ann", "bob", "cyn"):
            found = self.await_(self.inventory.reservations(SALE_ID, user))
            mine = self.model.reservations.get(user, {})
            assert [
                (r.reservation_id, r.state.value, r.reserved_until_ms, parse(r.items_text))
                for r in found
            ] == [(key, one.state, one.until_ms, one.items) for key, one in mine.items()]

    async def entries(self) -> list[Any]:
        found: Any = await self.redis.xrange(KEYS.orders)
        return list(found)

    @invariant()
    def every_promise_reached_the_stream_once(self) -> None:
        entries = self.await_(self.entries())
        lines = [line for _, fields in entries for line in fields[b"batch"].decode().split("\n")]
        streamed = [
            (user, reservation_id, parse(items))
            for reservation_id, user, items in (line.split(" ") for line in lines)
        ]
        assert streamed == self.model.streamed


class ConstantLimit(ReservationMachine):
    """The limit is what it was at the start."""

    @invariant()
    def nobody_holds_more_than_the_limit(self) -> None:
        for user in self.model.reservations:
            found = self.await_(self.inventory.reservations(SALE_ID, user))
            held = [parse(r.items_text) for r in found if r.state.value in HELD]
            units = sum(sum(items.values()) for items in held)
            assert units <= self.model.settings.per_user_max


class ChangingLimit(ReservationMachine):
    """The limit changes too, and binds only those who come after."""

    @rule(per_user_max=st.integers(1, 6))
    def change_the_limit(self, per_user_max: int) -> None:
        self.change(1, per_user_max=per_user_max)


# Finding the shortest failing day takes longer than passing.
pytestmark = pytest.mark.timeout(600)


def run(machine: type[ReservationMachine], valkey: EmbeddedValkey, examples: int) -> None:
    machine.url = valkey.url
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            print_blob=True,  # The line that replays a failure.
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_random_days_go_as_the_model_says_and_nobody_exceeds_the_limit(
    valkey: EmbeddedValkey,
) -> None:
    run(ConstantLimit, valkey, examples=50)


def test_random_days_go_as_the_model_says_while_the_limit_changes(valkey: EmbeddedValkey) -> None:
    run(ChangingLimit, valkey, examples=50)
