cdef class Meter:
    cdef object _monotonic
    cdef readonly double per_second
    cdef double _burst
    cdef double _level
    cdef double _at

    cpdef double admit(self) except -1
    cdef int _refill(self) except -1
