cdef enum:
    SIGNATURE = 43  # 32 bytes in base64 without padding


cdef class TokenVerifier:
    cdef object _inner
    cdef object _outer
    cdef bytes _header

    cpdef bytes claims(self, bytes token)
    cpdef bint is_genuine(self, bytes token) except -1
    cdef bint _is_signed(self, char* text, Py_ssize_t signed) except -1
    cdef int put_signature(self, const char* text, Py_ssize_t length, char* out) except -1


cdef Py_ssize_t encode64(const unsigned char* data, Py_ssize_t length, char* out) noexcept
cdef Py_ssize_t decode64(const unsigned char* text, Py_ssize_t length, unsigned char* out) noexcept
