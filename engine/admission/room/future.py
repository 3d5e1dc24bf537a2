"""Foresees how many people per second a room will serve: serve.lua's rules, run ahead on averages.

A fluid model: people and units are amounts that flow, without chance. Pure.
"""

import math
from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

from engine.admission.room.buying import PATIENCE_PARTS, Standing, remember

# Steps ahead: finer where it is near. Together half an hour; a sale is decided by then.
STEPS: Final = (*[1.0] * 15, *[2.5] * 18, *[5.0] * 24, *[15.0] * 20, *[60.0] * 22)
SEGMENTS_MAX: Final = 32  # That ext/room.pyx keeps.
ALIKE: Final = 0.02  # Rates that differ by less, relative to the fastest, are one segment.

Segment = tuple[float, float]  # for so many seconds, so many people per second


class Outset(NamedTuple):
    """Where the flow starts."""

    now_s: float
    opens_s: float
    history: tuple[Standing, ...]  # oldest first, as serve.lua has it
    deciding: float  # the weight of the admitted, as serve.lua has it
    admitted: float
    used: float
    available: float  # units
    buyers: float  # admitted people who will yet reserve
    fast: float  # people/s in the next moments …
    slow: float  # … and later
    buying: float  # share of the admitted who reserve …
    checkout_seconds: float  # … after so long on average …
    units_per_buyer: float  # … so much
    returning: float  # units/s that come back
    admission_seconds: float
    over_admission: float


class Flow:
    """A room that runs ahead."""

    def __init__(self, outset: Outset) -> None:
        self._outset = outset
        self._now_s = max(outset.now_s, outset.opens_s)
        self._admitted = outset.admitted
        self._used = outset.used
        self._available = outset.available
        self._buyers = outset.buyers
        self._history = deque(outset.history)
        self._deciding = outset.deciding
        self._patience_s = outset.admission_seconds / PATIENCE_PARTS

    def segments(self, near_seconds: float) -> Iterator[Segment]:
        """From the opening, or from now on: steps at the fast rate, then at the slow one."""
        passed = 0.0
        for seconds in STEPS:
            rate = self._outset.fast if passed < near_seconds else self._outset.slow
            yield seconds, self._step(rate, seconds)
            passed += seconds

    def _step(self, rate: float, seconds: float) -> float:
        """Lets time pass. Returns the people served per second."""
        outset = self._outset
        remember(
            self._history,
            Standing(self._now_s, self._admitted, self._used),
            outset.admission_seconds,
        )
        served = max(0.0, min(rate * seconds, self._wanted(seconds)))
        self._now_s += seconds
        self._admitted += served
        kept, added = self._weights(seconds)
        self._deciding = self._deciding * kept + served * added
        bought = self._buyers * -math.expm1(-seconds / outset.checkout_seconds)
        self._buyers += served * outset.buying - bought
        units = bought * outset.units_per_buyer
        self._used += min(bought, max(0.0, self._available) / outset.units_per_buyer)
        self._available = max(0.0, self._available + outset.returning * seconds - units)
        return served / seconds

    def _weights(self, seconds: float) -> tuple[float, float]:
        """After a step: what is left of the weight of the admitted, and what each who came in it adds."""
        parts = seconds / self._patience_s
        kept = math.exp(-parts)
        return kept, (1 - kept) / parts

    def _wanted(self, seconds: float) -> float:
        """People whom the stock rule lets in within a step: it weighs the undecided against the units."""
        outset = self._outset
        if self._available <= 0:
            return 0.0
        limit = outset.over_admission * self._available / outset.units_per_buyer
        # Who is let in within the step and buys at once makes room for others.
        at_once = outset.buying * -math.expm1(-seconds / (2 * outset.checkout_seconds))
        base = self._history[0]
        undecided = self._admitted - base.admitted - (self._used - base.used)
        by_time = (limit - max(0.0, undecided)) / (1 + at_once * (outset.over_admission - 1))
        # The weight of the admitted wanes within the step, while those who buy take of the units.
        kept, added = self._weights(seconds)
        bought = self._buyers * -math.expm1(-seconds / outset.checkout_seconds)
        left = limit - outset.over_admission * bought
        by_weight = (left - self._deciding * kept) / (added + outset.over_admission * at_once)
        return max(by_time, by_weight)


def foreseen(outset: Outset, near_seconds: float) -> tuple[Segment, ...]:
    """The segments to come, alike ones joined, SEGMENTS_MAX at most."""
    joined: list[Segment] = []
    alike = ALIKE * max(outset.fast, outset.slow, 1e-9)
    for segment in Flow(outset).segments(near_seconds):
        if joined and abs(joined[-1][1] - segment[1]) <= alike:
            joined[-1] = join(joined[-1], segment)
        else:
            joined.append(segment)
    while len(joined) > SEGMENTS_MAX:
        joined = [
            join(*pair) if len(pair) == 2 else pair[0]
            for pair in (joined[at : at + 2] for at in range(0, len(joined), 2))
        ]
    return tuple(joined)


def join(one: Segment, other: Segment) -> Segment:
    """Both as one."""
    seconds = one[0] + other[0]
    return seconds, (one[0] * one[1] + other[0] * other[1]) / seconds
