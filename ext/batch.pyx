"""Packs the reservations of one script call while they come, and hands its replies out."""

import logging

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdio cimport snprintf
from libc.string cimport memcpy, memset

cdef object logger = logging.getLogger(__name__)

cdef enum:
    ARGUMENTS = 2  # What follows the first arguments: columns and lines (see reserve.lua).
    COLUMNS = 5
    WISHES = 3  # The one column that has no element per request.
    TICKETS = 4  # Not sent unless a request has a ticket.
    TICKETS_MAX = 1 << 24  # The room gives out no higher number.
    TICKET_MAX = 5  # Bytes of one in MessagePack.
    HEAD_MAX = 24  # '*', a count or '$', a length, and CRLF
    SHORT_MAX = 31  # Bytes of a text that MessagePack heads with one byte.
    FIRST_SIZE = 4096


cdef struct Buffer:
    char* data
    Py_ssize_t length
    Py_ssize_t size


cdef class ReserveBatch:
    """The reservations that will travel in one script call, each with whoever waits for its reply.

    A waiter has `replied(until_s: bytes, reply: bytes)` and `failed(error)`; it must not raise.
    """

    cdef readonly list waiters
    cdef dict _wants
    cdef Buffer _columns[COLUMNS]  # user ids, reservation ids, wants, wishes, tickets
    cdef Buffer _lines

    def __cinit__(self):
        self.waiters = []
        self._wants = {}

    def __dealloc__(self):
        for column in range(COLUMNS):
            PyMem_Free(self._columns[column].data)
        PyMem_Free(self._lines.data)

    def __len__(self):
        return len(self.waiters)

    @property
    def has_tickets(self):
        """Whether a request has to do with a waiting room."""
        return self._columns[TICKETS].length > 0

    def add(self, object waiter not None, str user_id not None, str reservation_id not None,
            str items_text not None, long ticket=0):
        """Adds one reservation to the call. `ticket` is -1, 0 or a number (see reserve.lua)."""
        if not -1 <= ticket <= TICKETS_MAX:
            raise ValueError(f"{ticket} is no number of a ticket")
        cdef Py_ssize_t user_length, id_length, items_length
        cdef const char* user = PyUnicode_AsUTF8AndSize(user_id, &user_length)
        cdef const char* id = PyUnicode_AsUTF8AndSize(reservation_id, &id_length)
        cdef const char* items = PyUnicode_AsUTF8AndSize(items_text, &items_length)
        cdef object known = self._wants.get(items_text)
        cdef int want = len(self._wants) + 1 if known is None else known
        # Room first: what follows cannot fail halfway.
        make_room(&self._columns[0], user_length + HEAD_MAX)
        make_room(&self._columns[1], id_length + HEAD_MAX)
        make_room(&self._columns[2], HEAD_MAX)
        make_room(&self._columns[3], items_length + HEAD_MAX)
        make_room(&self._lines, id_length + user_length + items_length + HEAD_MAX)
        if ticket != 0 or self._columns[TICKETS].length > 0:
            self._put_ticket(ticket)
        self.waiters.append(waiter)
        if known is None:
            self._wants[items_text] = want
            put_text(&self._columns[3], items, items_length)
        put_text(&self._columns[0], user, user_length)
        put_text(&self._columns[1], id, id_length)
        put_number(&self._columns[2], want)
        if self._lines.length:
            put(&self._lines, b"\n", 1)
        put(&self._lines, id, id_length)
        put(&self._lines, b" ", 1)
        put(&self._lines, user, user_length)
        put(&self._lines, b" ", 1)
        put(&self._lines, items, items_length)

    cdef int _put_ticket(self, long ticket) except -1:
        """The first one to have a ticket brings the column: all before him had none."""
        cdef Py_ssize_t before = len(self.waiters)
        cdef Buffer* column = &self._columns[TICKETS]
        make_room(column, before + TICKET_MAX)
        if column.length == 0:
            memset(column.data, 0, before)
            column.length = before
        put_ticket(column, ticket)
        return 0

    def command(self, bytes prefix not None, int prefix_arguments):
        """The whole call in RESP: `prefix`, which packs the first arguments, and the reservations."""
        cdef Buffer whole
        cdef int columns = COLUMNS if self._columns[TICKETS].length > 0 else TICKETS
        cdef Py_ssize_t columns_length = 3 * columns
        for column in range(columns):
            columns_length += self._columns[column].length
        whole.size = (PyBytes_GET_SIZE(prefix) + columns_length + self._lines.length
                      + 3 * HEAD_MAX + 4)
        cdef bytes room = PyBytes_FromStringAndSize(NULL, whole.size)
        whole.data = PyBytes_AS_STRING(room)
        whole.length = 0
        put_head(&whole, b"*", prefix_arguments + ARGUMENTS)
        put(&whole, PyBytes_AS_STRING(prefix), PyBytes_GET_SIZE(prefix))
        put_head(&whole, b"$", columns_length)
        for column in range(columns):
            put_count(&whole, len(self._wants) if column == WISHES else len(self.waiters))
            put(&whole, self._columns[column].data, self._columns[column].length)
        put(&whole, b"\r\n", 2)
        put_head(&whole, b"$", self._lines.length)
        put(&whole, self._lines.data, self._lines.length)
        put(&whole, b"\r\n", 2)
        return room[:whole.length]

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


cdef int make_room(Buffer* buffer, Py_ssize_t length) except -1:
    cdef Py_ssize_t needed = buffer.length + length
    cdef char* grown
    if needed > buffer.size:
        needed = max(2 * needed, FIRST_SIZE)
        grown = <char*>PyMem_Realloc(buffer.data, needed)
        if grown == NULL:
            raise MemoryError
        buffer.data = grown
        buffer.size = needed
    return 0


cdef inline void put(Buffer* buffer, const char* data, Py_ssize_t length) noexcept:
    memcpy(buffer.data + buffer.length, data, length)
    buffer.length += length


cdef inline void put_byte(Buffer* buffer, Py_ssize_t byte) noexcept:
    buffer.data[buffer.length] = <char>(byte & 0xFF)
    buffer.length += 1


cdef inline void put_16(Buffer* buffer, Py_ssize_t number) noexcept:
    put_byte(buffer, number >> 8)
    put_byte(buffer, number)


cdef inline void put_head(Buffer* buffer, const char* kind, Py_ssize_t number) noexcept:
    """How RESP heads an array (*) or a string ($)."""
    buffer.length += snprintf(buffer.data + buffer.length, HEAD_MAX, b"%s%zd\r\n", kind, number)


cdef inline void put_count(Buffer* buffer, Py_ssize_t count) noexcept:
    """How MessagePack heads an array of so many elements. A batch has at most 512."""
    put_byte(buffer, 0xDC)
    put_16(buffer, count)


cdef inline void put_number(Buffer* buffer, int number) noexcept:
    if number > 127:
        put_byte(buffer, 0xCD)
        put_16(buffer, number)
    else:
        put_byte(buffer, number)


cdef inline void put_ticket(Buffer* buffer, long ticket) noexcept:
    if ticket < 0:
        put_byte(buffer, 0xFF)
    elif ticket < 128:
        put_byte(buffer, ticket)
    else:
        put_byte(buffer, 0xCE)
        put_16(buffer, ticket >> 16)
        put_16(buffer, ticket)


cdef inline void put_text(Buffer* buffer, const char* text, Py_ssize_t length) noexcept:
    if length <= SHORT_MAX:
        put_byte(buffer, 0xA0 | length)
    else:
        put_byte(buffer, 0xDB)
        put_16(buffer, length >> 16)
        put_16(buffer, length)
    put(buffer, text, length)
