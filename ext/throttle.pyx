"""Limits each client's rate, in bounded memory, without ever looking at all clients."""

from cpython.dict cimport PyDict_GetItem
from cpython.float cimport PyFloat_AS_DOUBLE

cdef double ROUNDING = 1e-6  # Sums of binary fractions: the last of a burst may miss by a few bits.


cdef class Throttle:
    """The generic cell rate algorithm (ITU-T I.371): a bucket of `burst` that refills by itself.

    Per client one number is kept: the time at which its bucket would be full again. Memory is
    bounded by two generations of `clients_max`; a client is forgotten only after that many others
    came, and a forgotten client has a full bucket.
    """

    def __init__(self, object clock not None, *, double per_second, double burst, Py_ssize_t clients_max):
        self._monotonic = clock.monotonic
        self._began = self._monotonic()  # Small numbers keep sums of fractions exact enough.
        self._interval = 1 / per_second
        self._tolerance = self._interval * burst
        self._clients_max = clients_max
        self._recent = {}
        self._older = {}

    def __len__(self):
        """Clients remembered."""
        return len(self._recent) + len(self._older)

    cpdef double admit(self, str client) except -1:
        """0.0 if admitted, else the seconds after which it will be."""
        cdef double now = <double>self._monotonic() - self._began
        cdef double full_at = 0
        cdef void* known = <void*>PyDict_GetItem(self._recent, client)
        if known == NULL:
            known = <void*>PyDict_GetItem(self._older, client)
        if known != NULL:
            full_at = PyFloat_AS_DOUBLE(<object>known)
        full_at = (full_at if full_at > now else now) + self._interval
        cdef double excess = full_at - now - self._tolerance
        if excess > self._interval * ROUNDING:
            return excess
        self._recent[client] = full_at
        if len(self._recent) >= self._clients_max:
            self._older, self._recent = self._recent, {}
        return 0.0
