from libc.stdint cimport uint32_t, uint64_t

from ext.curve cimport Curve
from ext.tickets cimport Claims, TicketKey

cdef enum:
    STATES = 5


cdef struct View:
    long number
    long place  # 0: none yet, the draw is to come
    int state
    long ahead
    double eta  # below 0: unknown
    double eta_low
    double eta_high
    double chance


cdef class Room:
    cdef readonly str sale_id
    cdef bytes _sale
    cdef TicketKey _key
    cdef object _forecast

    # The last look.
    cdef readonly object look
    cdef readonly bint known  # A look is here and is being kept up to date.
    cdef public bint asked  # Somebody checked or polled a ticket since it was set to False.
    cdef readonly bint on
    cdef readonly bint gone
    cdef readonly long issued
    cdef readonly long serving
    cdef readonly long drawn  # -1: not yet
    cdef readonly long waiting
    cdef readonly long lapsed
    cdef bint _by_draw
    cdef long _available
    cdef long _may_return
    cdef double _opens_s
    cdef double _closes_s
    cdef long _admission_seconds
    cdef long _absent_seconds
    cdef object _draw
    cdef const uint32_t[::1] _places

    # Up to where it served, and when.
    cdef long* _served_places
    cdef double* _served_at
    cdef Py_ssize_t _served_count

    # Who is present.
    cdef bytes _present
    cdef long _mark
    cdef uint32_t* _before
    cdef Py_ssize_t _blocks

    # By number: the ticket verified last. By place: who polled.
    cdef uint64_t* _marks
    cdef unsigned char* _polled
    cdef long _capacity
    cdef long _polled_last

    # The forecast.
    cdef Curve _likely
    cdef Curve _patient  # nobody leaves
    cdef double _places_per_second
    cdef double _variation
    cdef double _steady_seconds
    cdef double _supply
    cdef double _supply_variance
    cdef double _take
    cdef double _take_variance
    cdef double _take_doubt
    cdef double _undecided

    cdef long _said[STATES]
    cdef list _eta_errors

    cpdef long check(self, bytes token, str user_id, double now_s) except -2
    cpdef bytes poll(self, bytes token, str user_id, double now_s)
    cpdef str why(self, bytes token, str user_id, double now_s)
    cdef int _learn_outlook(self, object outlook) except -1
    cdef bint _is_theirs(self, bytes token, str user_id, Claims* claims) except -1
    cdef bint _names(self, str user_id, Claims* claims) except -1
    cdef bint _is_served(self, long place) noexcept
    cdef long _place_of(self, long number) noexcept
    cdef long _ahead_of(self, long place) noexcept
    cdef long _present_to(self, long place) noexcept
    cdef int _look_up(self, long number, double now_s, View* view) except -1
    cdef int _state_of(self, View* view, double now_s) noexcept
    cdef int _promise(self, View* view, double now_s) noexcept
    cdef double _chance_of(self, View* view) noexcept
    cdef int _hold(self, long number) except -1
    cdef int _note_poll(self, View* view) noexcept
    cdef bytes _fresh(self, bytes token, Claims* claims, View* view, double now_s)
    cdef bytes _sign(self, Claims* claims)
    cdef int _observe(self, Claims* claims, View* view) except -1
    cdef int _heal(self, long number) noexcept
    cdef int _note_served(self, long place, double at_s) noexcept
    cdef double _served_when(self, long place) noexcept
    cdef double _turn_of(self, View* view) noexcept
    cdef double _poll_after(self, View* view, double now_s) noexcept
    cdef bytes _written(self, bytes token, Claims* claims, View* view, double now_s)
