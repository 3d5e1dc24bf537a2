"""The gate: an asyncio protocol that serves the hot calls and hands every other connection over.

It frames requests, httptools (llhttp) parses them, and `doors` answers them. Whatever is not a hot
call in its plainest form (another path or method, HTTP/1.0, chunks, Expect, Upgrade, repeated or
malformed headers, a cookie in place of a token) goes to aiohttp with all bytes since that request
began, and the connection stays there. So the gate itself never refuses a request, and knows no error of HTTP.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.string cimport memchr, memcmp

cdef extern from "<strings.h>" nogil:
    int strncasecmp(const char*, const char*, size_t)

cdef extern from "<string.h>" nogil:
    void* memmem(const void*, size_t, const void*, size_t)

cpdef enum Kind:
    COLD = 0
    RESERVE = 1
    SHOW_SALE = 2
    SHOW_RESERVATION = 3
    SHOW_QUEUE = 4
    ENTER_QUEUE = 5
    SHOW_CHALLENGE = 6

cdef enum:
    UNDECIDED = -1
    HEAD_MAX = 8190  # Bytes; as much as aiohttp takes in a single header.
    HEADERS_MAX = 64
    PIPELINE_MAX = 32  # Requests of one connection in work; its further bytes wait.
    PIPELINE_GO_ON = 16  # Then they are taken up: one by one, each would copy the bytes behind it.
    NAME_MAX = 128
    MORE = 0  # Bytes taken: none, the rest of the request is to come.
    GONE = -1  # The connection was handed over.

    # Headers that may stand in a request once.
    HOST = 1
    AUTHORIZATION = 2
    IDEMPOTENCY_KEY = 4
    CONTENT_TYPE = 8
    CONTENT_LENGTH = 16
    REQUEST_ID = 32
    USER_AGENT = 64
    QUEUE_TICKET = 128
    X_FORWARDED_FOR = 256
    FORWARDED = 512
    COOKIE = 1024  # The only one that may stand there again.

cdef bytes RESERVE_START = b"POST /v1/sales/"
cdef bytes SALE_START = b"GET /v1/sales/"
cdef bytes RESERVATION_START = b"GET /v1/reservations/"
cdef bytes RESERVE_END = b"/reservations"
cdef bytes QUEUE_END = b"/queue"
cdef bytes CHALLENGE_END = b"/queue/challenge"
cdef Py_ssize_t SALES_LENGTH = len(b"/v1/sales/")
cdef Py_ssize_t RESERVATIONS_LENGTH = len(b"/v1/reservations/")
cdef bytes VERSION = b" HTTP/1.1\r\n"


cdef int kind_of(const char* data, Py_ssize_t length) noexcept:
    """What kind of call begins here; UNDECIDED while too few bytes say it.

    The calls on a sale's queue begin as others do: `_kind_of_path` knows when the path is read.
    """
    cdef Py_ssize_t i
    cdef const char* starts[3]
    cdef Py_ssize_t lengths[3]
    cdef bint open_ = False
    starts[0], lengths[0] = PyBytes_AS_STRING(RESERVE_START), PyBytes_GET_SIZE(RESERVE_START)
    starts[1], lengths[1] = PyBytes_AS_STRING(SALE_START), PyBytes_GET_SIZE(SALE_START)
    starts[2], lengths[2] = PyBytes_AS_STRING(RESERVATION_START), PyBytes_GET_SIZE(RESERVATION_START)
    for i in range(3):
        if length >= lengths[i]:
            if memcmp(data, starts[i], lengths[i]) == 0:
                return i + 1
        elif memcmp(data, starts[i], length) == 0:
            open_ = True
    return UNDECIDED if open_ else COLD


cdef bint has_bare_line_feed(const char* text, Py_ssize_t length) noexcept:
    """Whether a line ends without a carriage return: such a head may never end as we wait for it."""
    cdef const char* at = <const char*>memchr(text, 10, length)
    while at != NULL:
        if at == text or at[-1] != 13:
            return True
        at += 1
        at = <const char*>memchr(at, 10, length - (at - text))
    return False


cdef bint is_sale_id(const char* text, Py_ssize_t length) noexcept:
    """SALE_ID of engine/model.py."""
    cdef Py_ssize_t i
    if length < 1 or length > 48 or text[0] == 45 or text[length - 1] == 45:
        return False
    for i in range(length):
        if not (97 <= text[i] <= 122 or 48 <= text[i] <= 57 or text[i] == 45):
            return False
    return True


cdef bint is_plain_name(const char* text, Py_ssize_t length) noexcept:
    """Letters, digits and .-_ only: nothing that a router would decode or split."""
    cdef Py_ssize_t i
    if length < 1 or length > NAME_MAX:
        return False
    for i in range(length):
        if not (97 <= text[i] <= 122 or 65 <= text[i] <= 90 or 48 <= text[i] <= 57
                or text[i] == 45 or text[i] == 46 or text[i] == 95):
            return False
    return not (text[0] == 46 and (length == 1 or (length == 2 and text[1] == 46)))


cdef class Gate:
    """What the gate's connections share.

    `straight(request)`, for reservations and polls of a queue, and `doors.take(request)`, for all
    else, return the answer's bytes, or None: then `request.answer(bytes)` will be called.
    `doors.hand_over(transport, data)` finds a connection another protocol. `connections` counts them: `admit(connection)`, `leave(connection)`.
    """

    def __init__(self, object straight, object doors, object connections, object make_parser, *,
                 Py_ssize_t body_bytes_max, double request_seconds_max, double keepalive_seconds):
        self.straight = straight
        self.doors = doors
        self.connections = connections
        self._make_parser = make_parser
        self._body_max = body_bytes_max
        self._request_seconds_max = request_seconds_max
        self._keepalive_seconds = keepalive_seconds

    def __call__(self):
        """The protocol of a new connection, for `loop.create_server`."""
        cdef GateConnection connection = GateConnection.__new__(GateConnection)
        connection._gate = self
        return connection


cdef class Request:
    """One hot call. Its bytes are as they came; what a header lacks is None."""

    @property
    def address(self):
        """The peer's address."""
        return self.connection.address

    def answer(self, bytes written not None):
        """Sends the answer, or keeps it until those before it are sent. Once per request."""
        self.send(written)

    cdef int send(self, bytes written) except -1:
        self.written = written
        return self.connection._flush()

    def replied(self, bytes until_s, bytes reply):
        """The inventory's reply (see ReserveBatch)."""
        try:
            self.path.replied(self, until_s, reply)
        except BaseException:
            self.connection.abort()  # Whoever waits for an answer that will not come must be told.
            raise

    def failed(self, error):
        """The script call failed (see ReserveBatch)."""
        try:
            self.path.failed(self, error)
        except BaseException:
            self.connection.abort()
            raise

    def abort(self):
        """There will be no answer: ends the connection."""
        self.connection.abort()

    def is_last(self):
        """Whether it is the last that its connection takes. While the gate stops, True is a promise."""
        cdef GateConnection connection = self.connection
        if self.following is not None or connection._has_more():
            return False
        connection._farewell = connection._gate.stopping
        return True


cdef class GateConnection:
    """One connection, as long as it makes hot calls only."""

    # The transport's side.

    def connection_made(self, transport):
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else ""
        if not self._gate.connections.admit(self):
            transport.write(self._gate.connections.full_answer)
            transport.close()
            self._transport = None
            return
        self._parser = self._gate._make_parser(self)

    def data_received(self, bytes data not None):
        if self._transport is None or self._farewell:
            return
        if self._rest is not None:
            data = self._rest + data
            self._rest = None
        elif self._awaited is None and self._first is None:
            self._since = 0  # It was idle; a request begins.
        if self._cold or self._pending >= PIPELINE_MAX or self._paused_writing:
            self._keep(data)
            self._pause_reading()
        else:
            self._pump(data)

    def eof_received(self):
        self._ended = True
        # Who only stopped sending still reads: stay until the last answer is out.
        return self._first is not None

    def connection_lost(self, exc):
        if self._transport is None:
            return
        self._transport = self._parser = None
        self._rest = None
        self._awaited = None
        self._gate.connections.leave(self)

    def pause_writing(self):
        self._paused_writing = True
        self._since = 0
        self._pause_reading()

    def resume_writing(self):
        self._paused_writing = False
        self._since = 0
        self._settle()

    # The sweep's side.

    def is_late(self, double now):
        """Whether a request takes too long to arrive, an answer to be read, or nothing comes at all.

        Called every moment: a state is timed from the first call that finds it.
        """
        cdef bint idle = self._rest is None and self._awaited is None
        cdef double seconds_max = self._gate._request_seconds_max
        if self._first is not None and not self._paused_writing:
            self._since = 0  # The client waits for us.
            return False
        if self._since == 0:
            self._since = now
            return False
        if idle and self._answered_once and not self._paused_writing:
            seconds_max = self._gate._keepalive_seconds
        return now - self._since > seconds_max

    def is_idle(self):
        """Whether it could be closed without anyone missing an answer."""
        return self._first is None

    def abort(self):
        if self._transport is not None:
            self._transport.abort()

    def close(self):
        """Closes after what is written already."""
        if self._transport is not None:
            self._transport.close()

    # The parser's side.

    def on_url(self, bytes url):
        self._url = url

    def on_header(self, bytes name not None, bytes value not None):
        cdef const char* n = PyBytes_AS_STRING(name)
        cdef Py_ssize_t length = PyBytes_GET_SIZE(name)
        cdef Py_ssize_t value_length = PyBytes_GET_SIZE(value)
        cdef const char* v = PyBytes_AS_STRING(value)
        self._headers += 1
        if value_length and (v[value_length - 1] == 32 or v[value_length - 1] == 9):
            self._odd = True
        if length == 4:
            if strncasecmp(n, b"host", 4) == 0:
                self._see(HOST)
            elif strncasecmp(n, b"etag", 4) == 0:
                self._odd = True
        elif length == 6:
            if strncasecmp(n, b"cookie", 6) == 0:
                self._seen |= COOKIE
            elif strncasecmp(n, b"expect", 6) == 0 or strncasecmp(n, b"server", 6) == 0:
                self._odd = True
        elif length == 7:
            if strncasecmp(n, b"upgrade", 7) == 0:
                self._odd = True
        elif length == 9:
            if strncasecmp(n, b"forwarded", 9) == 0:
                self._see(FORWARDED)
                self._forwarded = value
        elif length == 10:
            if strncasecmp(n, b"connection", 10) == 0:
                if value_length != 10 or strncasecmp(v, b"keep-alive", 10) != 0:
                    self._odd = True
            elif strncasecmp(n, b"user-agent", 10) == 0:
                self._see(USER_AGENT)
                self._user_agent = value
        elif length == 12:
            if strncasecmp(n, b"content-type", 12) == 0:
                self._see(CONTENT_TYPE)
                self._content_type = value
            elif strncasecmp(n, b"x-request-id", 12) == 0:
                self._see(REQUEST_ID)
                self._request_id = value
            elif strncasecmp(n, b"queue-ticket", 12) == 0:
                self._see(QUEUE_TICKET)
                self._queue_ticket = value
            elif strncasecmp(n, b"max-forwards", 12) == 0:
                self._odd = True
        elif length == 13:
            if strncasecmp(n, b"authorization", 13) == 0:
                self._see(AUTHORIZATION)
                self._authorization = value
            elif strncasecmp(n, b"content-range", 13) == 0:
                self._odd = True
        elif length == 14:
            if strncasecmp(n, b"content-length", 14) == 0:
                self._see(CONTENT_LENGTH)
                self._length = number(v, value_length)
                if self._length < 0:
                    self._odd = True
        elif length == 15:
            if strncasecmp(n, b"idempotency-key", 15) == 0:
                self._see(IDEMPOTENCY_KEY)
                self._idempotency_key = value
            elif strncasecmp(n, b"x-forwarded-for", 15) == 0:
                self._see(X_FORWARDED_FOR)
                self._x_forwarded_for = value
        elif length == 16:
            if (strncasecmp(n, b"content-location", 16) == 0
                    or strncasecmp(n, b"content-encoding", 16) == 0):
                self._odd = True
        elif length == 17:
            if strncasecmp(n, b"transfer-encoding", 17) == 0:
                self._odd = True
        elif length == 18:
            if strncasecmp(n, b"sec-websocket-key1", 18) == 0:
                self._odd = True

    def on_headers_complete(self):
        self._head_read = True

    def on_message_complete(self):
        self._complete = True

    cdef int _see(self, unsigned int which) except -1:
        if self._seen & which:
            self._odd = True
        self._seen |= which
        return 0

    # Framing.

    cdef int _pump(self, bytes data) except -1:
        """Serves the requests in `data`, in turn; keeps what is not a whole one."""
        cdef Py_ssize_t at = 0, taken
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        self._in_pump = True
        try:
            while at < size and self._transport is not None and not self._farewell:
                if self._pending >= PIPELINE_MAX or self._paused_writing:
                    self._pause_reading()
                    break
                taken = self._take(data, at)
                if taken == GONE:
                    return 0
                if taken == MORE:
                    break
                at += taken
        finally:
            self._in_pump = False
        if at < size:
            self._keep(data if at == 0 else data[at:])
        self._settle()
        return 0

    cdef int _keep(self, bytes data) except -1:
        self._rest = data
        return 0

    cdef Py_ssize_t _take(self, bytes data, Py_ssize_t at) except -2:
        """Serves the request that begins (or whose body goes on) at `at`; how many bytes it had."""
        cdef const char* start = PyBytes_AS_STRING(data) + at
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data) - at
        cdef Py_ssize_t head = 0
        cdef const char* end
        cdef Request request = self._awaited
        cdef int kind
        if request is None:
            kind = kind_of(start, size)
            end = <const char*>memmem(start, size, b"\r\n\r\n", 4)
            if kind == COLD or (end == NULL and size > HEAD_MAX) or end - start > HEAD_MAX:
                return self._turn_cold(data[at:])
            if end == NULL and has_bare_line_feed(start, size):
                return self._turn_cold(data[at:])
            if end == NULL:
                return MORE
            head = end + 4 - start
            if head == size and at == 0:
                request = self._read_head(data, kind)
            else:
                request = self._read_head(PyBytes_FromStringAndSize(start, head), kind)
            if request is None:
                return self._turn_cold(data[at:])
        if size - head < request.length:
            # The head is read; its bytes are not needed again.
            self._awaited = request
            if head:
                self._since = 0
            return head
        self._awaited = None
        if request.length:
            request.body = PyBytes_FromStringAndSize(start + head, request.length)
            if not self._read_body(request.body):
                # The parser saw another end than we did. Nobody may go on with such bytes.
                self.abort()
                return GONE
        self._since = 0
        self._serve(request)
        return head + request.length

    cdef Request _read_head(self, bytes head, int kind):
        """The request of a complete head; None if it is not a hot call in its plainest form."""
        cdef Request request
        cdef str name
        self._url = self._authorization = self._idempotency_key = None
        self._content_type = self._request_id = self._queue_ticket = None
        self._x_forwarded_for = self._forwarded = self._user_agent = None
        self._length = 0
        self._seen = 0
        self._headers = 0
        self._odd = self._head_read = self._complete = False
        try:
            self._parser.feed_data(head)
        except Exception:
            return None  # aiohttp says in its own words what is wrong with it.
        if self._odd or not self._head_read or self._url is None or not self._seen & HOST:
            return None
        if self._headers > HEADERS_MAX or self._length > self._gate._body_max:
            return None
        if (self._length == 0) != self._complete or (self._length and kind != RESERVE):
            return None
        cdef Py_ssize_t url_end = (5 if kind == RESERVE else 4) + PyBytes_GET_SIZE(self._url)
        cdef Py_ssize_t version = PyBytes_GET_SIZE(VERSION)
        if (PyBytes_GET_SIZE(head) < url_end + version
                or memcmp(PyBytes_AS_STRING(head) + url_end, PyBytes_AS_STRING(VERSION), version)):
            return None
        kind = self._kind_of_path(kind)
        name = self._name_of(kind)
        if name is None:
            return None
        if kind != SHOW_SALE and self._seen & (AUTHORIZATION | COOKIE) == COOKIE:
            return None  # A browser: its session is read elsewhere.
        request = Request.__new__(Request)
        request.kind = kind
        request.name = name
        request.authorization = self._authorization
        request.idempotency_key = self._idempotency_key
        request.content_type = self._content_type
        request.request_id = self._request_id
        request.queue_ticket = self._queue_ticket
        request.x_forwarded_for = self._x_forwarded_for
        request.forwarded = self._forwarded
        request.user_agent = self._user_agent
        request.length = self._length
        request.body = b""
        request.connection = self
        return request

    cdef bint _read_body(self, bytes body) except -1:
        """Whether the parser ends the request where its Content-Length does."""
        try:
            self._parser.feed_data(body)
        except Exception:
            return False
        return self._complete

    cdef int _kind_of_path(self, int kind) noexcept:
        """What the whole path asks for, where its beginning leaves several."""
        if kind == RESERVE:
            return ENTER_QUEUE if self._ends_with(QUEUE_END) else RESERVE
        if kind != SHOW_SALE:
            return kind
        if self._ends_with(QUEUE_END):
            return SHOW_QUEUE
        return SHOW_CHALLENGE if self._ends_with(CHALLENGE_END) else SHOW_SALE

    cdef bint _ends_with(self, bytes end) noexcept:
        """Whether the path names something of a sale. A sale itself may be called `queue`."""
        cdef Py_ssize_t length = PyBytes_GET_SIZE(end)
        cdef Py_ssize_t rest = PyBytes_GET_SIZE(self._url) - length
        return rest > SALES_LENGTH and memcmp(
            PyBytes_AS_STRING(self._url) + rest, PyBytes_AS_STRING(end), length
        ) == 0

    cdef str _name_of(self, int kind):
        """The sale or reservation that the path names; None if the path is another."""
        cdef const char* url = PyBytes_AS_STRING(self._url)
        cdef Py_ssize_t length = PyBytes_GET_SIZE(self._url)
        cdef Py_ssize_t tail = 0
        if kind == SHOW_RESERVATION:
            url += RESERVATIONS_LENGTH
            length -= RESERVATIONS_LENGTH
            return PyUnicode_DecodeASCII(url, length, NULL) if is_plain_name(url, length) else None
        if kind == RESERVE:
            tail = PyBytes_GET_SIZE(RESERVE_END)
            if length < tail or memcmp(url + length - tail, PyBytes_AS_STRING(RESERVE_END), tail):
                return None
        elif kind == SHOW_QUEUE or kind == ENTER_QUEUE:
            tail = PyBytes_GET_SIZE(QUEUE_END)
        elif kind == SHOW_CHALLENGE:
            tail = PyBytes_GET_SIZE(CHALLENGE_END)
        url += SALES_LENGTH
        length -= SALES_LENGTH + tail
        return PyUnicode_DecodeASCII(url, length, NULL) if is_sale_id(url, length) else None

    # Answers, in the order of their requests.

    cdef int _serve(self, Request request) except -1:
        if self._last is None:
            self._first = request
        else:
            self._last.following = request
        self._last = request
        self._pending += 1
        if request.kind == RESERVE or request.kind == SHOW_QUEUE:
            request.written = self._gate.straight(request)
        else:
            request.written = self._gate.doors.take(request)
        if request.written is not None and self._first is request:
            self._flush()
        return 0

    cdef int _flush(self) except -1:
        """Sends every answer whose turn has come."""
        cdef Request request = self._first
        while request is not None and request.written is not None:
            if self._transport is not None:
                self._transport.write(request.written)
            self._first = request.following
            request.following = None
            self._pending -= 1
            self._answered_once = True
            request = self._first
        if request is None:
            self._last = None
        if not self._in_pump:
            self._settle()
        return 0

    cdef int _settle(self) except -1:
        """Takes up what had to wait until answers were out."""
        cdef bytes data = self._rest
        if self._transport is None or self._paused_writing or self._pending > PIPELINE_GO_ON:
            return 0
        if self._first is None and self._is_over():
            self._rest = None
            self._transport.close()
        elif self._cold:
            if self._first is None:
                self._rest = None
                self._hand_over(data)
        elif self._paused_reading:
            self._resume_reading()
            if data is not None:
                self._rest = None
                self._pump(data)
        return 0

    cdef bint _is_over(self) noexcept:
        """Whether nothing more will be taken, once all is answered that was."""
        if not self._answered_once:
            return False
        if self._gate.stopping:
            return self._farewell or not self._has_more()
        return self._ended and not self._cold and not self._has_more()

    cdef bint _has_more(self) noexcept:
        """Whether bytes wait that this side may serve. Half a request does not count."""
        return self._rest is not None and self._paused_reading and not self._cold

    cdef int _turn_cold(self, bytes data) except -2:
        """Hands over as soon as the requests before are answered. Returns GONE."""
        if self._first is None:
            self._hand_over(data)
        else:
            self._cold = True
            self._rest = data
            self._pause_reading()
        return GONE

    cdef int _hand_over(self, bytes data) except -1:
        cdef object transport = self._transport
        self._resume_reading()
        self._transport = self._parser = None
        self._gate.connections.leave(self)
        self._gate.doors.hand_over(transport, data)
        return 0

    cdef int _pause_reading(self) except -1:
        if not self._paused_reading:
            self._paused_reading = True
            self._transport.pause_reading()
        return 0

    cdef int _resume_reading(self) except -1:
        if self._paused_reading:
            self._paused_reading = False
            self._transport.resume_reading()
        return 0


cdef Py_ssize_t number(const char* text, Py_ssize_t length) noexcept:
    """A length in digits; -1 if it is none, or absurd."""
    cdef Py_ssize_t value = 0, i
    if length < 1 or length > 12:
        return -1
    for i in range(length):
        if text[i] < 48 or text[i] > 57:
            return -1
        value = 10 * value + text[i] - 48
    return value
