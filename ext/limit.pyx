# cython: cdivision=True
"""How many requests may be in work at once, learnt from how long they take. Knows no request.

Every number is explained in ext/plain/limit.py, its plain form.
"""

import time

from libc.math cimport INFINITY, ceil, sqrt
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

cdef enum:
    CLASSES = 3
    START = 512
    PAYMENT_MORE = 16
    SAMPLES_MIN = 10
    CLASS_SAMPLES_MIN = 5
    SURE_SAMPLES = 50

cdef double BROWSE_SHARE = 0.75
cdef double PAYMENT_SHARE = 1.25
cdef double WINDOW_SECONDS = 0.1
cdef double WINDOW_SECONDS_MAX = 1.0
cdef double TOLERANCE = 1.5
cdef double SLACK_SECONDS = 0.016
cdef double GRADIENT_MIN = 0.5
cdef double GROWTH = 0.25
cdef double AMPLE = 0.5
cdef double SMOOTHING = 0.5
cdef double LEARNING = 0.1
cdef double SAMPLE_TIMES_MAX = 4.0
cdef double PROBE_SECONDS = 1.0
cdef double PROBE_SECONDS_MAX = 32.0
cdef double SETTLE_SECONDS = 0.05
cdef double MEASURE_SECONDS = 0.05
cdef double PROBE_LENGTH_MAX = 2.0
cdef double PROBE_RISE = 1.5
cdef double EARLIEST = 1e-9


cdef int places_of(int limit, int* places) noexcept:
    """Below how many in work each class is let in."""
    places[0] = <int>(PAYMENT_SHARE * limit) + PAYMENT_MORE
    places[1] = limit
    places[2] = <int>ceil(BROWSE_SHARE * limit)
    return 0


cdef double step(double limit, double gradient, bint ample, int peak) noexcept:
    """The limit after a window: Gradient2's rule, with slow start."""
    cdef double wanted = limit * gradient + (limit * GROWTH if ample else sqrt(limit))
    if wanted < limit:
        return limit + SMOOTHING * (wanted - limit)
    if 2 * peak >= limit:  # What is not used is not known to be good.
        return wanted
    return limit


cdef class Limit:
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

    def __init__(self, object clock not None, *, int floor, int ceiling, bint adaptive):
        cdef int priority
        self._clock = clock
        # The machine's own clock is read without a detour; another one is asked.
        self._monotonic = None if clock.monotonic is time.monotonic else clock.monotonic
        self._adaptive = adaptive
        self._ceiling = ceiling
        self._floor = min(floor, ceiling) if adaptive else ceiling
        places_of(self._floor, self._lows)
        places_of(ceiling, self._highs)
        self._probe_interval = PROBE_SECONDS
        self.limit = max(self._floor, min(<int>START, ceiling)) if adaptive else ceiling
        self._learnt = self.limit
        places_of(self.limit, self._places)
        for priority in range(CLASSES):
            self._own[priority] = self._places[priority]
        self._set_places()
        self._schedule_probe(self._now(), PROBE_SECONDS)
        self._begin_window(self._now(), WINDOW_SECONDS)

    cpdef double try_enter(self, int priority) except -1:
        """The time of entering, above 0, and `leave` must follow; 0.0: shed."""
        cdef double now
        assert 0 <= priority < CLASSES
        if self.in_flight >= self._places[priority]:
            self._reached = True
            return 0.0
        if self._inside[priority] >= self._shares[priority]:
            if self._probing:
                now = self._now()
                if now >= self._probe_until:
                    self._end_probe(now)  # Whatever is in work hangs: nobody leaves.
            return 0.0
        return self.enter(priority)

    cpdef double enter(self, int priority) except -1:
        """As `try_enter`, but nobody is shed."""
        assert 0 <= priority < CLASSES
        self.in_flight += 1
        self._inside[priority] += 1
        if self.in_flight > self._peak:
            self._peak = self.in_flight
        if self._inside[priority] > self._peaks[priority]:
            self._peaks[priority] = self._inside[priority]
        return self._now()

    def has_excess(self, int priority):
        """Whether more are in work than such a request would have been let in with."""
        assert 0 <= priority < CLASSES
        return (self.in_flight > self._places[priority]
                or self._inside[priority] > self._shares[priority])

    cpdef int leave(self, int priority, double entered, bint measured) except -1:
        """Gives the place back. `measured`: what it took counts as such a request's latency."""
        cdef double now
        assert 0 <= priority < CLASSES
        assert self._inside[priority] > 0
        self.in_flight -= 1
        self._inside[priority] -= 1
        if not self._adaptive:
            return 0
        now = self._now()
        if measured and entered >= self._since:
            self._sums[priority] += min(now - entered, self._sample_max(priority))
            self._counts[priority] += 1
        if now >= self._ends:
            self._close_window(now)
        return 0

    def noload(self, int priority):
        """The seconds such a request takes without load; 0.0: not known yet."""
        assert 0 <= priority < CLASSES
        return self._noload[priority]

    def share(self, int priority):
        """How many such requests may be in work at once, the others left out of account."""
        assert 0 <= priority < CLASSES
        return min(self._shares[priority], self._places[priority])

    cdef int _close_window(self, double now) except -1:
        cdef int samples = self._counts[0] + self._counts[1] + self._counts[2]
        cdef double mean
        if self._probing:
            if samples >= SAMPLES_MIN or now >= self._probe_until:
                self._end_probe(now)
        elif now >= self._probe_at:
            self._begin_probe(now)
        elif now >= self._window_ends and samples >= SAMPLES_MIN:
            mean = (self._sums[0] + self._sums[1] + self._sums[2]) / samples
            self._adjust(samples)
            self._begin_window(now, min(max(WINDOW_SECONDS, mean), WINDOW_SECONDS_MAX))
        return 0

    cdef int _adjust(self, int samples) noexcept:
        """One step of the limit and of the shares, by the window that is over."""
        cdef double weighted = 0, short, target, gradient, own, learnt
        cdef bint all_ample = True, ample
        cdef int priority, count
        for priority in range(CLASSES):
            count = self._counts[priority]
            if count == 0:
                continue
            short = max(self._sums[priority] / count, EARLIEST)
            self._learn(priority, short, count)
            target = self._target(priority)
            gradient = min(max(target / short, GRADIENT_MIN), 1.0)
            ample = short <= AMPLE * target
            own = step(self._own[priority], gradient, ample, self._peaks[priority])
            self._own[priority] = min(
                max(own, <double>self._lows[priority]), <double>self._highs[priority]
            )
            weighted += count * gradient
            all_ample = all_ample and ample
        learnt = step(self._learnt, weighted / samples, all_ample, self._peak)
        self._learnt = min(max(learnt, <double>self._floor), <double>self._ceiling)
        self.limit = <int>self._learnt
        self._set_places()
        return 0

    cdef int _learn(self, int priority, double short, int count) noexcept:
        """A quiet window tells the no-load latency; any other one that it is not above its own."""
        cdef double known = self._noload[priority]
        cdef bint quiet = self._peak <= self._floor
        if known == 0 or (short < known and count >= SURE_SAMPLES):
            self._noload[priority] = short
        elif count >= CLASS_SAMPLES_MIN and (quiet or short < known):
            self._noload[priority] += LEARNING * (short - known)
        return 0

    cdef int _begin_probe(self, double now) except -1:
        """Where nobody is shed there is no need of a probe, and one might do harm."""
        if not (self._reached or self._was_reached) or self.limit == self._floor:
            self._schedule_probe(now, PROBE_SECONDS)
            self._ends = self._window_ends
            return 0
        self._probing = True
        self._probe_until = now + PROBE_LENGTH_MAX
        self._set_places()
        self._begin_window(now, SETTLE_SECONDS + MEASURE_SECONDS)
        self._since = now + SETTLE_SECONDS
        return 0

    cdef int _end_probe(self, double now) except -1:
        cdef int priority
        cdef double known, short
        self._probing = False
        for priority in range(CLASSES):
            if self._counts[priority] >= CLASS_SAMPLES_MIN:
                known = self._noload[priority] or INFINITY
                short = self._sums[priority] / self._counts[priority]
                self._noload[priority] = min(short, PROBE_RISE * known)
        self._probe_interval = min(2 * self._probe_interval, PROBE_SECONDS_MAX)
        self._schedule_probe(now, self._probe_interval)
        self._set_places()
        self._begin_window(now, WINDOW_SECONDS)
        self._since = now  # Those who entered during the probe say nothing of the limit.
        return 0

    cdef int _schedule_probe(self, double now, double interval) except -1:
        """At the next time of day that `interval` divides."""
        cdef double wall = self._clock.now_ms() / 1000.0
        self._probe_at = now + interval - wall % interval
        return 0

    cdef int _begin_window(self, double now, double seconds) noexcept:
        cdef int priority
        for priority in range(CLASSES):
            self._sums[priority] = 0
            self._counts[priority] = 0
            self._peaks[priority] = self._inside[priority]
        self._peak = self.in_flight
        self._was_reached, self._reached = self._reached, False
        self._since = 0
        self._window_ends = self._ends = now + seconds
        if not self._probing and now < self._probe_at < self._ends:
            self._ends = self._probe_at
        return 0

    cdef double _target(self, int priority) noexcept:
        return TOLERANCE * self._noload[priority] + SLACK_SECONDS

    cdef double _sample_max(self, int priority) noexcept:
        return SAMPLE_TIMES_MAX * self._target(priority) if self._noload[priority] else INFINITY

    cdef int _set_places(self) noexcept:
        cdef int priority
        places_of(self.limit, self._places)
        for priority in range(CLASSES):
            self._shares[priority] = (
                self._lows[priority] if self._probing else <int>self._own[priority]
            )
        return 0

    cdef double _now(self) except -1:
        cdef timespec now
        if self._monotonic is None:
            clock_gettime(CLOCK_MONOTONIC, &now)
            return now.tv_sec + now.tv_nsec * 1e-9
        return max(<double>self._monotonic(), EARLIEST)
