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
# While next to nothing waits although what is admitted gets done: from the least pace to any crowd's
# in less than four seconds.
GROWTH_CALM: Final = 10.0
CALM_SHARE: Final = 0.25  # Of the target: so little is next to nothing.
DOES_SHARE: Final = 0.2  # Of the pace: what grows tenfold in a second is followed so far behind.
STEPS_WAITING: Final = 2.0  # No queue is shorter than what is under way: allow as much again.
STEPS_MEAN: Final = 3.0  # The rate is a mean over so many steps: they come in lumps …
MEAN_SHARE: Final = 0.5  # … and over so much of the target: longer reacts late …
MEAN_SECONDS_MAX: Final = 5.0  # … and what is well again shall show it soon.
STEP_SECONDS_MAX: Final = 2.5  # A step that takes longer excuses no longer queue.


class Pace(NamedTuple):
    """Reservations per second that can be stored, and the hop that says so."""

    per_second: float  # infinity: no limit
    hop: str  # '' if there is no limit


NO_LIMIT: Final = Pace(inf, "")


class _Scale(NamedTuple):
    """What is long for a hop now, in seconds: one step; a queue; the time its rate is a mean of."""

    step: float
    target: float
    mean: float


class HopPace:
    """A hop with a queue before it. Keeps what waits there at `target_seconds` of the hop's work.

    The delay is Little's: what waits, divided by the rate. Once it is above the target, the pace is
    the rate times target / delay, and when little waits it grows until it is no limit. The rate is
    learned only while enough waits: an idle hop does what it is given, not what it can.
    `rate_first` is believed before anything is known, less than `waiting_min` is no queue, and the
    pace is never below `floor_share` of the rate that the hop had while it was well.
    """

    def __init__(
        self,
        *,
        target_seconds: float,
        rate_first: float,
        waiting_min: float,
        floor_share: float = 0.0,
    ) -> None:
        self._target_seconds = target_seconds
        self._rate_first = rate_first
        self._waiting_min = waiting_min
        self._floor_share = floor_share
        self.rate = rate_first
        self.pace = inf
        self._learnt = rate_first  # The rate but for a step that is late.
        self._well = rate_first  # The best rate, forgotten as slowly as the target is long.
        self._at: float | None = None
        self._done = 0.0
        self._step_began = 0.0  # The look since which nothing was done.
        self._waited = 0.0  # The least that waited since then.

    def measure(
        self,
        now: float,
        done: float,
        waiting: float,
        step_seconds: float = 0.0,
        *,
        begun_seconds: float = 0.0,
        is_away: bool = False,
    ) -> float:
        """The pace, given how much was done so far in all, what waits, how long a step takes, and how
        long ago the one under way began. A hop that `is_away` does nothing, and teaches nothing by it.
        """
        at, self._at = self._at, now
        if at is None:
            self._begin_step(now, done, waiting)
        if at is None or now <= at:
            return self.pace
        scale = self._scale(min(step_seconds, STEP_SECONDS_MAX), begun_seconds)
        self._waited = min(self._waited, waiting)
        did = max(0.0, done - self._done) / (now - self._step_began)
        self._learn(now - at, did, scale, is_away=is_away)
        self._set_pace(now - at, waiting, did, scale.target)
        if did or is_away or self._waited <= self._waiting_min or done < self._done:
            self._begin_step(now, done, waiting)
        return self.pace

    def _scale(self, step: float, begun_seconds: float) -> _Scale:
        target = max(self._target_seconds, STEPS_WAITING * step)
        longest = min(max(step, begun_seconds), STEP_SECONDS_MAX)
        mean = max(min(MEAN_SHARE * target, MEAN_SECONDS_MAX), STEPS_MEAN * longest)
        return _Scale(step, target, mean)

    def _begin_step(self, now: float, done: float, waiting: float) -> None:
        self._step_began, self._done, self._waited = now, done, waiting

    def _learn(self, seconds: float, did: float, scale: _Scale, *, is_away: bool) -> None:
        """A rate is that of a whole step: in the middle of one, a hop only seems to do nothing."""
        assert self._at is not None
        lasted = self._at - self._step_began
        # Never short of work, it did what it can; else it can do that at least.
        is_busy = self._waited > max(self._waiting_min, did * scale.target / 2)
        late = 0.0
        if did and (is_busy or did > self._learnt):
            self._learnt += (did - self._learnt) * (1 - exp(-lasted / scale.mean))
        elif is_busy and not is_away:
            late = max(0.0, lasted - scale.step)
        elif self.pace == inf and not is_busy:
            # It keeps up: what it could not do some time ago it may be able to do again.
            grown = min(self._rate_first, self._learnt * GROWTH**seconds)
            self._learnt = max(self._learnt, grown)
        self._learnt = max(self._learnt, PACE_MIN)
        forgotten = 1 - exp(-seconds / scale.target)
        self._well = max(self._learnt, self._well + (self._learnt - self._well) * forgotten)
        self.rate = max(PACE_MIN, self._learnt * exp(-late / scale.mean))

    def _set_pace(self, seconds: float, waiting: float, did: float, target: float) -> None:
        delay = waiting / self.rate if waiting > self._waiting_min else 0.0
        fitting = self.rate * max(SLOWEST, target / delay) if delay else inf
        if delay > target:
            self.pace = max(PACE_MIN, fitting, self._floor_share * self._well)
        elif self.pace < inf:
            is_calm = delay < CALM_SHARE * target and did > DOES_SHARE * self.pace
            growth = (GROWTH_CALM if is_calm else GROWTH) ** seconds
            self.pace = min(fitting, max(self.pace, self.rate) * growth)
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
