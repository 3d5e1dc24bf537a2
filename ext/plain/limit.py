"""How many requests may be in work at once, learnt from how long they take. Knows no request."""

import math
from typing import Final, Protocol

CLASSES: Final = 3  # Payment, reserve, browse: engine.admission.limit.Priority names them.
BROWSE_SHARE: Final = 0.75  # Of the limit; who only looks is shed first, …
PAYMENT_SHARE: Final = 1.25  # … and who pays last: he holds units that others wait for.
PAYMENT_MORE: Final = 16  # A small limit, too, has places for payments.

START: Final = 512  # What the first crowd finds: about the knee of one front on two cores.
WINDOW_SECONDS: Final = 0.1  # Some batches' worth …
WINDOW_SECONDS_MAX: Final = 1.0  # … also where a request takes longer than that.
SAMPLES_MIN: Final = 10  # Per window; fewer say nothing.
CLASS_SAMPLES_MIN: Final = 5  # Per class, to change what was known of it, …
SURE_SAMPLES: Final = 50  # … and to believe at once that it takes less, as Envoy takes so many.

TOLERANCE: Final = 1.5  # Latency may be so many times what it is without load, as in Gradient2, …
SLACK_SECONDS: Final = 0.016  # … and this more: batches fill up, and so the knee is reached.
GRADIENT_MIN: Final = 0.5
GROWTH: Final = 0.25  # Per window while every class is far below its target: slow start.
AMPLE: Final = 0.5  # Of the target: far below it.
SMOOTHING: Final = 0.5  # Of a step down; steps up are small by themselves.
LEARNING: Final = 0.1  # How far a window moves a no-load latency.
SAMPLE_TIMES_MAX: Final = 4.0  # Of the target; a sample beyond says no more than "too long".

PROBE_SECONDS: Final = 1.0  # Until the first probe; doubled from probe to probe …
PROBE_SECONDS_MAX: Final = 32.0  # … up to this: probing costs 0.1 % of the throughput then.
SETTLE_SECONDS: Final = 0.05  # A probe waits until what was in work, here and next door, has left,
MEASURE_SECONDS: Final = 0.05  # measures for so long …
PROBE_LENGTH_MAX: Final = 2.0  # … or until there are samples, but no longer than this.
PROBE_RISE: Final = 1.5  # Times what was known is believed of a probe: it may meet a hiccup.

EARLIEST: Final = 1e-9  # No clock of ours begins before; 0.0 means "shed".


class _Clock(Protocol):
    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""

    def monotonic(self) -> float:
        """Seconds that never go back."""


class Limit:
    """A gradient limit, after Gradient2 of Netflix's concurrency-limits and Envoy's adaptive
    concurrency filter.

    Per class of requests two latencies are compared: that of the window just over, and the one
    without load. Up to `TOLERANCE` times the latter plus `SLACK_SECONDS` the limit grows by its
    square root per window; beyond, it shrinks in proportion. Classes weigh by their samples. Each
    class has a share of its own besides, which follows its own latency alone: one that hangs on a
    slow server does not fill the places of the others.

    What a class takes without load is learnt whenever no more than `floor` are in work, and, as
    Envoy does, by a probe: while requests are being shed, the shares go down to their floor for a
    tenth of a second now and then. All fronts probe at the same times of the day: one that probed
    alone would measure the load of the others.
    """

    def __init__(self, clock: _Clock, *, floor: int, ceiling: int, adaptive: bool) -> None:
        # The machine's own clock is read without a detour; another one is asked.
        self._clock = clock
        self._adaptive = adaptive
        self._ceiling = ceiling
        self._floor = min(floor, ceiling) if adaptive else ceiling
        self._lows = _places(self._floor)
        self._highs = _places(ceiling)
        self.in_flight = self._peak = 0
        self._inside = [0] * CLASSES
        self._noload = [0.0] * CLASSES  # Seconds; 0: not known yet.
        self._probing = self._reached = False
        self._probe_interval = PROBE_SECONDS
        self._window_ends = 0.0
        self.limit = max(self._floor, min(START, ceiling)) if adaptive else ceiling
        self._learnt = float(self.limit)  # The limit, and …
        self._own = [float(places) for places in _places(self.limit)]  # the shares, unrounded.
        self._set_places()
        self._schedule_probe(self._now(), PROBE_SECONDS)
        self._begin_window(self._now(), WINDOW_SECONDS)

    def try_enter(self, priority: int) -> float:
        """The time of entering, above 0, and `leave` must follow; 0.0: shed."""
        if self.in_flight >= self._places[priority]:
            self._reached = True
            return 0.0
        if self._inside[priority] >= self._shares[priority]:
            if self._probing and self._now() >= self._probe_until:
                self._end_probe(self._now())  # Whatever is in work hangs: nobody leaves.
            return 0.0
        return self.enter(priority)

    def enter(self, priority: int) -> float:
        """As `try_enter`, but nobody is shed."""
        self.in_flight += 1
        self._inside[priority] += 1
        self._peak = max(self._peak, self.in_flight)
        self._peaks[priority] = max(self._peaks[priority], self._inside[priority])
        return self._now()

    def has_excess(self, priority: int) -> bool:
        """Whether more are in work than such a request would have been let in with."""
        return (
            self.in_flight > self._places[priority]
            or self._inside[priority] > self._shares[priority]
        )

    def leave(self, priority: int, entered: float, measured: bool) -> None:
        """Gives the place back. `measured`: what it took counts as such a request's latency."""
        assert self._inside[priority] > 0
        self.in_flight -= 1
        self._inside[priority] -= 1
        if not self._adaptive:
            return
        now = self._now()
        if measured and entered >= self._since:
            self._sums[priority] += min(now - entered, self._sample_max(priority))
            self._counts[priority] += 1
        if now >= self._ends:
            self._close_window(now)

    def noload(self, priority: int) -> float:
        """The seconds such a request takes without load; 0.0: not known yet."""
        return self._noload[priority]

    def share(self, priority: int) -> int:
        """How many such requests may be in work at once, the others left out of account."""
        return min(self._shares[priority], self._places[priority])

    def _close_window(self, now: float) -> None:
        samples = sum(self._counts)
        if self._probing:
            if samples >= SAMPLES_MIN or now >= self._probe_until:
                self._end_probe(now)
        elif now >= self._probe_at:
            self._begin_probe(now)
        elif now >= self._window_ends and samples >= SAMPLES_MIN:
            mean = sum(self._sums) / samples
            self._adjust(samples)
            self._begin_window(now, min(max(WINDOW_SECONDS, mean), WINDOW_SECONDS_MAX))

    def _adjust(self, samples: int) -> None:
        """One step of the limit and of the shares, by the window that is over."""
        weighted, all_ample = 0.0, True
        for priority in range(CLASSES):
            count = self._counts[priority]
            if not count:
                continue
            short = max(self._sums[priority] / count, EARLIEST)
            self._learn(priority, short, count)
            target = self._target(priority)
            gradient = min(max(target / short, GRADIENT_MIN), 1.0)
            ample = short <= AMPLE * target
            own = _step(self._own[priority], gradient, ample, self._peaks[priority])
            self._own[priority] = min(max(own, self._lows[priority]), self._highs[priority])
            weighted += count * gradient
            all_ample = all_ample and ample
        learnt = _step(self._learnt, weighted / samples, all_ample, self._peak)
        self._learnt = min(max(learnt, self._floor), self._ceiling)
        self.limit = int(self._learnt)
        self._set_places()

    def _learn(self, priority: int, short: float, count: int) -> None:
        """A quiet window tells the no-load latency; any other one that it is not above its own."""
        known, quiet = self._noload[priority], self._peak <= self._floor
        if not known or (short < known and count >= SURE_SAMPLES):
            self._noload[priority] = short
        elif count >= CLASS_SAMPLES_MIN and (quiet or short < known):
            self._noload[priority] += LEARNING * (short - known)

    def _begin_probe(self, now: float) -> None:
        """Where nobody is shed there is no need of a probe, and one might do harm."""
        if not (self._reached or self._was_reached) or self.limit == self._floor:
            self._schedule_probe(now, PROBE_SECONDS)
            self._ends = self._window_ends
            return
        self._probing = True
        self._probe_until = now + PROBE_LENGTH_MAX
        self._set_places()
        self._begin_window(now, SETTLE_SECONDS + MEASURE_SECONDS)
        self._since = now + SETTLE_SECONDS

    def _end_probe(self, now: float) -> None:
        self._probing = False
        for priority in range(CLASSES):
            if self._counts[priority] >= CLASS_SAMPLES_MIN:
                known = self._noload[priority] or math.inf
                short = self._sums[priority] / self._counts[priority]
                self._noload[priority] = min(short, PROBE_RISE * known)
        self._probe_interval = min(2 * self._probe_interval, PROBE_SECONDS_MAX)
        self._schedule_probe(now, self._probe_interval)
        self._set_places()
        self._begin_window(now, WINDOW_SECONDS)
        self._since = now  # Those who entered during the probe say nothing of the limit.

    def _schedule_probe(self, now: float, interval: float) -> None:
        """At the next time of day that `interval` divides."""
        self._probe_at = now + interval - self._clock.now_ms() / 1000 % interval

    def _begin_window(self, now: float, seconds: float) -> None:
        self._sums = [0.0] * CLASSES
        self._counts = [0] * CLASSES
        self._peak = self.in_flight
        self._peaks = self._inside.copy()
        self._was_reached, self._reached = self._reached, False
        self._since = 0.0
        self._window_ends = self._ends = now + seconds
        if not self._probing and now < self._probe_at < self._ends:
            self._ends = self._probe_at

    def _target(self, priority: int) -> float:
        return TOLERANCE * self._noload[priority] + SLACK_SECONDS

    def _sample_max(self, priority: int) -> float:
        return SAMPLE_TIMES_MAX * self._target(priority) if self._noload[priority] else math.inf

    def _set_places(self) -> None:
        self._places = _places(self.limit)
        self._shares = self._lows if self._probing else [int(own) for own in self._own]

    def _now(self) -> float:
        return max(self._clock.monotonic(), EARLIEST)


def _places(limit: int) -> list[int]:
    """Below how many in work each class is let in."""
    return [
        int(PAYMENT_SHARE * limit) + PAYMENT_MORE,
        limit,
        math.ceil(BROWSE_SHARE * limit),
    ]


def _step(limit: float, gradient: float, ample: bool, peak: int) -> float:
    """The limit after a window: Gradient2's rule, with slow start."""
    wanted = limit * gradient + (limit * GROWTH if ample else math.sqrt(limit))
    if wanted < limit:
        return limit + SMOOTHING * (wanted - limit)
    if 2 * peak >= limit:  # What is not used is not known to be good.
        return wanted
    return limit
