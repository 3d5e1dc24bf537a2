"""Counts what a crowd was told and how long it took. Exact: keeps every latency."""

import math
from array import array
from collections import Counter
from typing import Final

import msgspec

ACCEPTED: Final = "accepted"  # the buyer's first 201, or 200 if the 201 was lost on its way
REPLAYED: Final = "replayed"  # the same reservation once more
SHED: Final = "shed"  # still 503 or 429 after the last attempt
LOST: Final = "lost"  # no answer even to the last attempt
UNFINISHED: Final = "unfinished"  # time was up
# Everything else is counted by the `code` of its problem: sold_out, limit_reached, …


class Latencies:
    """Durations in seconds, all of them."""

    def __init__(self) -> None:
        self._seconds = array("d")
        self.add = self._seconds.append

    def __len__(self) -> int:
        return len(self._seconds)

    def percentiles(self, *percents: float) -> list[float]:
        """The smallest recorded durations that cover these shares, in seconds; 0 if there is none."""
        ordered = sorted(self._seconds)
        if not ordered:
            return [0.0] * len(percents)
        return [ordered[max(0, math.ceil(len(ordered) * p / 100) - 1)] for p in percents]


class Tally:
    """What has happened so far; readable while the crowd runs."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()  # one per click
        self.settled = 0  # clicks that have their outcome
        self.statuses: Counter[int] = Counter()  # one per HTTP answer
        self.answers_of_second: Counter[int] = Counter()  # second of the crowd → HTTP answers
        self.acknowledged: set[str] = set()  # public ids of the reservations that were promised
        self.promises: dict[bytes, str] = {}  # key → that id
        self.created: set[bytes] = set()  # keys that were answered 201
        self.broken: list[str] = []  # promises that contradict each other
        self.requests = 0  # HTTP requests sent, repeats included
        self.disconnects = 0
        self.timeouts = 0
        self.latencies = Latencies()  # intended → final answer
        self.accepted_latencies = Latencies()  # of those, the accepted
        self.exchanges = Latencies()  # sent → answered, of every request

    def conclude(self, outcome: str, clicks: int = 1) -> None:
        """Notes the outcome of clicks, for good."""
        self.outcomes[outcome] += clicks
        self.settled += clicks

    def promise(self, key: bytes, reservation_id: str, *, created: bool) -> str:
        """Notes a 201 (`created`) or 200; says whether it is the key's first."""
        if created and key in self.created:
            self.broken.append(f"one key was answered 201 twice: {reservation_id}")
        if created:
            self.created.add(key)
        known = self.promises.get(key)
        if known is None:
            self.promises[key] = reservation_id
            self.acknowledged.add(reservation_id)
            return ACCEPTED
        if known != reservation_id:
            self.broken.append(f"one key, two reservations: {known} and {reservation_id}")
        return REPLAYED


class CrowdReport(msgspec.Struct, frozen=True):
    """The crowd's day in numbers. Durations in seconds."""

    clicks: int
    seconds: float  # from the start to the last answer
    tally: Tally

    @property
    def requests_per_second(self) -> float:
        return self.tally.statuses.total() / self.seconds if self.seconds else 0.0
