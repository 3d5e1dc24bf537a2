from libc.stdint cimport uint64_t

from ext.tokens cimport TokenVerifier

cdef enum:
    CLAIMS_MAX = 576  # Names of 48 and 128 characters, each of the latter escaped; five numbers.
    TICKET_MAX = 1024  # Header, claims and signature in base64.
    NUMBER_MAX = 1 << 24  # TICKETS_MAX of the room's scripts.


cdef struct Claims:
    unsigned char text[CLAIMS_MAX]
    const char* sale
    Py_ssize_t sale_length
    const char* user
    Py_ssize_t user_length
    long number
    long long issued_s
    long long expires_s
    long eta_s  # -1: none was promised
    bint admitted


cdef class Ticket:
    cdef readonly str sale_id
    cdef readonly str user_id
    cdef readonly long number
    cdef readonly long long issued_s
    cdef readonly long long expires_s
    cdef readonly object eta_s
    cdef readonly bint admitted


cdef class TicketKey:
    cdef TokenVerifier _verifier
    cdef bytes _header
    cdef uint64_t _mark_key[2]

    cpdef bytes sign(self, str sale_id, str user_id, long number, long long issued_s,
                     long long expires_s, long eta_s, bint admitted)
    cpdef Ticket read(self, bytes token)
    cdef bytes sign_texts(self, const char* sale, Py_ssize_t sale_length, const char* user,
                          Py_ssize_t user_length, long number, long long issued_s,
                          long long expires_s, long eta_s, bint admitted)
    cdef bint open(self, bytes token, Claims* claims) noexcept
    cdef bint is_genuine(self, bytes token) except -1
    cdef uint64_t mark(self, bytes token) noexcept
