# Writes the texts, numbers and times of JSON into a buffer that is large enough. Each returns its end.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcpy, strlen
from libc.time cimport gmtime_r, time_t, tm


cdef inline char* put(char* at, const char* text) noexcept:
    cdef size_t length = strlen(text)
    memcpy(at, text, length)
    return at + length


cdef inline char* put_bytes(char* at, bytes text) noexcept:
    memcpy(at, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    return at + PyBytes_GET_SIZE(text)


cdef inline char* put_number(char* at, long number) noexcept:
    """Digits of a number; 0 for a negative one, which a counter gone wrong may be."""
    cdef char digits[20]
    cdef int count = 0
    number = max(number, <long>0)
    while True:
        digits[count] = 48 + number % 10
        number //= 10
        count += 1
        if number == 0:
            break
    while count > 0:
        count -= 1
        at[0] = digits[count]
        at += 1
    return at


cdef inline char* put_fraction(char* at, long parts, long whole) noexcept:
    """Tenths or hundredths as a decimal number, without a fraction where it is none."""
    at = put_number(at, parts // whole)
    parts %= whole
    if parts == 0:
        return at
    at[0] = 46
    at += 1
    while parts > 0:
        whole //= 10
        at[0] = 48 + parts // whole
        at += 1
        parts %= whole
    return at


cdef inline char* put_seconds(char* at, double seconds) noexcept:
    if not 0 <= seconds < 1e17:  # In tenths, what a long holds. Neither is what is no number.
        return put(at, b"null")
    return put_fraction(at, <long>(seconds * 10 + 0.5), 10)


cdef inline char* put_two(char* at, int number) noexcept:
    at[0] = 48 + number // 10
    at[1] = 48 + number % 10
    return at + 2


cdef inline char* put_time(char* at, long long ms) noexcept:
    """RFC 3339, UTC, milliseconds only where there are some."""
    cdef time_t second = ms // 1000
    cdef int rest = ms % 1000
    cdef tm parts
    gmtime_r(&second, &parts)
    at = put_number(at, 1900 + parts.tm_year)
    at[0] = 45
    at = put_two(at + 1, parts.tm_mon + 1)
    at[0] = 45
    at = put_two(at + 1, parts.tm_mday)
    at[0] = 84
    at = put_two(at + 1, parts.tm_hour)
    at[0] = 58
    at = put_two(at + 1, parts.tm_min)
    at[0] = 58
    at = put_two(at + 1, parts.tm_sec)
    if rest > 0:
        at[0] = 46
        at[1] = 48 + rest // 100
        at = put_two(at + 2, rest % 100)
    at[0] = 90
    return at + 1
