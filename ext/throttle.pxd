from libc.stdint cimport int64_t, uint64_t


cdef enum:
    WAYS = 8  # Two cache lines: one of marks, one of times.


cdef struct ClientSet:
    uint64_t marks[WAYS]  # 0: nobody. The lowest bit of the first one locks the set.
    int64_t full_at[WAYS]  # ns


cdef class ClientTable:
    cdef Py_buffer _bytes
    cdef ClientSet* _sets
    cdef uint64_t _last_set
    cdef uint64_t key0
    cdef uint64_t key1
    cdef readonly bint shared

    cdef int64_t charge(self, uint64_t mark, int64_t now, int64_t interval, int64_t tolerance) noexcept
    cdef int64_t full_at(self, uint64_t mark) noexcept
    cdef ClientSet* _lock(self, uint64_t mark) noexcept
    cdef void _unlock(self, ClientSet* home) noexcept


cdef class Throttle:
    cdef ClientTable _table
    cdef object _monotonic
    cdef int64_t _interval
    cdef int64_t _tolerance
    cdef uint64_t _key0
    cdef uint64_t _key1

    cpdef double admit(self, str client) except -1
    cpdef tuple state(self, str client)
    cdef uint64_t _mark(self, str client) except 0
    cdef int64_t _now(self) except -1
