"""Writes down what visitors of a simulated day were told, and judges it afterwards.

Knows the visitors' side only: what polls and clicks were answered, and how the line moved.
"""

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from benchmarks.admission.crowd import NEVER, TICKS_PER_SECOND
from benchmarks.admission.shop import Said

SCATTER_MAX: Final = 600  # promises shown in the plot
CHANCE_BINS: Final = 10
FRONTS_APART: Final = 2  # ticks: two fronts look at the room at different moments


class Promise(NamedTuple):
    """What one poll was told, and what came: both in seconds."""

    eta_s: float
    low_s: float
    high_s: float
    actual_s: float
    interval_s: float
    is_open: bool  # made after the opening, not before it

    @property
    def error(self) -> float:
        """|promised − actual| / max(actual, poll interval)."""
        return abs(self.eta_s - self.actual_s) / max(self.actual_s, self.interval_s)


class Record:
    """One day, as it was told. Places are those in the line: numbers, or what a draw made of them."""

    def __init__(self, visitors: int, t0_tick: int = 0) -> None:
        self._t0_tick = t0_tick
        self.counts: Counter[str] = Counter()
        self.units: Counter[str] = Counter()  # sold, by kind of buyer
        self.admitted_at = array("i", [-1]) * visitors
        self.interval_s = array("f", [0.0]) * visitors  # until the next poll, as told by the last
        self.gone_at = NEVER  # the tick from which nothing could be had any more
        self.gone_wait_s = 0.0  # the longest from then to being told …
        self.gone_beyond_s = 0.0  # … and the most of it beyond the interval between polls
        self.serving = array("I")  # at each tick
        self.says: Counter[str | None] = (
            Counter()
        )  # polls of the running second, by what they were told
        self.seconds: list[dict[str, Any]] = []
        self._promises: tuple[array[Any], ...] = tuple(array(kind) for kind in "IIfffff")
        self._highest_told = self._highest_before = self._told_tick = 0

    def promise(self, place: int, tick: int, said: Said) -> None:
        """Somebody who waits in this place was told an ETA."""
        eta_s = said.eta_seconds or 0.0
        low_s, high_s = said.eta_range_seconds or (eta_s, eta_s)
        told = (place, tick, eta_s, low_s, high_s, said.poll_after_seconds, said.chance or 0.0)
        for column, value in zip(self._promises, told, strict=True):
            column.append(value)

    def told_to_wait(self, place: int) -> None:
        """Nobody later in the line may have been let in before."""
        if place <= self._highest_before:
            self.counts["passed_over"] += 1

    def told_admitted(self, visitor: int, place: int, tick: int) -> None:
        self.admitted_at[visitor] = tick
        if tick >= self._told_tick + FRONTS_APART:
            self._told_tick, self._highest_before = tick, self._highest_told
        self._highest_told = max(self._highest_told, place)

    def told_gone(self, visitor: int, tick: int, here_since: int) -> None:
        self.counts["told_gone"] += 1
        self.counts["told_gone_too_early"] += tick < self.gone_at
        waited_s = max(0, tick - max(self.gone_at, here_since)) / TICKS_PER_SECOND
        self.gone_wait_s = max(self.gone_wait_s, waited_s)
        self.gone_beyond_s = max(self.gone_beyond_s, waited_s - self.interval_s[visitor])

    # Judged when all is over.

    def kept(self) -> Iterator[Promise]:
        """Promises made to those who were served."""
        last = self.serving[-1] if self.serving else 0
        for place, tick, eta_s, low_s, high_s, interval_s, _ in zip(*self._promises, strict=True):
            if place <= last:
                served = bisect_left(self.serving, place)
                actual_s = (served - tick) / TICKS_PER_SECOND
                is_open = tick >= self._t0_tick
                yield Promise(eta_s, low_s, high_s, actual_s, interval_s, is_open)

    def eta(self) -> dict[str, Any]:
        """How far promises were from what came."""
        kept = list(self.kept())
        if not kept:
            return {"promises": 0}
        inside = sum(p.low_s - 0.5 <= p.actual_s <= p.high_s + 0.5 for p in kept)
        return {
            "promises": len(kept),
            **_errors(kept),
            "after_opening": _errors([promise for promise in kept if promise.is_open]),
            "inside_range": round(inside / len(kept), 4),
            "points": [
                (round(p.eta_s, 1), round(p.actual_s, 1))
                for p in kept[:: max(1, len(kept) // SCATTER_MAX)]
            ],
        }

    def chances(self) -> list[dict[str, float]]:
        """Of the chances that were told, in tenths: how many of those people were served."""
        last = self.serving[-1] if self.serving else 0
        told, served = [0] * CHANCE_BINS, [0] * CHANCE_BINS
        for place, chance in zip(self._promises[0], self._promises[6], strict=True):
            tenth = min(CHANCE_BINS - 1, int(chance * CHANCE_BINS))
            told[tenth] += 1
            served[tenth] += place <= last
        return [
            {
                "from": tenth / CHANCE_BINS,
                "told": told[tenth],
                "served": served[tenth] / told[tenth],
            }
            for tenth in range(CHANCE_BINS)
            if told[tenth]
        ]


def _errors(promises: Sequence[Promise]) -> dict[str, float]:
    """Percentiles of the error, each promise counted once."""
    errors = sorted(promise.error for promise in promises) or [0.0]
    return {f"error_p{p}": round(errors[len(errors) * p // 100], 4) for p in (50, 90, 99)}
