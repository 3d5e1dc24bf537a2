"""One simulated day of a sale: an event loop on a virtual clock. Visitors and the store are models.

All else is the engine's own, reached through `Shop`: the room's scripts on a real Redis, the room in
each front's memory, the tickets, the pace, the meter before a reserve call, and the stock's scripts.
"""

from array import array
from collections import defaultdict
from enum import IntEnum
from typing import Final

from benchmarks.admission.crowd import NEVER, TICKS_PER_SECOND, Crowd
from benchmarks.admission.pipeline import Store
from benchmarks.admission.record import Record
from benchmarks.admission.shop import Click, Said, Shop

END_SECONDS_MAX: Final = 3600  # After T0: then the day ends, whatever is left.
PLACES_TOLD_FACTOR: Final = (
    10  # Promises are kept of so many places per unit; the others are hopeless.
)
WAITS: Final = frozenset({"prequeue", "waiting"})
HOPELESS: Final = frozenset({"slim", "none"})
WATCH_TICKS: Final = 50  # Every so often Redis is asked whether polls reached it.
RETRY_RESERVED_SECONDS: Final = 4.0  # A page asks again when all units are in others' hands.


class State(IntEnum):
    """Where a visitor is. A visitor has one pending event at most."""

    COMING = 0
    WAITING = 1  # polls
    AWAY = 2  # left, may come back
    DECIDING = 3  # admitted, has not clicked yet
    GONE = 4


# An enum's member is looked up at every use, and these are used at every poll.
WAITING: Final = int(State.WAITING)
DECIDING: Final = int(State.DECIDING)


class Day:
    """The crowd, the shop and the store, tick by tick."""

    def __init__(self, crowd: Crowd, shop: Shop, store: Store) -> None:
        visitors = crowd.plan.visitors
        self.crowd, self.store, self._shop = crowd, store, shop
        self.first_sold_out_s: float | None = None  # None available for the first time
        self.t0_tick = int(crowd.plan.prequeue_seconds * TICKS_PER_SECOND)
        self.record = Record(visitors, self.t0_tick)
        self.tick = 0
        self._state = bytearray(visitors)
        self._users = [f"v{number}" for number in range(visitors)]
        self._front = bytearray(number % shop.fronts for number in range(visitors))
        self._tickets: list[bytes] = [b""] * visitors
        self._number = [0] * visitors
        self._leaves_at = [NEVER] * visitors
        self._places_told_max = PLACES_TOLD_FACTOR * shop.units
        self._here_since = array("i", bytes(4 * visitors))
        self._wants = bytearray(visitors)
        self._clicks = bytearray(visitors)  # so far: each repeats the same reservation id
        self._due: defaultdict[int, list[int]] = defaultdict(list)
        self._fates: defaultdict[int, list[tuple[int, str, str]]] = defaultdict(list)
        self._here = 0  # visitors who have an event to come
        for visitor, at in enumerate(crowd.arrivals()):
            self._plan(visitor, at)

    async def run(self) -> None:
        """Until nobody waits and nothing is reserved."""
        end = self.t0_tick + END_SECONDS_MAX * TICKS_PER_SECOND
        while self.tick < end and (self._here or self._fates):
            await self.tick_once()
        await self._look()

    async def tick_once(self) -> None:
        """A tenth of a second."""
        await self._look()
        due = self._due.pop(self.tick, [])
        self._here -= len(due)
        coming: list[int] = []
        clicking: list[int] = []
        watched = not self.tick % WATCH_TICKS
        before = await self._shop.commands() if watched else 0
        self._take_turns(due, coming, clicking)
        if watched:
            # The question itself is one.
            made = await self._shop.commands() - before - 1
            self.record.counts["redis_calls_in_polls"] += made
            self.record.counts["polls_watched"] += len(due) - len(coming) - len(clicking)
        if coming:
            await self._enter(coming)
        if clicking:
            await self._click(clicking)
        if self.tick in self._fates:
            await self._resolve(self._fates.pop(self.tick))
        if done := self.store.store(self.tick):
            await self._shop.forget_stored(self.store.backlog)
        self._shop.measure(self.tick, done, self.store.backlog)
        if self.tick % TICKS_PER_SECOND == 0:
            self._write_second()
        self.tick += 1

    async def _look(self) -> None:
        look = await self._shop.look(self.tick)
        record = self.record
        record.serving.append(look.serving)
        if look.available == 0 and self.first_sold_out_s is None:
            self.first_sold_out_s = self.seconds_after_t0(self.tick)
        sold_out = look.available == 0 and look.reserved == 0 and look.sold > 0
        if sold_out and record.gone_at == NEVER:
            record.gone_at = self.tick
        elif not sold_out:
            record.gone_at = NEVER

    def seconds_after_t0(self, tick: int) -> float:
        return (tick - self.t0_tick) / TICKS_PER_SECOND

    def _plan(self, visitor: int, at: int) -> None:
        if at < NEVER:
            self._due[at].append(visitor)
            self._here += 1

    # Visitors' turns.

    def _take_turns(self, due: list[int], coming: list[int], clicking: list[int]) -> None:
        state, leaves_at, tick = self._state, self._leaves_at, self.tick
        polling: list[int] = []
        for visitor in due:
            where = state[visitor]
            if where == WAITING:
                if leaves_at[visitor] <= tick:
                    self._leave(visitor)
                else:
                    polling.append(visitor)
            elif where == DECIDING:
                clicking.append(visitor)
            elif where != State.GONE:
                coming.append(visitor)
        self._poll(polling)

    def _leave(self, visitor: int) -> None:
        """Leaves without a word, as people do; some come back."""
        self.record.counts["left"] += 1
        self._state[visitor] = State.AWAY
        back = self.crowd.returns_in()
        if back == NEVER:
            self._state[visitor] = State.GONE
        else:
            self._front[visitor] = (self._front[visitor] + 1) % self._shop.fronts
            self._plan(visitor, self.tick + back)

    def _poll(self, polling: list[int]) -> None:
        """Written for ten million polls: what is used at each of them is looked up once."""
        poll, tickets, users, front = self._shop.poll, self._tickets, self._users, self._front
        wait_on, hear = self._wait_on, self._hear
        for visitor in polling:
            said = poll(front[visitor], tickets[visitor], users[visitor])
            if said is None:  # The ticket is over: as a page does, it takes one anew.
                self.record.counts["polls_without_ticket"] += 1
                self._state[visitor] = State.AWAY
                self._plan(visitor, self.tick + 1)
            elif said.state in WAITS:  # As nearly all are told.
                tickets[visitor] = said.ticket.encode()
                wait_on(visitor, said)
            else:
                hear(visitor, said)
        self.record.counts["polls"] += len(polling)

    def _hear(self, visitor: int, said: Said) -> None:
        """What a poll, or taking a ticket, was answered."""
        record, state = self.record, said.state
        self._tickets[visitor] = said.ticket.encode()
        if state == "admitted":
            record.told_admitted(visitor, self._place(visitor), self.tick)
            self._be_admitted(visitor)
        elif state == "gone":
            record.told_gone(visitor, self.tick, self._here_since[visitor])
            self._state[visitor] = State.GONE
        else:
            self._wait_on(visitor, said)

    def _wait_on(self, visitor: int, said: Said) -> None:
        record, interval_s, says = self.record, said.poll_after_seconds, said.chance_says
        record.says[says] += 1
        if said.eta_seconds is not None:
            place = self._place(visitor)
            if place <= self._places_told_max:
                record.promise(place, self.tick, said)
        if said.state == "waiting":
            record.told_to_wait(self._place(visitor))
            if says in HOPELESS and self.crowd.gives_up(visitor, says):
                record.counts["gave_up"] += 1
                self._state[visitor] = State.GONE
                return
        record.interval_s[visitor] = interval_s
        self._state[visitor] = WAITING
        self._due[self.tick + self.crowd.polls_in(visitor, interval_s)].append(visitor)
        self._here += 1

    def _place(self, visitor: int) -> int:
        places, number = self._shop.places, self._number[visitor]
        return places[number - 1] if number <= len(places) else number

    def _be_admitted(self, visitor: int) -> None:
        record = self.record
        record.counts["admitted"] += 1
        record.counts["bots_admitted"] += self.crowd.is_bot[visitor]
        if not self.crowd.comes(visitor):
            record.counts["no_shows"] += 1
            self._state[visitor] = State.GONE
            return
        self._state[visitor] = State.DECIDING
        self._wants[visitor] = self.crowd.wants()
        self._plan(visitor, self.tick + self.crowd.thinks(visitor))

    # Steps that Redis takes part in, all visitors of a tick together.

    async def _enter(self, coming: list[int]) -> None:
        """Takes tickets; a bot asks for several."""
        is_bot, plan = self.crowd.is_bot, self.crowd.plan
        asking = [v for v in coming for _ in range(plan.bot_tickets if is_bot[v] else 1)]
        wishes = [(self._front[v], self._users[v], self._tickets[v]) for v in asking]
        highest = [self._shop.last_look.issued] * self._shop.fronts
        numbers: dict[int, int] = {}
        for visitor, entry in zip(asking, await self._shop.enter(wishes), strict=True):
            if entry is None:
                self.record.counts["entries_refused"] += 1
                self._state[visitor] = State.GONE
                continue
            number, kept, said = entry
            self.record.counts["second_numbers"] += numbers.setdefault(visitor, number) != number
            self.record.counts["kept" if kept else "issued"] += 1
            if not kept:
                # Of two who came to two fronts in the same tick nobody was first.
                front = self._front[visitor]
                self.record.counts["out_of_order"] += number <= highest[front]
                highest[front] = number
            self._number[visitor] = number
            if self._state[visitor] in {State.COMING, State.AWAY}:
                self._leaves_at[visitor] = self.tick + self.crowd.leaves_in(visitor)
                self._here_since[visitor] = self.tick
                self._hear(visitor, said)

    async def _click(self, clicking: list[int]) -> None:
        """Those admitted click; the meter may ask them to wait."""
        asked: list[int] = []
        clicks: list[Click] = []
        for visitor in clicking:
            ticket, user = self._tickets[visitor], self._users[visitor]
            number = self._shop.check(self._front[visitor], ticket, user)
            if number <= 0:
                self.record.counts["tickets_over"] += 1
                self._state[visitor] = State.GONE
            elif wait_s := self._shop.meter_wait_s(self._front[visitor]):
                self.record.counts["metered"] += 1
                self._plan(visitor, self.tick + self.crowd.retries_in(max(1.0, wait_s)))
            else:
                asked.append(visitor)
                clicks.append(Click(user, self._clicks[visitor], self._wants[visitor], number))
        if clicks:
            outcomes = await self._shop.reserve(clicks)
            for visitor, (word, reservation_id) in zip(asked, outcomes, strict=True):
                self._be_answered(visitor, word, reservation_id)

    def _be_answered(self, visitor: int, word: str, reservation_id: str) -> None:
        record, crowd = self.record, self.crowd
        record.counts[f"outcome {word}"] += 1
        self._clicks[visitor] += 1
        self._state[visitor] = State.GONE
        if word == "RESERVED":
            self.store.take(1)
            fate, after = crowd.ends(visitor)
            if fate == "expires":
                after = int(self._shop.reservation_seconds * TICKS_PER_SECOND)
            self._fates[self.tick + after].append((visitor, reservation_id, fate))
        elif word == "ALL_RESERVED":
            self._wants[visitor] = 1  # One is better than none.
            self._state[visitor] = State.DECIDING
            self._plan(visitor, self.tick + crowd.retries_in(RETRY_RESERVED_SECONDS))

    async def _resolve(self, fates: list[tuple[int, str, str]]) -> None:
        """Reservations are paid, given back, or expire."""
        paid = [(self._users[v], rid) for v, rid, fate in fates if fate == "pays"]
        back = [
            (self._users[v], rid, "expired" if fate == "expires" else "released")
            for v, rid, fate in fates
            if fate != "pays"
        ]
        await self._shop.resolve(paid, back)
        for visitor, _, fate in fates:
            self.record.counts[fate] += 1
            if fate == "pays":
                kind = "bots" if self.crowd.is_bot[visitor] else "people"
                self.record.units[kind] += self._wants[visitor]

    def _write_second(self) -> None:
        look, record = self._shop.last_look, self.record
        record.seconds.append(
            {
                "s": (self.tick - self.t0_tick) // TICKS_PER_SECOND,
                "issued": look.issued,
                "serving": look.serving,
                "admitted": look.admitted,
                "waiting": look.waiting,
                "available": look.available,
                "reserved": look.reserved,
                "sold": look.sold,
                "rate": round(look.rate, 1),
                "pace": self._shop.pace if self._shop.pace < 1e9 else None,
                "capacity": round(self.store.per_second, 1),
                "backlog": self.store.backlog,
                "says": dict(record.says),
            }
        )
        record.says.clear()
