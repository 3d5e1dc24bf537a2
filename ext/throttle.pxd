cdef class Throttle:
    cdef object _monotonic
    cdef double _began
    cdef double _interval
    cdef double _tolerance
    cdef Py_ssize_t _clients_max
    cdef dict _recent
    cdef dict _older

    cpdef double admit(self, str client) except -1
