"""The engine's own admission, as a simulated day drives it: fronts in memory, one real Redis, no HTTP.

Every decision visitors meet here is made by the engine's code: the room's scripts, its kernel in each
front, tickets, forecast and draw, the pace, the meter, and the scripts that move the stock.
"""

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
from redis.asyncio import Redis

from benchmarks.admission.crowd import TICKS_PER_SECOND
from engine.admission.pace import HopPace
from engine.admission.pulse import BURST_SECONDS
from engine.admission.room.draw import draw
from engine.admission.room.forecast import Forecast
from engine.admission.room.settings import RoomOrder, RoomSettings
from engine.admission.room.store import (
    ENTER_BATCH_MAX,
    Entered,
    RoomLook,
    RoomStore,
    _Wish,
)
from engine.admission.room.tickets import ticket_key
from engine.clock import ManualClock
from engine.inventory import Inventory
from engine.inventory.inventory import Counters, SaleRef, SaleSettings
from engine.model import Refused, ReserveRequest, SaleState, make_reservation_id
from ext import Meter, Room

SALE: Final = "singles-day"
SKU: Final = "phone"
SECRET: Final = "simulation-secret-" * 2
EPOCH: Final = 1
SEED: Final = bytes(range(32))  # of the draw
ATTEND_TICKS: Final = 5 * TICKS_PER_SECOND  # as fronts do
PACE_TICKS: Final = 2  # as the worker measures
RESERVE_BATCH_MAX: Final = 256


class Said(msgspec.Struct, frozen=True, gc=False):
    """What of a poll's answer a visitor reads."""

    state: str
    poll_after_seconds: float
    ticket: str
    eta_seconds: float | None = None
    eta_range_seconds: tuple[float, float] | None = None
    chance: float | None = None
    chance_says: str | None = None


class Click(NamedTuple):
    """A reserve call. `click` tells a buyer's calls apart, as an Idempotency-Key does."""

    user_id: str
    click: int
    units: int
    number: int


class ShopPlan(msgspec.Struct, frozen=True):
    """The sale. The pace is at most `pace_max` people per second: what an operator set."""

    units: int = 10_000
    order: str = "fifo"
    pace_max: int | None = 100
    over_admission: float = 1.6  # A third of those admitted will not buy.
    admission_seconds: int = 60
    reservation_seconds: int = 180
    fronts: int = 2


class Front:
    """One process's memory: the room, its forecast, the numbers it knows, and its meter."""

    def __init__(self, redis: Redis, clock: ManualClock, settings: RoomSettings) -> None:
        self.store = RoomStore(redis, clock, our_clock_rules=True)
        self.forecast = Forecast()
        self.room = Room(SALE, ticket_key(SECRET), self.forecast)
        self.room.learn_settings(
            admission_seconds=settings.admission_seconds, absent_seconds=settings.absent_seconds
        )
        self.meter = Meter(clock)


class Shop:
    """The sale and its fronts. `now_ms` is the simulation's clock, for Redis as well."""

    def __init__(self, redis: Redis, plan: ShopPlan, clock: ManualClock, prequeue_s: float) -> None:
        self._plan = plan
        self._clock = clock
        self._opens_ms = clock.now_ms() + int(prequeue_s * 1000)
        self._settings = RoomSettings(
            revision=1,
            on=True,
            order=RoomOrder(plan.order),
            prequeue_seconds=int(prequeue_s),
            pace_max=plan.pace_max,
            over_admission=plan.over_admission,
            admission_seconds=plan.admission_seconds,
        )
        self._redis = redis
        self._inventory = Inventory(redis, clock, batch_max=RESERVE_BATCH_MAX, queue_max=1)
        self._sale = SaleRef(SALE, EPOCH)
        self._fronts = [Front(redis, clock, self._settings) for _ in range(plan.fronts)]
        # A store of a hundred a second has a queue when as many wait, not only when thousands do.
        self._hop = HopPace(target_seconds=1.0, rate_first=100.0, waiting_min=25)
        self._stored = 0
        self.places: Sequence[int] = ()  # that the draw made of the first so many numbers
        self._entries: list[int] = []  # reservations in each entry of the stream
        self._decode = msgspec.json.Decoder(Said).decode
        self._now_s = clock.now_ms() / 1000
        self.pace = math.inf
        self.calls: dict[str, int] = {}  # to Redis, by script
        self.last_look: RoomLook

    @property
    def units(self) -> int:
        return self._plan.units

    @property
    def fronts(self) -> int:
        return len(self._fronts)

    @property
    def reservation_seconds(self) -> int:
        return self._plan.reservation_seconds

    async def open(self) -> None:
        """Puts the sale and its room up."""
        settings = SaleSettings(
            revision=1,
            state=SaleState.OPEN,
            opens_at_ms=self._opens_ms,
            closes_at_ms=self._opens_ms + 86_400_000,
            per_user_max=2,
            reservation_seconds=self._plan.reservation_seconds,
        )
        stock = {SKU: Counters(self._plan.units, 0, 0)}
        assert await self._inventory.launch(self._sale, settings, stock) == "LAUNCHED"
        store = self._fronts[0].store
        assert await store.furnish(SALE, self._settings, SEED.hex())

    # Each tick.

    async def look(self, tick: int) -> RoomLook:
        """Every front turns the crank and learns how the room stands."""
        self._clock.advance(seconds=1 / TICKS_PER_SECOND)
        self._now_s = self._clock.now_ms() / 1000
        for number, front in enumerate(self._fronts):
            look = await front.store.serve(SALE, self.pace)
            self._count("serve")
            assert look is not None
            front.forecast.expect(self._settings, self.pace)
            front.room.learn(look)
            if front.room.needs_draw:
                self._learn_draw(front, look)
            if (tick + number * ATTEND_TICKS // self.fronts) % ATTEND_TICKS == 0:
                await self._attend(front, look)
            self.last_look = look
        return self.last_look

    async def _attend(self, front: Front, look: RoomLook) -> None:
        there = await front.store.attend(SALE, front.room.take_attendance(), look.drawn)
        self._count("attend")
        front.room.learn_present(there.present, there.mark)

    def _learn_draw(self, front: Front, look: RoomLook) -> None:
        assert look.seed is not None
        assert look.drawn is not None
        if not self.places:
            self.places = draw(bytes.fromhex(look.seed), look.drawn)
        front.room.learn_draw(self.places)

    def measure(self, tick: int, done: int, waiting: int) -> None:
        """What the worker does: the pace from what was stored and what waits, to all fronts' meters."""
        self._stored += done
        if tick % PACE_TICKS:
            return
        self.pace = self._hop.measure(self._clock.monotonic(), self._stored, waiting)
        share = self.pace / self.fronts
        for front in self._fronts:
            front.meter.set_rate(share, max(1.0, share * BURST_SECONDS))

    async def forget_stored(self, waiting: int) -> None:
        """Deletes what was stored from the stream, oldest first, as the drainer does."""
        kept, count = 0, 0
        for reservations in reversed(self._entries):
            if count >= waiting:
                break
            count += reservations
            kept += 1
        if kept < len(self._entries):
            self._entries = self._entries[len(self._entries) - kept :]
            await self._redis.xtrim(f"sale:{{{SALE}.0}}:orders", maxlen=kept, approximate=False)

    async def commands(self) -> int:
        """How many commands Redis has processed, this question included."""
        return int((await self._redis.info("stats"))["total_commands_processed"])

    # What visitors ask.

    def poll(self, front: int, ticket: bytes, user_id: str) -> Said | None:
        """No call to Redis: the room is in the front's memory."""
        body = self._fronts[front].room.poll(ticket, user_id, self._now_s)
        return None if body is None else self._decode(body)

    def check(self, front: int, ticket: bytes, user_id: str) -> int:
        return self._fronts[front].room.check(ticket, user_id, self._now_s)

    def meter_wait_s(self, front: int) -> float:
        return self._fronts[front].meter.admit()

    async def enter(self, wishes: Sequence[tuple[int, str, bytes]]) -> list[Any]:
        """(number, kept, said) for each (front, user, ticket of before); None where there is no place."""
        entries: list[Any] = [None] * len(wishes)
        for number, front in enumerate(self._fronts):
            mine = [at for at, wish in enumerate(wishes) if wish[0] == number]
            for first in range(0, len(mine), ENTER_BATCH_MAX):
                part = mine[first : first + ENTER_BATCH_MAX]
                asked = [self._wish(front, wishes[at]) for at in part]
                # As its own batcher calls it: a future and a task for each of a million would take
                # longer than all the rest.
                found = await front.store._enter(SALE, asked)  # noqa: SLF001
                self._count("enter")
                for at, entry in zip(part, found, strict=True):
                    entries[at] = self._issue(wishes[at], entry)
        return entries

    def _wish(self, front: Front, wish: tuple[int, str, bytes]) -> _Wish:
        _, user_id, ticket = wish
        holds = bool(ticket) and front.room.check(ticket, user_id, self._now_s) != 0
        return _Wish(user_id, holds, None)

    def _issue(self, wish: tuple[int, str, bytes], entry: Any) -> Any:
        if not isinstance(entry, Entered):
            return None
        front, user_id, _ = wish
        _, body = self._fronts[front].room.issue(user_id, entry.number, self._now_s)
        return entry.number, entry.kept, self._decode(body)

    async def reserve(self, clicks: Sequence[Click]) -> list[tuple[str, str]]:
        """(outcome, reservation id) of each."""
        answers: list[tuple[str, str]] = []
        for first in range(0, len(clicks), RESERVE_BATCH_MAX):
            part = clicks[first : first + RESERVE_BATCH_MAX]
            requests = [
                ReserveRequest(
                    click.user_id,
                    make_reservation_id(SALE, click.user_id, str(click.click)),
                    f"{SKU}*{click.units}",
                )
                for click in part
            ]
            numbers = [click.number for click in part]
            found = await self._inventory.reserve_batch(self._sale, requests, numbers)
            self._count("reserve")
            words = ["RESERVED" if not isinstance(a, Refused) else a.outcome.value for a in found]
            answers += zip(words, (r.reservation_id for r in requests), strict=True)
            if reserved := words.count("RESERVED"):
                self._entries.append(reserved)
        return answers

    async def resolve(
        self, paid: Sequence[tuple[str, str]], back: Sequence[tuple[str, str, str]]
    ) -> None:
        """Reservations become sold, or their units available again."""
        if paid:
            words = await self._inventory.confirm(self._sale, paid)
            self._count("confirm")
            assert set(words) == {"CONFIRMED"}, words
        if back:
            words = await self._inventory.release(self._sale, back)
            self._count("release")
            assert set(words) == {"RELEASED"}, words

    def _count(self, script: str, calls: int = 1) -> None:
        self.calls[script] = self.calls.get(script, 0) + calls
