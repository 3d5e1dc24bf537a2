"""The straight path: reserve calls about which nothing has to be asked join their batch at once,
and a poll of a queue is answered from its room in memory.

It knows only yes. A call with a token, a body or a sale that it does not know, a caller over his
rate, too much in work: all that is decided by the one decision function, from the start. So the
path can never decide otherwise than that function; it can only be quicker.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdio cimport snprintf
from libc.string cimport memcpy
from libc.time cimport time, time_t

from ext.gate cimport Gate, GateConnection, Request
from ext.ids cimport make_reservation_id
from ext.limit cimport Limit
from ext.meter cimport Meter
from ext.room cimport Room
from ext.throttle cimport Throttle

cdef enum:
    KEY_MAX = 128  # IDEMPOTENCY_KEY_MAX of engine/model.py.
    LENGTH_MAX = 24

    TICKET_MISSING = -1  # Of engine/inventory/queue.py.

    SHOW_QUEUE = 4  # Kind of ext/gate.pyx.
    RESERVE = 1  # Priority of engine/admission/limit.py.

    # What a request has paid for; the decision function asks for the rest.
    USER_PAID = 1
    ADDRESS_PAID = 2
    PACE_PAID = 4

    # What is known of a connection's peer.
    UNKNOWN = 0
    THROTTLED = 1
    UNTHROTTLED = 2

cdef bytes JSON = b"application/json"
cdef bytes RESERVED = b"RESERVED"
cdef bytes BEARER = b"Bearer "
cdef object ASIDE = object()  # Not straight: the decision function takes it from the start.
cdef object SLOWED = object()  # The pace is exceeded.
cdef unsigned long long MIX = 0x9E3779B97F4A7C15  # Fibonacci hashing (Knuth, TAOCP 3, 6.4).


cdef bint is_fit_key(bytes key) noexcept:
    """1 to 128 printable ASCII characters."""
    cdef Py_ssize_t length = PyBytes_GET_SIZE(key), i
    cdef const char* text = PyBytes_AS_STRING(key)
    if length < 1 or length > KEY_MAX:
        return False
    for i in range(length):
        if text[i] < 32 or text[i] > 126:
            return False
    return True


cdef class Wish:
    """A body that was found good: its items as the engine and as JSON writes them."""

    cdef readonly str items_text
    cdef readonly bytes items_json

    def __init__(self, str items_text not None, bytes items_json not None):
        self.items_text = items_text
        self.items_json = items_json


cdef class SaleDoor:
    """A sale that was found selling, the queue of its batches, and whether it has a waiting room."""

    cdef readonly object sale
    cdef readonly object join
    cdef readonly bytes name
    cdef readonly bint has_room
    cdef bint used

    def __init__(self, object sale not None, object join not None, bint has_room=False):
        self.sale = sale
        self.join = join
        self.name = sale.sale_id.encode()
        self.has_room = has_room


cdef class StraightPath:
    """Takes the reserve calls of one process, and those that look at their place in a queue.

    `user_until(token) -> (user_id, expires_s) | None` verifies a token; `addresses` finds out
    whose request it is, `access` knows whom the operator lets in or not; `memory` refuses without
    Redis (see StockMemory); `peek_room(sale) -> Room | None` does no I/O. Who sends no ticket where
    there is a room may find his earlier answer, as fast as `replays` lets; beyond it the outcome is
    `ticket_required`. `others` answers whatever is not straight:

    `decide(request) -> bytes | None`, `look_up(request) -> bytes | None` for a queue,
    `refuse(request, sale, outcome) -> bytes`, `shed(request) -> bytes | None`,
    `slow_down(request, seconds) -> bytes | None`, `shown(request, body) -> bytes`,
    `refusal_form(sale, outcome) -> (head, body) | None` (None: it differs from time to time),
    `count_refused(outcome, count)`,
    `conclude(request, until_s, reply) -> bytes`, `fail(request, error) -> bytes`,
    `until_text(until_s) -> bytes`, `date() -> bytes` (an HTTP date).
    """

    cdef object _others
    cdef object _user_until
    cdef Throttle _user_throttle
    cdef Throttle _address_throttle
    cdef object _addresses
    cdef object _access
    cdef Limit _limit
    cdef Meter _meter
    cdef Meter _replays
    cdef object _peek_room
    cdef object _ticket_required
    cdef double _wait_s
    cdef object _refusal
    cdef object _watched
    cdef object _now_ms
    cdef bytes _head
    cdef bytes _shown_head
    cdef bytes _id_prefix
    cdef Gate _gate
    cdef dict _wishes
    cdef dict _sales
    cdef list _users
    cdef Py_ssize_t _users_max
    cdef Py_ssize_t _known_max
    cdef unsigned long long _count
    cdef readonly long accepted
    cdef readonly long polled
    cdef long _refusals
    cdef object _outcome
    cdef tuple _form
    cdef bytes _until_s
    cdef bytes _until
    cdef time_t _second
    cdef bytes _date

    def __init__(self, object others, *, object user_until, Throttle user_throttle not None,
                 Throttle address_throttle not None, object addresses, object access,
                 Limit limit not None, Meter meter not None, Meter replays not None,
                 object memory, object peek_room, object ticket_required, object now_ms, bytes head, bytes shown_head,
                 bytes id_prefix, int known_max, int users_max):
        self._others = others
        self._user_until = user_until
        self._user_throttle = user_throttle
        self._address_throttle = address_throttle
        self._addresses = addresses
        self._access = access
        self._limit = limit
        self._meter = meter
        self._replays = replays
        self._peek_room = peek_room
        self._ticket_required = ticket_required
        self._refusal = memory.refusal
        self._watched = memory.watched
        self._now_ms = now_ms
        self._head = head
        self._shown_head = shown_head
        self._id_prefix = id_prefix
        self._wishes = {}
        self._sales = {}
        self._known_max = known_max
        self._users = [None] * users_max
        self._users_max = users_max

    def learn_wish(self, bytes body not None, Wish wish not None):
        """A body that means `wish`, whoever sends it."""
        if len(self._wishes) >= self._known_max:
            self._wishes.clear()
        self._wishes[body] = wish

    def knows(self, bytes body not None, str sale_id not None):
        """Whether the body and the sale are known."""
        return body in self._wishes and sale_id in self._sales

    def learn_sale(self, SaleDoor door not None):
        """A sale as it is now. It is known until it is forgotten or goes out of use."""
        if len(self._sales) >= self._known_max:
            self._sales.clear()
        door.used = True
        self._sales[door.sale.sale_id] = door

    def forget_sale(self, str sale_id not None):
        """The sale has to be looked up again."""
        self._sales.pop(sale_id, None)

    def used_sales(self):
        """The sales that were asked for since the last call; all others are forgotten."""
        cdef SaleDoor door
        cdef list names = []
        for name, door in self._sales.items():
            if door.used:
                door.used = False
                names.append(name)
        self._sales = {name: self._sales[name] for name in names}
        return names

    def forget_users(self):
        """Tokens became void: each is verified again when it is shown next."""
        self._users = [None] * self._users_max

    def take_accepted(self):
        """How many were accepted here since it was asked last."""
        cdef long accepted = self.accepted
        self.accepted = 0
        return accepted

    def take_polled(self):
        """How many looked at their place in a queue since it was asked last."""
        cdef long polled = self.polled
        self.polled = 0
        return polled

    def take_refused(self):
        """What was refused from memory since it was asked last: the outcome, and how often."""
        cdef tuple refused = (self._outcome, self._refusals)
        self._refusals = 0
        return refused

    def take(self, Request request not None):
        """The answer, or None: it will come."""
        if request.kind == SHOW_QUEUE:
            return self._take_poll(request)
        cdef Wish wish = <Wish>self._wishes.get(request.body)
        cdef SaleDoor door = <SaleDoor>self._sales.get(request.name)
        if (wish is None or door is None or request.authorization is None
                or request.content_type != JSON or request.idempotency_key is None
                or not is_fit_key(request.idempotency_key)):
            return self._others.decide(request)
        door.used = True
        request.entered = self._limit.try_enter(RESERVE)
        if not request.entered:
            return self._others.shed(request)
        cdef object outcome
        try:
            outcome = self._join(request, wish, door)
        except Exception:
            outcome = ASIDE  # Whatever it is, the decision function will meet it and say so.
        if outcome is None:
            return None
        self._limit.leave(RESERVE, request.entered, False)
        if outcome is ASIDE:
            return self._others.decide(request)
        if outcome is SLOWED:
            return self._others.slow_down(request, self._wait_s)
        return self._refused(request, door, outcome)

    cdef object _join(self, Request request, Wish wish, SaleDoor door):
        """None if it joined its batch; else why it is refused, SLOWED, or ASIDE."""
        cdef str user_id = self._admitted_user(request)
        cdef Room room
        cdef long ticket = 0
        if user_id is None:
            return ASIDE
        if request.name in self._watched:
            outcome = self._refusal(door.sale, user_id, wish.items_text, self._now_ms())
            if outcome is not None:
                return outcome
        if door.has_room:
            room = self._peek_room(door.sale)
            if room is None or not room.known or not room.on:
                return ASIDE
            if request.queue_ticket is not None:
                ticket = room.check(request.queue_ticket, user_id, <double>self._now_ms() / 1000)
                if ticket == 0:
                    return ASIDE
            elif self._replays.admit():
                return self._ticket_required
            else:
                ticket = TICKET_MISSING
        if ticket >= 0:  # Below: an earlier answer may be repeated, nothing more.
            self._wait_s = self._meter.admit()
            if self._wait_s:
                return SLOWED
            request.paid |= PACE_PAID
        request.path = self
        request.sale = door
        request.wish = wish
        request.user_id = user_id
        request.reservation_id = make_reservation_id(
            request.name, user_id, request.idempotency_key.decode("ascii")
        )
        if ticket:
            door.join(request, user_id, request.reservation_id, wish.items_text, ticket)
        else:
            door.join(request, user_id, request.reservation_id, wish.items_text)
        return None

    cdef object _take_poll(self, Request request):
        """What a visitor in the queue is shown. It costs less than a refusal: nothing is shed."""
        cdef bytes body
        try:
            body = self._poll(request)
        except Exception:
            body = None  # As above.
        if body is None:
            return self._others.look_up(request)
        if request.request_id is not None or self._is_stopping(request):
            return self._others.shown(request, body)
        self.polled += 1
        return self.written(self._shown_head, "", body)

    cdef bytes _poll(self, Request request):
        """None: the decision function has to say why."""
        cdef SaleDoor door = <SaleDoor>self._sales.get(request.name)
        cdef str user_id
        cdef Room room
        if (door is None or not door.has_room or request.authorization is None
                or request.queue_ticket is None):
            return None
        user_id = self._admitted_user(request)
        if user_id is None:
            return None
        room = self._peek_room(door.sale)
        if room is None:
            return None
        door.used = True
        return room.poll(request.queue_ticket, user_id, <double>self._now_ms() / 1000)

    cdef str _admitted_user(self, Request request):
        """Who calls, if neither the operator's rules nor a rate is against it; else None."""
        cdef str user_id = self._user_of(request.authorization)
        cdef str client
        cdef bint throttled
        if user_id is None:
            return None
        client = self._client_of(request, &throttled)
        if not self._access.is_empty:
            verdict = self._access.verdict(user_id, client, request.name)
            if verdict is not None:
                return None
        if self._user_throttle.admit(user_id):
            return None
        request.paid = USER_PAID
        if throttled:
            if self._address_throttle.admit(client):
                return None
            request.paid |= ADDRESS_PAID
        return user_id

    cdef str _client_of(self, Request request, bint* throttled):
        """The address that the request comes from, and whether that is somebody's in particular."""
        cdef GateConnection connection = request.connection
        if request.x_forwarded_for is not None or request.forwarded is not None:
            client = self._addresses.client(
                connection.address, text_of(request.forwarded), text_of(request.x_forwarded_for)
            )
            throttled[0] = not self._addresses.is_unthrottled(client)
            return <str>client
        if connection.standing == UNKNOWN:
            connection.client = self._addresses.client(connection.address, None, None)
            connection.standing = (
                UNTHROTTLED if self._addresses.is_unthrottled(connection.client) else THROTTLED
            )
        throttled[0] = connection.standing == THROTTLED
        return connection.client

    def replied(self, Request request not None, bytes until_s not None, bytes reply not None):
        self._limit.leave(RESERVE, request.entered, True)
        if reply == RESERVED and request.request_id is None and not self._is_stopping(request):
            self.accepted += 1
            request.send(self._accepted(request, until_s))
        else:
            request.send(self._others.conclude(request, until_s, reply))

    def failed(self, Request request not None, error):
        # A failure may come at once; what it took says nothing of what work takes.
        self._limit.leave(RESERVE, request.entered, False)
        request.send(self._others.fail(request, error))

    cdef str _user_of(self, bytes authorization):
        """Whose token it is; None where that takes more to find out, and once it has expired.

        A verified token is kept in the one place that its signature names, until another takes it:
        most buyers come back, and those who do not cost next to nothing.
        """
        cdef Py_ssize_t place
        cdef tuple known
        if not authorization.startswith(BEARER):
            return None
        place = self._place_of(authorization)
        known = <tuple>self._users[place]
        if known is None or <bytes>known[0] != authorization:
            user = self._user_until(authorization[7:])
            if user is None:
                return None
            known = (authorization, user[0], user[1])
            self._users[place] = known
        return <str>known[1] if <double>time(NULL) < <object>known[2] else None

    cdef Py_ssize_t _place_of(self, bytes authorization) noexcept:
        cdef unsigned long long mark = 0
        cdef Py_ssize_t length = PyBytes_GET_SIZE(authorization)
        if length >= 8:  # The end of a token is the end of its signature: as good as random.
            memcpy(&mark, PyBytes_AS_STRING(authorization) + length - 8, 8)
        return (mark * MIX >> 32) % self._users_max

    cdef bytes _accepted(self, Request request, bytes until_s):
        """201 with the reservation. What api/written.py writes of the same answer, byte by byte."""
        cdef bytes sale = (<SaleDoor>request.sale).name
        cdef bytes items = (<Wish>request.wish).items_json
        cdef Py_ssize_t id_length
        cdef const char* reservation_id = PyUnicode_AsUTF8AndSize(request.reservation_id, &id_length)
        cdef char count[LENGTH_MAX]
        cdef char length[LENGTH_MAX]
        cdef int count_length, length_length
        cdef Py_ssize_t body
        cdef bytes whole
        if until_s != self._until_s:
            self._until_s = until_s
            self._until = self._others.until_text(until_s)
        count_length = self._name(count)
        body = (2 * PyBytes_GET_SIZE(sale) + id_length + PyBytes_GET_SIZE(items)
                + PyBytes_GET_SIZE(self._until) + 84)  # 84: the constant text
        length_length = snprintf(length, LENGTH_MAX, b"%zd", body)
        whole = PyBytes_FromStringAndSize(NULL, (
            PyBytes_GET_SIZE(self._head) + 27 + PyBytes_GET_SIZE(sale) + 1 + id_length
            + 16 + PyBytes_GET_SIZE(self._id_prefix) + count_length + 18 + length_length
            + 8 + PyBytes_GET_SIZE(self._date) + 4 + body
        ))
        cdef char* at = PyBytes_AS_STRING(whole)
        at = put_bytes(at, self._head)
        at = put(at, b"Location: /v1/reservations/", 27)
        at = put_bytes(at, sale)
        at = put(at, b".", 1)
        at = put(at, reservation_id, id_length)
        at = put(at, b"\r\nX-Request-Id: ", 16)
        at = put_bytes(at, self._id_prefix)
        at = put(at, count, count_length)
        at = put(at, b"\r\nContent-Length: ", 18)
        at = put(at, length, length_length)
        at = put(at, b"\r\nDate: ", 8)
        at = put_bytes(at, self._date)
        at = put(at, b"\r\n\r\n", 4)
        at = put(at, b'{"reservation_id":"', 19)
        at = put_bytes(at, sale)
        at = put(at, b".", 1)
        at = put(at, reservation_id, id_length)
        at = put(at, b'","sale_id":"', 13)
        at = put_bytes(at, sale)
        at = put(at, b'","items":', 10)
        at = put_bytes(at, items)
        at = put(at, b',"status":"reserved","reserved_until":"', 39)
        at = put_bytes(at, self._until)
        at = put(at, b'"}', 2)
        assert at == PyBytes_AS_STRING(whole) + PyBytes_GET_SIZE(whole)
        return whole

    cdef bytes _refused(self, Request request, SaleDoor door, object outcome):
        """A refusal from memory. Most of a crowd are refused alike, so the last form is kept."""
        if outcome is not self._outcome:
            self._others.count_refused(*self.take_refused())
            self._outcome = outcome
            self._form = self._others.refusal_form(door.sale, outcome)
        if self._form is None or request.request_id is not None or self._is_stopping(request):
            return self._others.refuse(request, door.sale, outcome)
        self._refusals += 1
        return self.written(<bytes>self._form[0], "", <bytes>self._form[1])

    cdef bint _is_stopping(self, Request request) noexcept:
        return request.connection._gate.stopping

    cpdef bytes written(self, bytes head, str location, bytes body):
        """An answer that stays on its connection, of a request without a name of its own.

        What api/written.py writes of the same answer, byte by byte.
        """
        cdef char count[LENGTH_MAX]
        cdef char length[LENGTH_MAX]
        cdef int count_length = self._name(count)
        cdef int length_length = snprintf(length, LENGTH_MAX, b"%zd", PyBytes_GET_SIZE(body))
        cdef Py_ssize_t location_length
        cdef const char* at_location = PyUnicode_AsUTF8AndSize(location, &location_length)
        cdef bytes whole = PyBytes_FromStringAndSize(NULL, (
            PyBytes_GET_SIZE(head) + (location_length + 12 if location_length else 0)
            + 14 + PyBytes_GET_SIZE(self._id_prefix) + count_length + 18 + length_length
            + 8 + PyBytes_GET_SIZE(self._date) + 4 + PyBytes_GET_SIZE(body)
        ))
        cdef char* at = put_bytes(PyBytes_AS_STRING(whole), head)
        if location_length:
            at = put(at, b"Location: ", 10)
            at = put(at, at_location, location_length)
            at = put(at, b"\r\n", 2)
        at = put(at, b"X-Request-Id: ", 14)
        at = put_bytes(at, self._id_prefix)
        at = put(at, count, count_length)
        at = put(at, b"\r\nContent-Length: ", 18)
        at = put(at, length, length_length)
        at = put(at, b"\r\nDate: ", 8)
        at = put_bytes(at, self._date)
        at = put(at, b"\r\n\r\n", 4)
        at = put_bytes(at, body)
        assert at == PyBytes_AS_STRING(whole) + PyBytes_GET_SIZE(whole)
        return whole

    cdef int _name(self, char* count) except -1:
        """The number of the next answer, in hexadecimal digits, and the date brought up to date."""
        cdef time_t now = time(NULL)
        if now != self._second:
            self._date = self._others.date()
            self._second = now
        self._count += 1
        return snprintf(count, LENGTH_MAX, b"%llx", self._count)


cdef inline str text_of(bytes header):
    return None if header is None else header.decode("latin-1")


cdef inline char* put(char* at, const char* text, Py_ssize_t length) noexcept:
    memcpy(at, text, length)
    return at + length


cdef inline char* put_bytes(char* at, bytes text) noexcept:
    memcpy(at, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    return at + PyBytes_GET_SIZE(text)
