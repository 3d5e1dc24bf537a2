"""Signs and reads queue tickets: JWT (RFC 7519), HS256, with the claims sale, num, sub, iat, exp, eta, adm.

Says what a ticket claims. Whether its number is served is the room's business.
"""

from hashlib import blake2b

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcmp, memcpy

from ext.tokens cimport SIGNATURE, TokenVerifier, decode64, encode64

cdef enum:
    SALE_MAX = 48  # SALE_ID of engine/model.py.
    USER_MAX = 128  # USER_ID of engine/model.py.
    DIGITS_MAX = 15  # Within what a double counts exactly, and far from overflowing.

# {"alg":"HS256","typ":"ticket+jwt"}: an access token is no ticket, and a ticket no access token.
cdef bytes HEADER = b"eyJhbGciOiJIUzI1NiIsInR5cCI6InRpY2tldCtqd3QifQ."


cdef class Ticket:
    """What a genuine ticket claims. `eta_s` is the wait promised at `issued_s`, None if none was."""

    def __repr__(self):
        return f"Ticket({self.sale_id!r}, {self.user_id!r}, {self.number})"


cdef class TicketKey:
    """Signs tickets, and knows its own. The key is not that of the access tokens."""

    def __init__(self, bytes key not None):
        self._header = HEADER
        self._verifier = TokenVerifier(key, HEADER)
        # Of this key and nothing else: a mark must be as hard to hit as a signature is to guess.
        cdef bytes secret = blake2b(key, digest_size=16, person=b"ticket mark").digest()
        memcpy(self._mark_key, PyBytes_AS_STRING(secret), 16)

    cpdef bytes sign(self, str sale_id, str user_id, long number, long long issued_s,
                     long long expires_s, long eta_s, bint admitted):
        """A ticket. Times in seconds since the Unix epoch; `eta_s` below 0: no wait is promised."""
        cdef Py_ssize_t sale_length, user_length
        cdef const char* sale = PyUnicode_AsUTF8AndSize(sale_id, &sale_length)
        cdef const char* user = PyUnicode_AsUTF8AndSize(user_id, &user_length)
        return self.sign_texts(sale, sale_length, user, user_length, number, issued_s, expires_s,
                               eta_s, admitted)

    cpdef Ticket read(self, bytes token):
        """The ticket, whoever's and however old it is; None if it is forged or no ticket at all."""
        cdef Claims claims
        cdef Ticket ticket
        if token is None or not self.open(token, &claims) or not self.is_genuine(token):
            return None
        ticket = Ticket.__new__(Ticket)
        ticket.sale_id = claims.sale[:claims.sale_length].decode("ascii")
        ticket.user_id = claims.user[:claims.user_length].decode("ascii")
        ticket.number = claims.number
        ticket.issued_s = claims.issued_s
        ticket.expires_s = claims.expires_s
        ticket.eta_s = None if claims.eta_s < 0 else claims.eta_s
        ticket.admitted = claims.admitted
        return ticket

    cdef bint is_genuine(self, bytes token) except -1:
        """Whether the token was signed with our key. This is the one step that costs microseconds."""
        return self._verifier.is_genuine(token)

    cdef bytes sign_texts(self, const char* sale, Py_ssize_t sale_length, const char* user,
                          Py_ssize_t user_length, long number, long long issued_s,
                          long long expires_s, long eta_s, bint admitted):
        cdef char claims[CLAIMS_MAX]
        cdef char signed[TICKET_MAX]
        cdef char name[2 * USER_MAX + 1]
        cdef char promise[LENGTH_MAX]
        cdef Py_ssize_t length
        if not 0 < sale_length <= SALE_MAX or not 0 < user_length <= USER_MAX:
            raise ValueError("a ticket's sale has 1 to 48 characters, its user 1 to 128")
        if not 0 < number <= NUMBER_MAX:
            raise ValueError("a ticket's number is 1 to 2^24")
        escape(user, user_length, name)
        if eta_s < 0:
            memcpy(promise, b"null", 5)
        else:
            snprintf(promise, LENGTH_MAX, b"%ld", eta_s)
        length = snprintf(
            claims, CLAIMS_MAX,
            b'{"sale":"%.*s","num":%ld,"sub":"%s","iat":%lld,"exp":%lld,"eta":%s,"adm":%s}',
            <int>sale_length, sale, number, name, issued_s, expires_s, promise,
            <const char*>(b"true" if admitted else b"false"),
        )
        assert 0 < length < CLAIMS_MAX
        memcpy(signed, PyBytes_AS_STRING(self._header), PyBytes_GET_SIZE(self._header))
        length = PyBytes_GET_SIZE(self._header) + encode64(
            <unsigned char*>claims, length, signed + PyBytes_GET_SIZE(self._header)
        )
        self._verifier.put_signature(signed, length, signed + length + 1)
        signed[length] = 46
        return PyBytes_FromStringAndSize(signed, length + 1 + SIGNATURE)

    cdef bint open(self, bytes token, Claims* claims) noexcept:
        """Reads what a token claims, as `sign` writes it. Does not look at the signature."""
        cdef Py_ssize_t header = PyBytes_GET_SIZE(self._header)
        cdef Py_ssize_t length = PyBytes_GET_SIZE(token) - SIGNATURE - 1 - header
        cdef const char* text = PyBytes_AS_STRING(token)
        # Decoding makes three bytes of four.
        if length < 1 or length > CLAIMS_MAX * 4 // 3:
            return False
        if memcmp(text, PyBytes_AS_STRING(self._header), header) != 0:
            return False
        length = decode64(<const unsigned char*>text + header, length, claims.text)
        return length > 0 and parse(claims, length)

    cdef uint64_t mark(self, bytes token) noexcept:
        """64 bits that stand for a whole token. Never 0."""
        cdef uint64_t value = siphash(
            self._mark_key, <const unsigned char*>PyBytes_AS_STRING(token), PyBytes_GET_SIZE(token)
        )
        return value if value != 0 else 1


cdef enum:
    LENGTH_MAX = 24


cdef void escape(const char* text, Py_ssize_t length, char* out) noexcept:
    """Printable ASCII as JSON writes it between quotes."""
    cdef Py_ssize_t i
    for i in range(length):
        if text[i] == 34 or text[i] == 92:
            out[0] = 92
            out += 1
        out[0] = text[i]
        out += 1
    out[0] = 0


cdef struct Cursor:
    unsigned char* at
    unsigned char* end


cdef bint parse(Claims* claims, Py_ssize_t length) noexcept:
    """Reads claims in exactly the form that `sign` gives them."""
    cdef Cursor cursor
    cursor.at = claims.text
    cursor.end = claims.text + length
    if not (
        skip(&cursor, b'{"sale":"', 9)
        and take_text(&cursor, &claims.sale, &claims.sale_length)
        and skip(&cursor, b',"num":', 7)
    ):
        return False
    claims.number = <long>take_number(&cursor)
    if not (
        0 < claims.number <= NUMBER_MAX
        and skip(&cursor, b',"sub":"', 8)
        and take_text(&cursor, &claims.user, &claims.user_length)
        and skip(&cursor, b',"iat":', 7)
    ):
        return False
    claims.issued_s = take_number(&cursor)
    if claims.issued_s < 0 or not skip(&cursor, b',"exp":', 7):
        return False
    claims.expires_s = take_number(&cursor)
    if claims.expires_s < 0 or not skip(&cursor, b',"eta":', 7):
        return False
    claims.eta_s = -1 if skip(&cursor, b"null", 4) else <long>take_number(&cursor)
    if not skip(&cursor, b',"adm":', 7):
        return False
    claims.admitted = skip(&cursor, b"true}", 5)
    return (claims.admitted or skip(&cursor, b"false}", 6)) and cursor.at == cursor.end


cdef bint skip(Cursor* cursor, const char* text, Py_ssize_t length) noexcept:
    if cursor.end - cursor.at < length or memcmp(cursor.at, text, length) != 0:
        return False
    cursor.at += length
    return True


cdef long long take_number(Cursor* cursor) noexcept:
    """Digits; -1 if there is none, or far too many."""
    cdef long long value = 0
    cdef int digits = 0
    while cursor.at < cursor.end and 48 <= cursor.at[0] <= 57 and digits < DIGITS_MAX:
        value = 10 * value + cursor.at[0] - 48
        cursor.at += 1
        digits += 1
    return value if digits > 0 else -1


cdef bint take_text(Cursor* cursor, const char** text, Py_ssize_t* length) noexcept:
    """A string up to its closing quote, its escapes undone where it stands."""
    cdef unsigned char* out = cursor.at
    text[0] = <const char*>cursor.at
    while cursor.at < cursor.end and cursor.at[0] != 34:
        if cursor.at[0] == 92:
            cursor.at += 1
            if cursor.at == cursor.end:
                return False
        if cursor.at[0] < 33 or cursor.at[0] > 126:
            return False
        out[0] = cursor.at[0]
        out += 1
        cursor.at += 1
    length[0] = <const char*>out - text[0]
    return length[0] > 0 and skip(cursor, b'"', 1)


cdef inline uint64_t rotate(uint64_t value, int bits) noexcept:
    return (value << bits) | (value >> (64 - bits))


cdef inline void sip_round(uint64_t* v) noexcept:
    v[0] += v[1]
    v[1] = rotate(v[1], 13) ^ v[0]
    v[0] = rotate(v[0], 32)
    v[2] += v[3]
    v[3] = rotate(v[3], 16) ^ v[2]
    v[0] += v[3]
    v[3] = rotate(v[3], 21) ^ v[0]
    v[2] += v[1]
    v[1] = rotate(v[1], 17) ^ v[2]
    v[2] = rotate(v[2], 32)


cdef uint64_t siphash(const uint64_t* key, const unsigned char* text, Py_ssize_t length) noexcept:
    """SipHash-2-4 (Aumasson and Bernstein, 2012): a keyed 64-bit hash."""
    cdef uint64_t v[4]
    cdef uint64_t word
    cdef Py_ssize_t at = 0
    v[0] = key[0] ^ 0x736F6D6570736575ULL
    v[1] = key[1] ^ 0x646F72616E646F6DULL
    v[2] = key[0] ^ 0x6C7967656E657261ULL
    v[3] = key[1] ^ 0x7465646279746573ULL
    while at <= length:
        word = 0
        if at + 8 <= length:
            memcpy(&word, text + at, 8)
        else:
            memcpy(&word, text + at, length - at)
            word |= <uint64_t>(length & 255) << 56
        v[3] ^= word
        sip_round(v)
        sip_round(v)
        v[0] ^= word
        at += 8
    v[2] ^= 255
    for _ in range(4):
        sip_round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def siphash_of(bytes key not None, bytes text not None):
    """The mark's hash by itself, so that a test can hold it to the published vectors."""
    cdef uint64_t words[2]
    if len(key) != 16:
        raise ValueError("a SipHash key has 16 bytes")
    memcpy(words, PyBytes_AS_STRING(key), 16)
    return siphash(words, <const unsigned char*>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
