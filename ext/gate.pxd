cdef class Gate:
    cdef readonly object straight
    cdef readonly object doors
    cdef readonly object connections
    cdef object _make_parser
    cdef Py_ssize_t _body_max
    cdef double _request_seconds_max
    cdef double _keepalive_seconds
    cdef public bint stopping


cdef class GateConnection:
    cdef Gate _gate
    cdef object _transport
    cdef object _parser
    cdef readonly str address
    cdef str client  # Who it is, where no header says another; with `standing`, for the straight path.
    cdef int standing
    cdef bytes _rest
    cdef Request _awaited
    cdef Request _first
    cdef Request _last
    cdef int _pending
    cdef bint _in_pump
    cdef bint _cold
    cdef bint _paused_reading
    cdef bint _paused_writing
    cdef bint _ended
    cdef bint _answered_once
    cdef bint _farewell  # The last answer said so.
    cdef double _since

    # What the parser found in the head it read last.
    cdef bytes _url
    cdef bytes _authorization
    cdef bytes _idempotency_key
    cdef bytes _content_type
    cdef bytes _request_id
    cdef bytes _queue_ticket
    cdef bytes _x_forwarded_for
    cdef bytes _forwarded
    cdef bytes _user_agent
    cdef Py_ssize_t _length
    cdef unsigned int _seen
    cdef int _headers
    cdef bint _odd
    cdef bint _head_read
    cdef bint _complete

    cdef int _pump(self, bytes data) except -1
    cdef int _keep(self, bytes data) except -1
    cdef Py_ssize_t _take(self, bytes data, Py_ssize_t at) except -2
    cdef Request _read_head(self, bytes head, int kind)
    cdef bint _read_body(self, bytes body) except -1
    cdef int _see(self, unsigned int which) except -1
    cdef int _kind_of_path(self, int kind) noexcept
    cdef bint _ends_with(self, bytes end) noexcept
    cdef str _name_of(self, int kind)
    cdef int _serve(self, Request request) except -1
    cdef int _flush(self) except -1
    cdef int _settle(self) except -1
    cdef bint _is_over(self) noexcept
    cdef bint _has_more(self) noexcept
    cdef int _turn_cold(self, bytes data) except -2
    cdef int _hand_over(self, bytes data) except -1
    cdef int _pause_reading(self) except -1
    cdef int _resume_reading(self) except -1


cdef class Request:
    cdef readonly int kind
    cdef readonly str name
    cdef readonly bytes authorization
    cdef readonly bytes idempotency_key
    cdef readonly bytes content_type
    cdef readonly bytes request_id
    cdef readonly bytes queue_ticket
    cdef readonly bytes x_forwarded_for
    cdef readonly bytes forwarded
    cdef readonly bytes user_agent
    cdef readonly bytes body
    cdef Py_ssize_t length
    cdef GateConnection connection
    cdef Request following
    cdef bytes written

    # What the straight path found out.
    cdef double entered
    cdef public int paid
    cdef public object path
    cdef public object sale
    cdef public object wish
    cdef public str user_id
    cdef public str reservation_id

    cdef int send(self, bytes written) except -1
