"""Remembers who has a record in a sale, at 12 to 24 bytes each: fingerprints, not names.

A fingerprint is the interpreter's own hash of the name's bytes (SipHash, keyed per process), so nobody
can choose names that collide. Two names with one fingerprint only make the table say "maybe".
Measured against its plain form, a set, in benchmarks/test_holders.py.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memchr, memset


cdef extern from "Python.h":
    ctypedef Py_ssize_t Py_hash_t
    ctypedef struct PyHash_FuncDef:
        Py_hash_t (*hash)(const void* text, Py_ssize_t length) noexcept nogil
    PyHash_FuncDef* PyHash_GetFuncDef()


cdef enum:
    ID_LENGTH = 20
    SEGMENTS = 256  # Each grows by itself, so no growth holds the event loop up for long.
    SEGMENT_SHIFT = 56  # Its number is the top byte of the fingerprint.
    CAPACITY_MIN = 16


cdef struct Segment:
    uint64_t* slots  # 0 is an empty one
    uint64_t capacity  # a power of two, or 0
    uint64_t count


cdef PyHash_FuncDef* hashing = PyHash_GetFuncDef()


cdef inline uint64_t fingerprint(const char* text, Py_ssize_t length) noexcept:
    cdef uint64_t value = <uint64_t>hashing.hash(text, length)
    return value if value != 0 else 1


cdef class HolderTable:
    """A set of user names that can be asked and added to, and not listed."""

    cdef Segment segments[SEGMENTS]
    cdef Py_ssize_t count

    def __cinit__(self):
        memset(self.segments, 0, sizeof(self.segments))

    def __dealloc__(self):
        for number in range(SEGMENTS):
            free(self.segments[number].slots)

    def __len__(self):
        return self.count

    def __contains__(self, str user not None):
        cdef Py_ssize_t length
        cdef const char* text = PyUnicode_AsUTF8AndSize(user, &length)
        cdef uint64_t wanted = fingerprint(text, length)
        cdef Segment* segment = &self.segments[wanted >> SEGMENT_SHIFT]
        if segment.capacity == 0:
            return False
        return segment.slots[place(segment, wanted)] == wanted

    def add_users(self, users not None):
        """Adds names in bytes, as Redis gives them."""
        cdef bytes user
        for user in users:
            self.add(PyBytes_AS_STRING(user), PyBytes_GET_SIZE(user))

    def add_batch(self, bytes batch not None):
        """Adds the users of a batch's lines `id user items`. Raises ValueError on a malformed line."""
        cdef const char* at = PyBytes_AS_STRING(batch)
        cdef const char* end = at + PyBytes_GET_SIZE(batch)
        cdef const char* line_end
        cdef const char* user_end
        while at < end:
            line_end = <const char*>memchr(at, 10, end - at)
            if line_end == NULL:
                line_end = end
            if line_end - at <= ID_LENGTH + 1 or at[ID_LENGTH] != 32:
                raise ValueError("a line does not start with an id")
            at += ID_LENGTH + 1
            user_end = <const char*>memchr(at, 32, line_end - at)
            if user_end == NULL or user_end == at:
                raise ValueError("a line lacks its user")
            self.add(at, user_end - at)
            at = line_end + 1

    cdef int add(self, const char* user, Py_ssize_t length) except -1:
        cdef uint64_t wanted = fingerprint(user, length)
        cdef Segment* segment = &self.segments[wanted >> SEGMENT_SHIFT]
        cdef uint64_t at
        if 3 * (segment.count + 1) > 2 * segment.capacity:
            grow(segment)
        at = place(segment, wanted)
        if segment.slots[at] == 0:
            segment.slots[at] = wanted
            segment.count += 1
            self.count += 1
        return 0


cdef inline uint64_t place(Segment* segment, uint64_t wanted) noexcept:
    """Where it is, or the empty slot where it belongs. At most two thirds of the slots are full."""
    cdef uint64_t mask = segment.capacity - 1
    cdef uint64_t at = wanted & mask
    while segment.slots[at] != 0 and segment.slots[at] != wanted:
        at = (at + 1) & mask
    return at


cdef int grow(Segment* segment) except -1:
    cdef Segment larger
    cdef uint64_t number
    larger.capacity = max(2 * segment.capacity, <uint64_t>CAPACITY_MIN)
    larger.count = segment.count
    larger.slots = <uint64_t*>calloc(larger.capacity, sizeof(uint64_t))
    if larger.slots == NULL:
        raise MemoryError()
    for number in range(segment.capacity):
        if segment.slots[number] != 0:
            larger.slots[place(&larger, segment.slots[number])] = segment.slots[number]
    free(segment.slots)
    segment[0] = larger
    return 0
