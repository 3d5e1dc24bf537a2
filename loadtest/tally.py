"""Counts what a crowd was told and how long it took. No I/O."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Self

import msgspec

from loadtest.latencies import Latencies

ACCEPTED: Final = "accepted"  # the buyer's first 201, or 200 if the 201 was lost on its way
REPLAYED: Final = "replayed"  # the same reservation once more
SHED: Final = "shed"  # still 503 or 429 after the last attempt
LOST: Final = "lost"  # no answer even to the last attempt
UNFINISHED: Final = "unfinished"  # time was up
# Everything else is counted by the `code` of its problem: sold_out, limit_reached, …


class Tally:
    """What has happened so far; readable while the crowd runs."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()  # one per click
        self.settled = 0  # clicks that have their outcome
        self.statuses: Counter[int] = Counter()  # one per HTTP answer
        self.answers_of_second: Counter[int] = Counter()  # second of the crowd → HTTP answers
        self.first_accepted_s: float | None = None  # a first 201, by the machine's monotonic clock
        self.last_accepted_s: float | None = None
        self.promises: dict[bytes, str] = {}  # key → public id of the reservation promised
        self.created: set[bytes] = set()  # keys that were answered 201
        self.broken: list[str] = []  # promises that contradict each other
        self.requests = 0  # HTTP requests sent, repeats included
        self.disconnects = 0
        self.timeouts = 0
        self.latencies = Latencies()  # intended → final answer
        self.accepted_latencies = Latencies()  # of those, the accepted
        self.exchanges = Latencies()  # sent → answered, of every request

    @property
    def acknowledged(self) -> set[str]:
        """Public ids of the reservations that were promised."""
        return set(self.promises.values())

    def conclude(self, outcome: str, clicks: int = 1) -> None:
        """Notes the outcome of clicks, for good."""
        self.outcomes[outcome] += clicks
        self.settled += clicks

    def promise(self, key: bytes, reservation_id: str, now_s: float, *, created: bool) -> str:
        """Notes a 201 (`created`) or 200; says whether it is the key's first."""
        if created:
            self._create(key, reservation_id, now_s)
        known = self.promises.get(key)
        if known is None:
            self.promises[key] = reservation_id
            return ACCEPTED
        if known != reservation_id:
            self.broken.append(f"one key, two reservations: {known} and {reservation_id}")
        return REPLAYED

    def _create(self, key: bytes, reservation_id: str, now_s: float) -> None:
        if key in self.created:
            self.broken.append(f"one key was answered 201 twice: {reservation_id}")
        self.created.add(key)
        self.last_accepted_s = now_s
        if self.first_accepted_s is None:
            self.first_accepted_s = now_s

    def fold(self) -> None:
        """Counts the latencies that wait for it, so that they take little room."""
        for latencies in (self.latencies, self.accepted_latencies, self.exchanges):
            latencies.fold()

    def merge(self, other: Self) -> None:
        """Adds what another part of the same crowd was told. Parts share no key."""
        self.outcomes.update(other.outcomes)
        self.settled += other.settled
        self.statuses.update(other.statuses)
        self.answers_of_second.update(other.answers_of_second)
        self.first_accepted_s = _of(min, self.first_accepted_s, other.first_accepted_s)
        self.last_accepted_s = _of(max, self.last_accepted_s, other.last_accepted_s)
        self.promises |= other.promises
        self.created |= other.created
        self.broken += other.broken
        self.requests += other.requests
        self.disconnects += other.disconnects
        self.timeouts += other.timeouts
        self.latencies.merge(other.latencies)
        self.accepted_latencies.merge(other.accepted_latencies)
        self.exchanges.merge(other.exchanges)


def _of(choose: Callable[[Sequence[float]], float], *moments: float | None) -> float | None:
    known = [moment for moment in moments if moment is not None]
    return choose(known) if known else None


class CrowdReport(msgspec.Struct, frozen=True):
    """The crowd's day in numbers. Durations in seconds."""

    clicks: int
    seconds: float  # from the start to the last answer
    last_answer_s: float  # by the machine's monotonic clock
    cpu_seconds: float  # of the generator, in that time
    tally: Tally

    @property
    def requests_per_second(self) -> float:
        return self.tally.statuses.total() / self.seconds if self.seconds else 0.0

    @property
    def accepted_per_second(self) -> float | None:
        """From the first acceptance to the last; None if there are not two moments."""
        first_s, last_s = self.tally.first_accepted_s, self.tally.last_accepted_s
        if first_s is None or last_s is None or first_s == last_s:
            return None
        return len(self.tally.created) / (last_s - first_s)
