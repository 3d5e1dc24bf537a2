"""Verifies HS256 signatures of tokens (RFC 7515) and opens their claims. Reads no claim."""

from hashlib import sha256

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.string cimport memcmp

cdef enum:
    BLOCK = 64
    DIGEST = 32
    BAD = 255
    USER_MAX = 128

cdef char* ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
cdef unsigned char VALUES[256]

cdef void _fill_values() noexcept:
    cdef int i
    for i in range(256):
        VALUES[i] = BAD
    for i in range(64):
        VALUES[<unsigned char>ALPHABET[i]] = i

_fill_values()


cdef Py_ssize_t encode64(const unsigned char* data, Py_ssize_t length, char* out) noexcept:
    """Writes base64url without padding (RFC 4648 §5) and returns its length."""
    cdef Py_ssize_t i = 0, o = 0
    while i + 2 < length:
        out[o] = ALPHABET[data[i] >> 2]
        out[o + 1] = ALPHABET[((data[i] & 3) << 4) | (data[i + 1] >> 4)]
        out[o + 2] = ALPHABET[((data[i + 1] & 15) << 2) | (data[i + 2] >> 6)]
        out[o + 3] = ALPHABET[data[i + 2] & 63]
        i += 3
        o += 4
    if i == length:
        return o
    out[o] = ALPHABET[data[i] >> 2]
    if i + 1 == length:
        out[o + 1] = ALPHABET[(data[i] & 3) << 4]
        return o + 2
    out[o + 1] = ALPHABET[((data[i] & 3) << 4) | (data[i + 1] >> 4)]
    out[o + 2] = ALPHABET[(data[i + 1] & 15) << 2]
    return o + 3


cdef Py_ssize_t decode64(const unsigned char* text, Py_ssize_t length, unsigned char* out) noexcept:
    """Writes the bytes behind base64url text without padding and returns their number; -1: it is none."""
    cdef unsigned int group = 0
    cdef unsigned char value
    cdef Py_ssize_t i, o = 0
    if length % 4 == 1:
        return -1
    for i in range(length):
        value = VALUES[text[i]]
        if value == BAD:
            return -1
        group = (group << 6) | value
        if i % 4 == 3:
            out[o] = (group >> 16) & 255
            out[o + 1] = (group >> 8) & 255
            out[o + 2] = group & 255
            o += 3
            group = 0
    if length % 4 == 2:
        out[o] = (group >> 4) & 255
        o += 1
    elif length % 4 == 3:
        out[o] = (group >> 10) & 255
        out[o + 1] = (group >> 2) & 255
        o += 2
    return o


cdef bytes _decode(const unsigned char* text, Py_ssize_t length):
    """The bytes behind base64url text without padding; None if it is none."""
    cdef bytes result = PyBytes_FromStringAndSize(NULL, length * 3 // 4)
    if decode64(text, length, <unsigned char*>PyBytes_AS_STRING(result)) < 0:
        return None
    return result


cdef bint _is_user_id(str user_id) except -1:
    """USER_ID of engine/model.py: printable ASCII."""
    cdef Py_ssize_t length, i
    cdef const char* text = PyUnicode_AsUTF8AndSize(user_id, &length)
    if length < 1 or length > USER_MAX:
        return False
    for i in range(length):
        if text[i] < 33 or text[i] > 126:
            return False
    return True


cdef class TokenVerifier:
    """Verifies tokens with one key and one header.

    HMAC-SHA256 whose two padded blocks are hashed beforehand (RFC 2104 §4); OpenSSL hashes.
    """

    def __init__(self, bytes key not None, bytes header not None):
        if len(key) > BLOCK:
            key = sha256(key).digest()
        key = key.ljust(BLOCK, b"\0")
        self._inner = sha256(bytes([byte ^ 0x36 for byte in key]))
        self._outer = sha256(bytes([byte ^ 0x5C for byte in key]))
        self._header = header

    cpdef bytes claims(self, bytes token):
        """The claims' JSON if the token has our header and a genuine signature, else None.

        The signature is compared in a time that does not depend on it.
        """
        if not self.is_genuine(token):
            return None
        cdef Py_ssize_t header = PyBytes_GET_SIZE(self._header)
        cdef Py_ssize_t length = PyBytes_GET_SIZE(token) - SIGNATURE - 1 - header
        return _decode(<unsigned char*>PyBytes_AS_STRING(token) + header, length)

    cpdef bint is_genuine(self, bytes token) except -1:
        """Whether the token has our header and was signed with our key."""
        cdef Py_ssize_t header = PyBytes_GET_SIZE(self._header)
        cdef Py_ssize_t signed = PyBytes_GET_SIZE(token) - SIGNATURE - 1
        cdef char* text = PyBytes_AS_STRING(token)
        if signed <= header or text[signed] != 46:
            return False
        if memcmp(text, PyBytes_AS_STRING(self._header), header) != 0:
            return False
        return self._is_signed(text, signed)

    def user_until(self, bytes token not None, object decode not None, double now_s,
                   double issued_max_s):
        """(user, end in s since the Unix epoch) of a genuine token that is valid now, else None.

        `decode` makes an object with `sub`, `exp` and `iat` of the claims, or raises ValueError.
        `issued_max_s` is the latest `iat` that is believed.
        """
        cdef bytes text = self.claims(token)
        if text is None:
            return None
        try:
            claims = decode(text)
        except ValueError:
            return None
        cdef object ends = claims.exp
        cdef str user_id = claims.sub
        if ends <= now_s or claims.iat > issued_max_s or not _is_user_id(user_id):
            return None
        return user_id, ends

    cdef bint _is_signed(self, char* text, Py_ssize_t signed) except -1:
        cdef char expected[SIGNATURE]
        cdef unsigned char difference = 0
        cdef int i
        self.put_signature(text, signed, expected)
        for i in range(SIGNATURE):
            difference |= <unsigned char>expected[i] ^ <unsigned char>text[signed + 1 + i]
        return difference == 0

    cdef int put_signature(self, const char* text, Py_ssize_t length, char* out) except -1:
        """Writes the SIGNATURE characters that sign a text."""
        cdef object inner = self._inner.copy()
        cdef object outer = self._outer.copy()
        cdef bytes digest
        inner.update(PyBytes_FromStringAndSize(text, length))
        outer.update(inner.digest())
        digest = outer.digest()
        encode64(<unsigned char*>PyBytes_AS_STRING(digest), DIGEST, out)
        return 0
