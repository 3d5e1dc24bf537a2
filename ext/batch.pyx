"""Packs the reservations of one script call as RESP while they come, and hands its replies out."""

import logging

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdio cimport snprintf
from libc.string cimport memcpy

cdef object logger = logging.getLogger(__name__)

cdef enum:
    ARGUMENTS = 3  # Of one reservation: user, reservation id, items.
    HEAD_MAX = 24  # '*', a count or '$', a length, and CRLF
    FIRST_SIZE = 8192  # Some 100 reservations.


cdef class ReserveBatch:
    """The reservations that will travel in one script call, each with whoever waits for its reply.

    A waiter has `replied(until_s: bytes, reply: bytes)` and `failed(error)`; it must not raise.
    """

    cdef readonly list waiters
    cdef char* _packed
    cdef Py_ssize_t _length
    cdef Py_ssize_t _size

    def __cinit__(self):
        self.waiters = []
        self._size = FIRST_SIZE
        self._length = 0
        self._packed = <char*>PyMem_Malloc(self._size)
        if self._packed == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self._packed)

    def __len__(self):
        return len(self.waiters)

    def add(self, object waiter not None, str user_id not None, str reservation_id not None,
            str items_text not None):
        """Adds one reservation to the call."""
        cdef Py_ssize_t before = self._length
        try:
            self._put(user_id)
            self._put(reservation_id)
            self._put(items_text)
        except BaseException:
            self._length = before
            raise
        self.waiters.append(waiter)

    cdef int _put(self, str text) except -1:
        cdef Py_ssize_t length
        cdef const char* data = PyUnicode_AsUTF8AndSize(text, &length)
        cdef Py_ssize_t needed = self._length + length + HEAD_MAX
        cdef char* grown
        if needed > self._size:
            grown = <char*>PyMem_Realloc(self._packed, 2 * needed)
            if grown == NULL:
                raise MemoryError
            self._packed = grown
            self._size = 2 * needed
        cdef char* at = self._packed + self._length
        at += snprintf(at, HEAD_MAX, b"$%zd\r\n", length)
        memcpy(at, data, length)
        at += length
        at[0] = 13
        at[1] = 10
        self._length = at + 2 - self._packed
        return 0

    def command(self, bytes prefix not None, int prefix_arguments):
        """The whole call in RESP: `prefix`, which packs the first arguments, and the reservations."""
        cdef char head[HEAD_MAX]
        cdef int head_length = snprintf(
            head, HEAD_MAX, b"*%zd\r\n", prefix_arguments + ARGUMENTS * len(self.waiters)
        )
        cdef Py_ssize_t prefix_length = PyBytes_GET_SIZE(prefix)
        cdef bytes whole = PyBytes_FromStringAndSize(
            NULL, head_length + prefix_length + self._length
        )
        cdef char* at = PyBytes_AS_STRING(whole)
        memcpy(at, head, head_length)
        memcpy(at + head_length, PyBytes_AS_STRING(prefix), prefix_length)
        memcpy(at + head_length + prefix_length, self._packed, self._length)
        return whole

    def reply(self, bytes until_s not None, list replies not None):
        """Hands each waiter its own reply. Raises ValueError if their numbers differ."""
        cdef Py_ssize_t count = len(self.waiters)
        cdef Py_ssize_t i
        if len(replies) != count:
            raise ValueError(f"{len(replies)} replies to {count} reservations")
        for i in range(count):
            try:
                self.waiters[i].replied(until_s, replies[i])
            except Exception:
                logger.exception("A waiter failed on its reply.", extra={"action": "waiter_failed"})

    def fail(self, object error not None):
        """Tells every waiter that the call failed."""
        for waiter in self.waiters:
            try:
                waiter.failed(error)
            except Exception:
                logger.exception("A waiter failed on an error.", extra={"action": "waiter_failed"})
