cdef class Limit:
    cdef object _clock
    cdef object _monotonic  # None: the machine's own clock.
    cdef bint _adaptive
    cdef int _floor
    cdef int _ceiling
    cdef readonly int in_flight
    cdef readonly int limit
    cdef double _learnt
    cdef double[3] _own
    cdef int[3] _inside
    cdef int[3] _places
    cdef int[3] _shares
    cdef int[3] _lows
    cdef int[3] _highs

    # The window.
    cdef double[3] _sums
    cdef int[3] _counts
    cdef int[3] _peaks
    cdef int _peak
    cdef bint _reached
    cdef bint _was_reached
    cdef double _since
    cdef double _window_ends
    cdef double _ends

    # Latencies without load, and the probe that finds them.
    cdef double[3] _noload
    cdef bint _probing
    cdef double _probe_interval
    cdef double _probe_at
    cdef double _probe_until

    cpdef double try_enter(self, int priority) except -1
    cpdef double enter(self, int priority) except -1
    cpdef int leave(self, int priority, double entered, bint measured) except -1

    cdef int _close_window(self, double now) except -1
    cdef int _adjust(self, int samples) noexcept
    cdef int _learn(self, int priority, double short, int count) noexcept
    cdef int _begin_probe(self, double now) except -1
    cdef int _end_probe(self, double now) except -1
    cdef int _schedule_probe(self, double now, double interval) except -1
    cdef int _begin_window(self, double now, double seconds) noexcept
    cdef double _target(self, int priority) noexcept
    cdef double _sample_max(self, int priority) noexcept
    cdef int _set_places(self) noexcept
    cdef double _now(self) except -1
