"""Judges what a hop can take from what it did and what waits before it. Measures nothing itself."""

from collections.abc import Mapping
from math import exp, inf
from typing import Final, NamedTuple

PACE_KEY: Final = "doorbuster:pace"  # Hash: per_second, hop, at_ms, and `hop:<name>` for each hop.
# Never nobody at all: what is refused for ever cannot show that it would fit.
PACE_MIN: Final = 10.0
PACE_ENDLESS: Final = 300_000.0  # No more is reserved on one Redis core: as good as no limit.
SLOWEST: Final = 0.1  # Of the rate, however long the queue: it is to shrink, not to starve.
# Per second, while little waits. Faster, and the pace is far above what can be done before that
# shows, about a second later; slower, and it lags a hop that is well again.
GROWTH: Final = 3.0
STEPS_WAITING: Final = 2.0  # No queue is shorter than what is under way: allow as much again.
STEPS_MEAN: Final = 3.0  # The rate is a mean over so many steps: they come in lumps …
MEAN_SHARE: Final = 0.5  # … and over so much of the target: longer reacts late.
STEP_SECONDS_MAX: Final = 2.5  # A step that takes longer excuses no longer queue.


class Pace(NamedTuple):
    """Reservations per second that can be stored, and the hop that says so."""

    per_second: float  # infinity: no limit
    hop: str  # '' if there is no limit


NO_LIMIT: Final = Pace(inf, "")


class HopPace:
    """A hop with a queue before it. Keeps what waits there at `target_seconds` of the hop's work.

    The delay is Little's: what waits, divided by the rate. Once it is above the target, the pace is
    the rate times target / delay, and when little waits it grows until it is no limit. The rate is
    learned only while enough waits: an idle hop does what it is given, not what it can.
    `rate_first` is believed before anything is known, and less than `waiting_min` is no queue.
    """

    def __init__(self, *, target_seconds: float, rate_first: float, waiting_min: float) -> None:
        self._target_seconds = target_seconds
        self._rate_first = rate_first
        self._waiting_min = waiting_min
        self.rate = rate_first
        self.pace = inf
        self._at: float | None = None
        self._done = 0.0
        self._waiting = 0.0

    def measure(self, now: float, done: float, waiting: float, step_seconds: float = 0.0) -> float:
        """The pace, given how much was done so far in all, what waits, and how long one step takes."""
        at, self._at = self._at, now
        done_before, self._done = self._done, done
        waiting_before, self._waiting = self._waiting, waiting
        if at is None or now <= at:
            return self.pace
        seconds = now - at
        step = min(step_seconds, STEP_SECONDS_MAX)
        target = max(self._target_seconds, STEPS_WAITING * step)
        did = max(0.0, done - done_before) / seconds
        part = 1 - exp(-seconds / max(MEAN_SHARE * target, STEPS_MEAN * step))
        # Never short of work, it did what it can; else it can do that at least.
        waited = min(waiting, waiting_before)
        self._learn(seconds, did, part, waited > max(self._waiting_min, did * target / 2))
        self._set_pace(seconds, waiting / self.rate if waiting > self._waiting_min else 0.0, target)
        return self.pace

    def _learn(self, seconds: float, did: float, part: float, is_busy: bool) -> None:
        if is_busy or did > self.rate:
            self.rate += (did - self.rate) * part
        elif self.pace == inf:
            # It keeps up: what it could not do some time ago it may be able to do again.
            self.rate = max(self.rate, min(self._rate_first, self.rate * GROWTH**seconds))
        self.rate = max(self.rate, PACE_MIN)

    def _set_pace(self, seconds: float, delay: float, target: float) -> None:
        fitting = self.rate * max(SLOWEST, target / delay) if delay else inf
        if delay > target:
            self.pace = max(PACE_MIN, fitting)
        elif self.pace < inf:
            self.pace = min(fitting, max(self.pace, self.rate) * GROWTH**seconds)
            if self.pace > PACE_ENDLESS:
                self.pace = inf


def pace_of_steps(step_seconds: float, at_once: float, calm_seconds: float) -> float:
    """The most that a hop can take whose steps last so long and carry `at_once` together.

    Known before any queue shows it. Up to `calm_seconds` a step says nothing: it was hardly full.
    """
    return inf if step_seconds <= calm_seconds else max(PACE_MIN, at_once / step_seconds)


def slowest(paces: Mapping[str, float]) -> Pace:
    """The least of the hops' paces, with its name."""
    hop = min(paces, key=lambda name: paces[name])
    return NO_LIMIT if paces[hop] == inf else Pace(paces[hop], hop)
