"""Derives reservation ids. What they are made of is said in engine/model.py."""

from hashlib import blake2b

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeASCII
from libc.string cimport memcpy

cdef enum:
    DIGEST = 15  # 120 bits: 20 characters of base64 without padding.
    ID = 20

cdef char* ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
cdef object EMPTY = blake2b(digest_size=DIGEST)  # Copied per id: cheaper than a new one.


cpdef str make_reservation_id(str sale_id, str user_id, str idempotency_key):
    """20 URL-safe characters: the first 120 bits of BLAKE2b over the three, NUL between them."""
    cdef Py_ssize_t sale_length, user_length, key_length
    cdef const char* sale = PyUnicode_AsUTF8AndSize(sale_id, &sale_length)
    cdef const char* user = PyUnicode_AsUTF8AndSize(user_id, &user_length)
    cdef const char* key = PyUnicode_AsUTF8AndSize(idempotency_key, &key_length)
    cdef bytes text = PyBytes_FromStringAndSize(NULL, sale_length + user_length + key_length + 2)
    cdef char* at = PyBytes_AS_STRING(text)
    memcpy(at, sale, sale_length)
    at[sale_length] = 0
    at += sale_length + 1
    memcpy(at, user, user_length)
    at[user_length] = 0
    memcpy(at + user_length + 1, key, key_length)
    cdef object hashed = EMPTY.copy()
    hashed.update(text)
    cdef bytes digest = hashed.digest()
    cdef unsigned char* d = <unsigned char*>PyBytes_AS_STRING(digest)
    cdef char out[ID]
    cdef int i, o = 0
    for i in range(0, DIGEST, 3):
        out[o] = ALPHABET[d[i] >> 2]
        out[o + 1] = ALPHABET[((d[i] & 3) << 4) | (d[i + 1] >> 4)]
        out[o + 2] = ALPHABET[((d[i + 1] & 15) << 2) | (d[i + 2] >> 6)]
        out[o + 3] = ALPHABET[d[i + 2] & 63]
        o += 4
    return PyUnicode_DecodeASCII(out, ID, NULL)
