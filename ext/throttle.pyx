"""Limits each client's rate, in bounded memory, without ever looking at all clients.

The memory may be a file that the processes of one machine share: then they limit as one. Leaves
it to the engine to choose rates and files, and what to do without a file.
"""

import os
from contextlib import suppress
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from struct import Struct
from tempfile import mkstemp

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.math cimport llround
from libc.string cimport memcpy

cdef extern from "Python.h":
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    int PyUnicode_KIND(object text)
    const unsigned char* PyUnicode_DATA(object text)

cdef extern from *:
    """
    #include <sched.h>
    #include <stdint.h>

    static inline uint64_t word_load(uint64_t* word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
    static inline void word_store(uint64_t* word, uint64_t value) {
        __atomic_store_n(word, value, __ATOMIC_RELEASE);
    }
    static inline int word_swap(uint64_t* word, uint64_t seen, uint64_t value) {
        return __atomic_compare_exchange_n(word, &seen, value, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
    }
    """
    uint64_t word_load(uint64_t* word) noexcept
    void word_store(uint64_t* word, uint64_t value) noexcept
    bint word_swap(uint64_t* word, uint64_t seen, uint64_t value) noexcept
    int sched_yield() noexcept

cdef enum:
    HEADER_BYTES = 4096  # A page, so that the sets stay aligned.
    SETS_MAX = 1 << 28  # 32 GiB
    LOCKED = 1
    NS = 1_000_000_000
    # Yields, some milliseconds. A set is locked for less than a microsecond: whoever holds it
    # that long was killed in the act, and all that is lost is one charge.
    YIELDS_MAX = 10_000

# A day: no bucket takes so long to fill. What is beyond is from before the clock began anew, as it
# does with the machine.
cdef int64_t HORIZON = 86_400 * <int64_t>NS
cdef uint64_t UNLOCKED = ~<uint64_t>1

MAGIC = b"doorbust"
VERSION = 1  # Of the file and of the hash below. Another one is left alone.
HEADER = Struct("<8sQQQQ")  # magic, version, sets, key


def make_file(path, size, sets):
    """Makes the file whole or not at all; whoever is first makes it."""
    descriptor, made = mkstemp(prefix=".clients-", dir=os.path.dirname(path) or ".")
    try:
        os.posix_fallocate(descriptor, 0, size)  # A full disk is told now, not by SIGBUS later.
        os.pwrite(descriptor, HEADER.pack(MAGIC, VERSION, sets, *fresh_key()), 0)
        with suppress(FileExistsError):
            os.link(made, path)
    finally:
        os.close(descriptor)
        os.unlink(made)


def fresh_key():
    return Struct("<QQ").unpack(os.urandom(16))


def map_file(path, size, sets):
    """The file in memory, made if there is none. Raises OSError, or ValueError if it is not ours."""
    if not os.path.lexists(path):
        make_file(path, size, sets)
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid():
            raise ValueError("it belongs to somebody else")
        if found.st_size != size:
            raise ValueError(f"it has {found.st_size} bytes and not {size}")
        memory = mmap(descriptor, size)
    finally:
        os.close(descriptor)
    if HEADER.unpack_from(memory)[:3] != (MAGIC, VERSION, sets):
        raise ValueError("it was made by another version")
    return memory


cdef inline uint64_t turned(uint64_t word, int bits) noexcept:
    return (word << bits) | (word >> (64 - bits))


cdef inline void siphash_round(uint64_t* v) noexcept:
    v[0] += v[1]
    v[2] += v[3]
    v[1] = turned(v[1], 13) ^ v[0]
    v[3] = turned(v[3], 16) ^ v[2]
    v[0] = turned(v[0], 32)
    v[2] += v[1]
    v[0] += v[3]
    v[1] = turned(v[1], 17) ^ v[2]
    v[3] = turned(v[3], 21) ^ v[0]
    v[2] = turned(v[2], 32)


cdef uint64_t siphash(const unsigned char* text, Py_ssize_t length, uint64_t key0, uint64_t key1) noexcept:
    """SipHash-1-3 (Aumasson and Bernstein, 2012): nobody without the key can choose what collides."""
    cdef uint64_t v[4]
    cdef uint64_t word
    cdef uint64_t last = <uint64_t>length << 56
    v[0] = key0 ^ 0x736F6D6570736575ULL
    v[1] = key1 ^ 0x646F72616E646F6DULL
    v[2] = key0 ^ 0x6C7967656E657261ULL
    v[3] = key1 ^ 0x7465646279746573ULL
    while length >= 8:
        memcpy(&word, text, 8)
        v[3] ^= word
        siphash_round(v)
        v[0] ^= word
        text += 8
        length -= 8
    word = 0
    memcpy(&word, text, length)
    last |= word
    v[3] ^= last
    siphash_round(v)
    v[0] ^= last
    v[2] ^= 0xFF
    siphash_round(v)
    siphash_round(v)
    siphash_round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def keyed_hash(bytes text not None, uint64_t key0, uint64_t key1):
    """What marks are made of."""
    return siphash(text, len(text), key0, key1)


cdef inline int place_of(ClientSet* home, uint64_t mark) noexcept:
    """Where the client is, or -1."""
    cdef int place
    if home.marks[0] & UNLOCKED == mark:
        return 0
    for place in range(1, WAYS):
        if home.marks[place] == mark:
            return place
    return -1


cdef inline int lightest(ClientSet* home, int64_t now) noexcept:
    """The place whose bucket is full soonest; before all an empty one, or one that no clock set."""
    cdef int place, found = 0
    cdef int64_t weight, least = now + HORIZON
    for place in range(WAYS):
        weight = home.full_at[place] if home.full_at[place] <= now + HORIZON else 0
        if weight < least:
            found, least = place, weight
    return found


cdef class ClientTable:
    """Some numbers per client, at 16 bytes each: for `clients_max` of them, and never more memory.

    A client is a mark of 63 bits, a keyed hash, in a set of eight. Where a set is full a newcomer
    takes the place of the client whose bucket is full soonest. With a `path` the memory is that
    file; OSError or ValueError says why it cannot be, and the file is left as it was.

    Two processes that charge at once take turns by compare-and-swap, set by set.
    """

    def __cinit__(self, Py_ssize_t clients_max, str path=None):
        cdef Py_ssize_t sets = 1
        if clients_max < 1 or clients_max > WAYS * <Py_ssize_t>SETS_MAX:
            raise ValueError(f"no table has room for {clients_max} clients")
        while sets * WAYS < clients_max:
            sets *= 2
        size = HEADER_BYTES + sets * sizeof(ClientSet)
        if path is None:
            memory = mmap(-1, size, flags=MAP_PRIVATE | MAP_ANONYMOUS)
            HEADER.pack_into(memory, 0, MAGIC, VERSION, sets, *fresh_key())
        else:
            memory = map_file(path, size, sets)
            self.shared = True
        self.key0, self.key1 = HEADER.unpack_from(memory)[3:]
        PyObject_GetBuffer(memory, &self._bytes, PyBUF_WRITABLE)
        self._sets = <ClientSet*>(<char*>self._bytes.buf + HEADER_BYTES)
        self._last_set = sets - 1

    def __dealloc__(self):
        PyBuffer_Release(&self._bytes)

    def __len__(self):
        """Clients remembered. It looks at all of them."""
        cdef Py_ssize_t count = 0
        cdef uint64_t number
        cdef int place
        for number in range(self._last_set + 1):
            for place in range(WAYS):
                count += (self._sets[number].marks[place] & UNLOCKED) != 0
        return count

    cdef int64_t charge(self, uint64_t mark, int64_t now, int64_t interval, int64_t tolerance) noexcept:
        """0 if charged, else the time after which it can be."""
        cdef ClientSet* home = self._lock(mark)
        cdef int place = place_of(home, mark)
        cdef int64_t full_at = now
        cdef int64_t excess
        if place >= 0:
            full_at = max(full_at, home.full_at[place])
            if full_at > now + tolerance:  # The clock stepped back: at worst the bucket is empty.
                full_at = home.full_at[place] = now + tolerance
        full_at += interval
        excess = full_at - now - tolerance
        if excess <= 0:
            excess = 0
            if place < 0:
                place = lightest(home, now)
                home.marks[place] = mark | (home.marks[place] & LOCKED if place == 0 else 0)
            home.full_at[place] = full_at
        self._unlock(home)
        return excess

    cdef int64_t full_at(self, uint64_t mark) noexcept:
        """0 for somebody unknown."""
        cdef ClientSet* home = &self._sets[mark >> 8 & self._last_set]
        cdef int place = place_of(home, mark)
        return home.full_at[place] if place >= 0 else 0

    cdef ClientSet* _lock(self, uint64_t mark) noexcept:
        cdef ClientSet* home = &self._sets[mark >> 8 & self._last_set]
        cdef uint64_t seen
        cdef int tries
        if not self.shared:
            return home
        for tries in range(YIELDS_MAX):
            seen = word_load(home.marks) & UNLOCKED
            if word_swap(home.marks, seen, seen | LOCKED):
                return home
            sched_yield()
        return home

    cdef void _unlock(self, ClientSet* home) noexcept:
        if self.shared:
            word_store(home.marks, home.marks[0] & UNLOCKED)


cdef class Throttle:
    """The generic cell rate algorithm (ITU-T I.371): a bucket of `burst` that refills by itself.

    Per client one number is kept: the time at which its bucket is full again. Throttles of
    different `kind` may share a table. Times are whole nanoseconds of a clock read to the
    microsecond, so sums are exact.
    """

    def __init__(self, ClientTable table not None, str kind not None, object clock not None, *,
                 double per_second, double burst):
        if not per_second > 0 or not burst >= 1:
            raise ValueError(f"{burst:g} at once, {per_second:g} per second: nobody could pass")
        self._table = table
        self._monotonic = clock.monotonic
        self._interval = max(llround(NS / per_second), 1)
        self._tolerance = llround(self._interval * burst)
        cdef bytes name = kind.encode()
        self._key0 = table.key0 ^ siphash(name, len(name), table.key0, table.key1)
        self._key1 = table.key1

    cpdef double admit(self, str client) except -1:
        """0.0 if admitted, else the seconds after which it will be."""
        cdef uint64_t mark = self._mark(client)
        return <double>self._table.charge(mark, self._now(), self._interval, self._tolerance) / NS

    cpdef tuple state(self, str client):
        """How many requests would be admitted now, and in how many seconds the bucket is full."""
        cdef int64_t now = self._now()
        cdef int64_t missing = self._table.full_at(self._mark(client)) - now
        missing = min(max(missing, 0), self._tolerance)
        return (self._tolerance - missing) // self._interval, <double>missing / NS

    cdef uint64_t _mark(self, str client) except 0:
        if client is None:
            raise TypeError("a client has a name")
        # The bytes as they are in memory: every string has some, whatever its characters.
        cdef int width = PyUnicode_KIND(client)
        cdef uint64_t mark = siphash(
            PyUnicode_DATA(client), PyUnicode_GET_LENGTH(client) * width, self._key0, self._key1 + width
        )
        mark &= UNLOCKED
        return mark if mark != 0 else 2

    cdef int64_t _now(self) except -1:
        return llround(<double>self._monotonic() * 1e6) * 1000
