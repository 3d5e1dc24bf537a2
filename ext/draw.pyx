"""Draws places by lot, so that anyone who knows the seed can draw them again."""

from array import array

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef enum:
    SEED_BYTES = 32
    COUNT_MAX = 1 << 24

# The fractional parts of the cube roots of the first 64 primes, and of the square roots of the
# first 8 (FIPS 180-4, 4.2.2 and 5.3.3).
cdef uint32_t[64] K
cdef uint32_t[8] START
K[:] = [
    0x428A2F98, 0x71374491, 0xB5C0FBCF, 0xE9B5DBA5, 0x3956C25B, 0x59F111F1, 0x923F82A4, 0xAB1C5ED5,
    0xD807AA98, 0x12835B01, 0x243185BE, 0x550C7DC3, 0x72BE5D74, 0x80DEB1FE, 0x9BDC06A7, 0xC19BF174,
    0xE49B69C1, 0xEFBE4786, 0x0FC19DC6, 0x240CA1CC, 0x2DE92C6F, 0x4A7484AA, 0x5CB0A9DC, 0x76F988DA,
    0x983E5152, 0xA831C66D, 0xB00327C8, 0xBF597FC7, 0xC6E00BF3, 0xD5A79147, 0x06CA6351, 0x14292967,
    0x27B70A85, 0x2E1B2138, 0x4D2C6DFC, 0x53380D13, 0x650A7354, 0x766A0ABB, 0x81C2C92E, 0x92722C85,
    0xA2BFE8A1, 0xA81A664B, 0xC24B8B70, 0xC76C51A3, 0xD192E819, 0xD6990624, 0xF40E3585, 0x106AA070,
    0x19A4C116, 0x1E376C08, 0x2748774C, 0x34B0BCB5, 0x391C0CB3, 0x4ED8AA4A, 0x5B9CCA4F, 0x682E6FF3,
    0x748F82EE, 0x78A5636F, 0x84C87814, 0x8CC70208, 0x90BEFFFA, 0xA4506CEB, 0xBEF9A3F7, 0xC67178F2,
]
START[:] = [
    0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19,
]


cdef struct Words:
    uint8_t seed[SEED_BYTES]
    uint64_t counter
    uint32_t block[8]
    int used


cdef inline uint32_t rotate(uint32_t value, int bits) noexcept nogil:
    return (value >> bits) | (value << (32 - bits))


cdef void hash_block(const uint8_t* message, uint32_t* out) noexcept nogil:
    """SHA-256 of one padded block (FIPS 180-4, 6.2.2)."""
    cdef uint32_t w[64]
    cdef uint32_t s[8]
    cdef uint32_t first, second
    cdef int t
    for t in range(16):
        w[t] = (<uint32_t>message[4 * t] << 24 | <uint32_t>message[4 * t + 1] << 16
                | <uint32_t>message[4 * t + 2] << 8 | message[4 * t + 3])
    for t in range(16, 64):
        first = rotate(w[t - 15], 7) ^ rotate(w[t - 15], 18) ^ (w[t - 15] >> 3)
        second = rotate(w[t - 2], 17) ^ rotate(w[t - 2], 19) ^ (w[t - 2] >> 10)
        w[t] = w[t - 16] + first + w[t - 7] + second
    for t in range(8):
        s[t] = START[t]
    for t in range(64):
        first = (s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25))
                 + ((s[4] & s[5]) ^ (~s[4] & s[6])) + K[t] + w[t])
        second = ((rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22))
                  + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2])))
        s[7], s[6], s[5], s[4] = s[6], s[5], s[4], s[3] + first
        s[3], s[2], s[1], s[0] = s[2], s[1], s[0], first + second
    for t in range(8):
        out[t] = START[t] + s[t]


cdef uint32_t next_word(Words* words) noexcept nogil:
    """The next 32 bits of SHA-256(seed, 0), SHA-256(seed, 1), …, the counter in 8 bytes, big end first."""
    cdef uint8_t message[64]
    cdef int i
    if words.used == 8:
        memset(message, 0, 64)
        for i in range(SEED_BYTES):
            message[i] = words.seed[i]
        for i in range(8):
            message[SEED_BYTES + i] = (words.counter >> (56 - 8 * i)) & 255
        message[40] = 0x80
        message[62] = 320 >> 8  # The message's length in bits, as padding demands.
        message[63] = 320 & 255
        hash_block(message, words.block)
        words.counter += 1
        words.used = 0
    words.used += 1
    return words.block[words.used - 1]


cdef uint32_t below(Words* words, uint32_t bound) noexcept nogil:
    """A number from 0 to bound - 1, each equally likely: words of the incomplete last round are skipped."""
    cdef uint64_t fair = ((<uint64_t>1 << 32) // bound) * bound
    cdef uint32_t word
    while True:
        word = next_word(words)
        if word < fair:
            return word % bound


cdef void shuffle(uint32_t* places, Py_ssize_t count, Words* words) noexcept nogil:
    """Fisher and Yates, as Durstenfeld wrote it (Knuth, TAOCP 2, 3.4.2, algorithm P)."""
    cdef Py_ssize_t i, j
    for i in range(count):
        places[i] = i + 1
    for i in range(count - 1, 0, -1):
        j = below(words, i + 1)
        places[i], places[j] = places[j], places[i]


def draw(bytes seed not None, Py_ssize_t count):
    """The places of the numbers 1 to `count`, in the numbers' order. Lets go of the GIL meanwhile."""
    cdef Words words
    cdef uint32_t[::1] places
    cdef uint32_t* first
    if len(seed) != SEED_BYTES:
        raise ValueError("a seed has 32 bytes")
    if not 0 <= count <= COUNT_MAX:
        raise ValueError("0 to 2^24 numbers are drawn")
    drawn = array("I", bytes(4 * count))
    if count == 0:
        return drawn
    places = drawn
    first = &places[0]
    memcpy(words.seed, PyBytes_AS_STRING(seed), SEED_BYTES)
    words.counter = 0
    words.used = 8
    with nogil:
        shuffle(first, count, &words)
    return drawn
