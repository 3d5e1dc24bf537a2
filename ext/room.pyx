"""One sale's waiting room in one front's memory: who is served, and what those who wait are told.

Does no I/O and reads no clock: looks at Redis, the draw and the forecast are handed in, and so is time.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.math cimport INFINITY, erfc, exp, fabs, sqrt
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove, memset

from ext.curve cimport learn_curve, wait_of
from ext.text cimport put, put_bytes, put_fraction, put_number, put_seconds, put_time
from ext.tickets cimport NUMBER_MAX, TICKET_MAX, Claims, TicketKey


cdef extern from *:
    int __builtin_popcountll(unsigned long long word) nogil


cdef enum:
    PREQUEUE = 0
    WAITING = 1
    ADMITTED = 2
    GONE = 3
    OPEN = 4

    TICKET_SECONDS = 300  # A reconnect within 5 minutes keeps the place.
    RENEW_SECONDS = 60  # A waiting ticket is signed anew when it is older.
    BLOCK_BYTES = 64  # Presence is summed beforehand per 512 places: a count reads one cache line.
    CAPACITY_MIN = 1024
    SERVED_MAX = 4096  # Looks that moved on; ten a second: the last seven minutes at least.
    ERRORS_MAX = 4096  # Taken every second; beyond it a sample is as good.
    BODY_MAX = 1024  # Everything but the ticket.

cdef double POLL_SECONDS_MIN = 0.5
cdef double POLL_SECONDS_MAX = 15
cdef double POLLS_AHEAD = 5  # A fifth of the wait: its last poll comes soon after its turn.
cdef double POLL_SPREAD = 0.2  # So that crowds do not poll in step.
cdef double OPENING_SECONDS = 5  # In which a crowd of any size hears how it stands after the opening.
cdef double WAIT_SECONDS_MIN = 10  # Tickets keep whole seconds: of shorter waits those would be errors.
cdef double WAIT_SECONDS_MAX = 1e7  # Four months: no wait that anybody is told of.
cdef double OUTLOOK_MAX = 1e9  # Of anything that is foreseen: sums and squares of it stay numbers.
cdef double EIGHT_OF_TEN = 1.2816  # Standard deviations on each side that hold 80 % (normal distribution).
cdef double MODEL_VARIATION = 0.05  # What no observed variation shows.
cdef uint64_t MIX = 0x9E3779B97F4A7C15  # Fibonacci hashing (Knuth, TAOCP 3, 6.4).

cdef (const char*)[5] STATE_WORDS
STATE_WORDS[PREQUEUE] = b"prequeue"
STATE_WORDS[WAITING] = b"waiting"
STATE_WORDS[ADMITTED] = b"admitted"
STATE_WORDS[GONE] = b"gone"
STATE_WORDS[OPEN] = b"open"


cdef class Room:
    """A room as the last look showed it. While it is not `known` it must not be asked: follow it first.

    `forecast.learn(look)` returns what engine/admission/room/forecast.py calls an Outlook.
    """

    def __init__(self, str sale_id not None, TicketKey ticket_key not None, object forecast not None):
        self.sale_id = sale_id
        self._sale = sale_id.encode()
        self._key = ticket_key
        self._forecast = forecast
        self._admission_seconds = 120
        self._absent_seconds = 45
        self._closes_s = INFINITY
        self.drawn = -1
        self._present = b""
        self._eta_errors = []

    def __cinit__(self):
        self._served_places = <long*>malloc(SERVED_MAX * sizeof(long))
        self._served_at = <double*>malloc(SERVED_MAX * sizeof(double))
        if self._served_places == NULL or self._served_at == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self._served_places)
        free(self._served_at)
        free(self._before)
        free(self._marks)
        free(self._polled)

    cpdef long check(self, bytes token, str user_id, double now_s) except -2:
        """Above 0: the number of an admitted ticket. -1: this user's, but not admitted. 0: none of his."""
        cdef Claims claims
        self.asked = True
        if token is None or not self._is_theirs(token, user_id, &claims):
            return 0
        if claims.expires_s <= now_s:
            return -1
        if claims.admitted or self._is_served(self._place_of(claims.number)):
            return claims.number
        return -1

    cpdef bytes poll(self, bytes token, str user_id, double now_s):
        """What to tell the ticket's holder, as JSON; he counts as present. None: see `why`."""
        cdef Claims claims
        cdef View view
        self.asked = True
        if token is None or not self.known or not self._is_theirs(token, user_id, &claims):
            return None
        if claims.expires_s <= now_s:
            return None
        if claims.admitted:
            self._heal(claims.number)
        self._look_up(claims.number, now_s, &view)
        self._note_poll(&view)
        token = self._fresh(token, &claims, &view, now_s)
        return self._written(token, &claims, &view, now_s)

    cpdef str why(self, bytes token, str user_id, double now_s):
        """Why a poll said None: 'required', 'forged', 'foreign', 'expired' or 'unknown' (no look yet)."""
        cdef Claims claims
        if token is None:
            return "required"
        if not self._key.open(token, &claims) or not self._key.is_genuine(token):
            return "forged"
        if not self._names(user_id, &claims):
            return "foreign"
        return "expired" if claims.expires_s <= now_s else "unknown"

    def issue(self, str user_id not None, long number, double now_s, double until_s=INFINITY):
        """A ticket for a number that Redis gave this user, and what to tell him: (ticket, JSON).

        `until_s`: when his admission ends, if he has one. It is not prolonged.
        """
        cdef Claims claims
        cdef View view
        cdef Py_ssize_t length
        if not self.known:
            raise ValueError("a room without a look gives no tickets")
        claims.number = number
        claims.sale = PyBytes_AS_STRING(self._sale)
        claims.sale_length = PyBytes_GET_SIZE(self._sale)
        claims.user = PyUnicode_AsUTF8AndSize(user_id, &length)
        claims.user_length = length
        self._hold(number)
        self._look_up(number, now_s, &view)
        claims.issued_s = <long long>now_s
        claims.eta_s = promised(view.eta)
        claims.admitted = view.state == ADMITTED
        claims.expires_s = claims.issued_s + TICKET_SECONDS
        if claims.admitted:
            claims.expires_s = <long long>min(until_s, claims.issued_s + self._admission_seconds)
        self._note_poll(&view)
        cdef bytes token = self._sign(&claims)
        return token, self._written(token, &claims, &view, now_s)

    def has_lapsed(self, long number, double now_s):
        """Whether it was served, and so long ago that the time to reserve is over."""
        cdef View view
        view.place = self._place_of(number)
        return 0 < view.place <= self.lapsed and self._state_of(&view, now_s) == ADMITTED

    # What is learned.

    def learn_settings(self, *, long admission_seconds, long absent_seconds):
        """How long an admitted ticket is good for, and after which silence a visitor counts as gone."""
        self._admission_seconds = admission_seconds
        self._absent_seconds = absent_seconds

    def learn(self, look not None):
        """The room as Redis shows it. Numbers issued and served never go back."""
        cdef long serving = look.serving
        self.look = look
        self.on = look.on
        self._by_draw = look.order == "draw"
        self._available = look.available
        self._may_return = look.reserved
        if look.state is not None:  # Else Redis does not know the sale, so not its window either.
            self._opens_s = look.opens_at_ms / 1000
            self._closes_s = look.closes_at_ms / 1000
        self.waiting = look.waiting
        self.lapsed = look.lapsed
        self.issued = max(self.issued, <long>look.issued)
        self.gone = is_gone(look)
        if look.drawn is not None and self.drawn != look.drawn:
            self.drawn = look.drawn
            self._draw = None
            self.take_attendance()  # Whoever polled before did so by number, …
            self._present, self._mark = b"", 0  # … and so did those who were present.
        if serving > self.serving:
            self.serving = serving
            self._note_served(serving, look.now_ms / 1000)
        self._learn_outlook(self._forecast.learn(look))
        self.known = True

    def forget(self):
        """The room is followed no longer: what is here gets old."""
        self.known = False

    def learn_present(self, bytes bitmap not None, long mark):
        """Who is present, one bit per place, the first place's the second bit. Beyond `mark` all are."""
        cdef Py_ssize_t blocks = PyBytes_GET_SIZE(bitmap) // BLOCK_BYTES + 1
        cdef const unsigned char* bits = <const unsigned char*>PyBytes_AS_STRING(bitmap)
        cdef Py_ssize_t block
        if blocks > self._blocks:
            free(self._before)
            self._blocks = 0
            self._before = <uint32_t*>malloc(2 * blocks * sizeof(uint32_t))
            if self._before == NULL:
                raise MemoryError()
            self._blocks = 2 * blocks
        self._before[0] = 0
        for block in range(blocks - 1):
            self._before[block + 1] = self._before[block] + count_bits(
                bits + block * BLOCK_BYTES, 8 * BLOCK_BYTES
            )
        self._present = bitmap
        self._mark = mark

    def learn_draw(self, object places not None):
        """The draw's places by number, as engine/admission/room/draw.py makes them."""
        cdef const uint32_t[::1] view = places
        if view.shape[0] != self.drawn:
            raise ValueError(f"{view.shape[0]} places for {self.drawn} numbers drawn")
        if self.drawn > 0:
            self._hold(self.drawn)  # A low number may have been given a high place.
        self._places = view
        self._draw = places

    @property
    def needs_draw(self):
        """Whether numbers were drawn whose places are not known here."""
        return self.drawn > 0 and self._draw is None

    def take_attendance(self):
        """Who polled since it was asked last, one bit per place as in `learn_present`."""
        cdef Py_ssize_t length = self._polled_last // 8 + 1
        cdef bytes polled
        if self._polled_last == 0:
            return b""
        polled = PyBytes_FromStringAndSize(<char*>self._polled, length)
        memset(self._polled, 0, length)
        self._polled_last = 0
        return polled

    def take_said(self):
        """How often each state was said since it was asked last."""
        cdef dict said = {
            STATE_WORDS[state].decode(): self._said[state]
            for state in range(STATES) if self._said[state]
        }
        memset(self._said, 0, sizeof(self._said))
        return said

    def take_eta_errors(self):
        """How far promised waits were off, relative to the actual ones, since it was asked last."""
        errors, self._eta_errors = self._eta_errors, []
        return errors

    def ahead_of(self, long place):
        """People present between those served and a place."""
        return self._ahead_of(place)

    def place_of(self, long number):
        """The place of a number, None while the draw is to come."""
        return self._place_of(number) or None

    cdef int _learn_outlook(self, object outlook) except -1:
        cdef list segments = sound(outlook.segments)
        learn_curve(&self._likely, segments, bounded(outlook.leaving))
        learn_curve(&self._patient, segments, 0)
        self._places_per_second = max(1e-9, bounded(outlook.places_per_second))
        self._variation = bounded(outlook.variation)
        self._steady_seconds = bounded(outlook.steady_seconds)
        self._supply = bounded(outlook.supply)
        self._supply_variance = bounded(outlook.supply_variance)
        self._take = bounded(outlook.take)
        self._take_variance = bounded(outlook.take_variance)
        self._take_doubt = bounded(outlook.take_doubt)
        self._undecided = bounded(outlook.undecided)

    # Tickets.

    cdef bint _is_theirs(self, bytes token, str user_id, Claims* claims) except -1:
        """Whether it is a genuine ticket of this sale and user. Its signature is verified once."""
        cdef uint64_t mark
        if not self._key.open(token, claims) or not self._names(user_id, claims):
            return False
        mark = self._key.mark(token)
        if claims.number < self._capacity and self._marks[claims.number] == mark:
            return True
        if not self._key.is_genuine(token):
            return False
        self._hold(claims.number)  # Room is made for genuine numbers only.
        self._marks[claims.number] = mark
        return True

    cdef bint _names(self, str user_id, Claims* claims) except -1:
        """Whether the claims name this sale and this user."""
        cdef Py_ssize_t length
        cdef const char* user = PyUnicode_AsUTF8AndSize(user_id, &length)
        return (
            claims.user_length == length
            and memcmp(claims.user, user, length) == 0
            and claims.sale_length == PyBytes_GET_SIZE(self._sale)
            and memcmp(claims.sale, PyBytes_AS_STRING(self._sale), claims.sale_length) == 0
        )

    cdef bytes _fresh(self, bytes token, Claims* claims, View* view, double now_s):
        """The ticket to go on with: the same one, unless it has to say something else."""
        cdef bint old = claims.expires_s - now_s < TICKET_SECONDS - RENEW_SECONDS
        if claims.admitted or view.state == GONE or view.state == OPEN:
            return token
        if view.state == ADMITTED:
            self._observe(claims, view)
            claims.admitted = True
            claims.expires_s = min(
                claims.expires_s, <long long>now_s + self._admission_seconds
            )
            return self._sign(claims)
        if claims.eta_s < 0 and view.eta >= 0:
            # The first promise. Its wait counts from now.
            claims.eta_s = promised(view.eta)
            claims.issued_s = <long long>now_s
            old = True
        if not old:
            return token
        claims.expires_s = <long long>now_s + TICKET_SECONDS
        return self._sign(claims)

    cdef bytes _sign(self, Claims* claims):
        cdef bytes token = self._key.sign_texts(
            claims.sale, claims.sale_length, claims.user, claims.user_length, claims.number,
            claims.issued_s, claims.expires_s, claims.eta_s, claims.admitted,
        )
        self._marks[claims.number] = self._key.mark(token)
        return token

    cdef int _hold(self, long number) except -1:
        """Makes room for a number that exists."""
        cdef long capacity = max(self._capacity, <long>CAPACITY_MIN)
        if not 0 < number <= NUMBER_MAX:
            raise ValueError("a number is 1 to 2^24")
        self.issued = max(self.issued, number)
        if number < self._capacity:
            return 0
        while capacity <= number:
            capacity *= 2
        self._marks = <uint64_t*>grown(self._marks, 8 * self._capacity, 8 * capacity)
        self._polled = <unsigned char*>grown(self._polled, self._capacity // 8, capacity // 8)
        self._capacity = capacity
        return 0

    cdef int _heal(self, long number) noexcept:
        """A ticket says that it was served. Whoever lost the count learns it back."""
        cdef long place = self._place_of(number)
        if place > self.serving:
            self.serving = place

    # Places.

    cdef long _place_of(self, long number) noexcept:
        """0 while the draw is to come, or not computed here yet."""
        if not self._by_draw or 0 <= self.drawn < number:
            return number
        if self.drawn < 0 and self.serving > 0:
            return number  # It opened as a room without a draw.
        if self._draw is None:
            return 0
        return self._places[number - 1]

    cdef bint _is_served(self, long place) noexcept:
        return 0 < place <= self.serving

    cdef long _ahead_of(self, long place) noexcept:
        """People between those served and a place. Those beyond the mark are too new to be absent."""
        cdef long last = place - 1
        cdef long judged = min(last, self._mark)
        cdef long people = 0
        if judged > self.serving:
            people = self._present_to(judged) - self._present_to(self.serving)
        if last > max(self._mark, self.serving):
            people += last - max(self._mark, self.serving)
        return people

    cdef long _present_to(self, long place) noexcept:
        """People present at places up to this one."""
        cdef Py_ssize_t bits = min(place + 1, 8 * PyBytes_GET_SIZE(self._present))
        cdef Py_ssize_t block = bits // (8 * BLOCK_BYTES)
        if bits <= 0:
            return 0
        return self._before[block] + count_bits(
            <const unsigned char*>PyBytes_AS_STRING(self._present) + block * BLOCK_BYTES,
            bits - block * 8 * BLOCK_BYTES,
        )

    cdef int _note_poll(self, View* view) noexcept:
        cdef long place = view.place if view.place > 0 else view.number
        self._said[view.state] += 1
        # Between the draw and its places nobody can be marked; it takes a moment.
        if place >= self._capacity or (view.place == 0 and self.drawn > 0):
            return 0
        self._polled[place >> 3] |= 0x80 >> (place & 7)
        self._polled_last = max(self._polled_last, place)
        return 0

    cdef int _note_served(self, long place, double at_s) noexcept:
        if self._served_count == SERVED_MAX:
            self._served_count = SERVED_MAX // 2
            memmove(self._served_places, self._served_places + SERVED_MAX // 2,
                    SERVED_MAX // 2 * sizeof(long))
            memmove(self._served_at, self._served_at + SERVED_MAX // 2,
                    SERVED_MAX // 2 * sizeof(double))
        self._served_places[self._served_count] = place
        self._served_at[self._served_count] = at_s
        self._served_count += 1

    cdef double _served_when(self, long place) noexcept:
        """When a place was served; below 0 if that is forgotten."""
        cdef Py_ssize_t low = 0, high = self._served_count, middle
        while low < high:
            middle = (low + high) // 2
            if self._served_places[middle] < place:
                low = middle + 1
            else:
                high = middle
        # Before the first look noted it may have been served long ago.
        return self._served_at[low] if 0 < low < self._served_count else -1

    cdef int _observe(self, Claims* claims, View* view) except -1:
        """The first poll that finds a ticket served: how good was the promise?"""
        cdef double served = self._served_when(view.place)
        cdef double wait = served - claims.issued_s
        if claims.eta_s < 0 or served < 0 or wait < 0 or len(self._eta_errors) >= ERRORS_MAX:
            return 0
        self._eta_errors.append(fabs(claims.eta_s - wait) / max(wait, WAIT_SECONDS_MIN))
        return 0

    # The forecast.

    cdef int _look_up(self, long number, double now_s, View* view) except -1:
        view.number = number
        view.place = self._place_of(number)
        view.state = self._state_of(view, now_s)
        view.ahead = 0
        if (view.state == WAITING or view.state == PREQUEUE) and view.place > 0:
            view.ahead = self._ahead_of(view.place)
        self._promise(view, now_s)
        view.chance = self._chance_of(view)
        return 0

    cdef int _state_of(self, View* view, double now_s) noexcept:
        if not self.on:
            return OPEN
        if self.gone or now_s >= self._closes_s:
            return GONE
        if self._is_served(view.place):
            return ADMITTED
        return PREQUEUE if now_s < self._opens_s or view.place == 0 else WAITING

    cdef int _promise(self, View* view, double now_s) noexcept:
        """When his turn comes, and a range that holds it eight times of ten."""
        cdef double before = max(0.0, self._opens_s - now_s)
        cdef double wait, doubt, slow, passing
        view.eta = view.eta_low = view.eta_high = -1
        if view.state == ADMITTED or view.state == OPEN:
            view.eta = view.eta_low = view.eta_high = 0
        if view.state == GONE or view.eta == 0 or view.place == 0:
            return 0
        wait = wait_of(&self._likely, view.ahead + 1)
        if wait < 0:
            return 0
        # Where most places are deserted, passing them takes longer than serving the others.
        passing = (view.place - self.serving) / self._places_per_second
        wait = max(wait, passing)
        if not wait < WAIT_SECONDS_MAX:
            return 0
        slow = wait_of(&self._patient, view.ahead + 1)
        doubt = EIGHT_OF_TEN * sqrt(
            self._variation ** 2 * min(1.0, self._steady_seconds / max(wait, 1e-9))
            + MODEL_VARIATION ** 2
        )
        view.eta = before + wait
        view.eta_low = before + wait * max(0.0, 1 - doubt)
        view.eta_high = before + max(wait, slow if slow >= 0 else 2 * wait) * (1 + doubt)
        return 0

    cdef double _chance_of(self, View* view) noexcept:
        """The probability that those ahead leave a unit over.

        Those ahead who stay, and those admitted who have not decided yet, each take a random number
        of units; many of them together are normally distributed (central limit theorem), with the
        doubt about the average added. So are the units that come back.
        """
        cdef double ahead = view.ahead
        cdef double people, spare, variance
        if view.state == GONE:
            return 0
        if view.place == 0:  # Every place is as likely as any other.
            people = max(1, self.waiting) * self._take
            return min(1.0, self._supply / people) if people > 0 else 1.0
        if view.eta > 0:
            ahead *= exp(-self._likely.leaving * view.eta)
        people = ahead + self._undecided
        spare = self._supply - people * self._take - 0.5  # Between one unit left and none.
        variance = (
            people * self._take_variance + (people * self._take * self._take_doubt) ** 2
            + self._supply_variance
        )
        if variance <= 0:
            return 1.0 if spare > 0 else 0.0
        return 0.5 * erfc(-spare / sqrt(2 * variance))

    cdef double _poll_after(self, View* view, double now_s) noexcept:
        cdef double most = min(POLL_SECONDS_MAX, self._absent_seconds / 3.0)
        cdef double seconds = most
        cdef double before = self._opens_s - now_s
        if view.state == PREQUEUE and view.eta < 0 and before <= most:
            # The next poll is the first after the opening: not everybody's at the same moment.
            return max(POLL_SECONDS_MIN, before + OPENING_SECONDS * self._turn_of(view))
        if (view.state == WAITING or view.state == PREQUEUE) and view.eta >= 0:
            seconds = view.eta / POLLS_AHEAD
        seconds = min(most, max(POLL_SECONDS_MIN, seconds))
        # By number, evenly within one spread to either side.
        return seconds * (1 - POLL_SPREAD + 2 * POLL_SPREAD * mixed(view.number))

    cdef double _turn_of(self, View* view) noexcept:
        """Which of those who wait is to poll when, from 0 to 1: who stands near the front, first."""
        if view.place == 0:
            return mixed(view.number)
        return min(1.0, view.ahead / <double>max(1, self.waiting))

    # What is written.

    cdef bytes _written(self, bytes token, Claims* claims, View* view, double now_s):
        cdef char body[BODY_MAX + TICKET_MAX]
        cdef char* at = body
        cdef bint placed = view.place > 0 or view.state == OPEN or view.state == GONE
        at = put(at, b'{"sale_id":"')
        at = put_bytes(at, self._sale)
        at = put(at, b'","state":"')
        at = put(at, STATE_WORDS[view.state])
        at = put(at, b'","ticket":"')
        at = put_bytes(at, token)
        at = put(at, b'","number":')
        at = put_number(at, view.number)
        at = put(at, b',"position":')
        at = put_position(at, view, placed)
        at = put(at, b',"ahead":')
        at = put_number(at, view.ahead) if placed else put(at, b"null")
        at = put(at, b',"eta_seconds":')
        at = put_seconds(at, view.eta)
        at = put(at, b',"eta_range_seconds":')
        if view.eta < 0:
            at = put(at, b"null")
        else:
            at = put(at, b"[")
            at = put_seconds(at, view.eta_low)
            at = put(at, b",")
            at = put_seconds(at, view.eta_high)
            at = put(at, b"]")
        at = put(at, b',"chance":')
        at = put_fraction(at, <long>(view.chance * 100 + 0.5), 100)
        at = put(at, b',"chance_says":"')
        at = put(at, chance_word(view.chance))
        at = put(at, b'","available":')
        at = put_number(at, self._available)
        at = put(at, b',"may_return":')
        at = put_number(at, self._may_return)
        at = put(at, b',"poll_after_seconds":')
        at = put_seconds(at, self._poll_after(view, now_s))
        at = put(at, b',"expires_at":"')
        at = put_time(at, claims.expires_s * 1000)
        at = put(at, b'","server_time":"')
        at = put_time(at, <long long>(now_s * 1000))
        at = put(at, b'"}')
        return PyBytes_FromStringAndSize(body, at - body)


def is_gone(look not None):
    """Whether there is nothing left to wait for."""
    if look.state is None:
        return False
    if look.state == "closed" or look.now_ms >= look.closes_at_ms:
        return True
    # Nothing sold either: the counters are lost or being rebuilt.
    return look.state != "draining" and look.available == look.reserved == 0 < look.sold


cdef double mixed(long number) noexcept:
    """From 0 to 1, evenly over the numbers."""
    return ((<uint64_t>number * MIX) >> 40) / <double>(1 << 24)


cdef list sound(object segments):
    """Those of a forecast that are numbers."""
    return [
        (seconds, rate)
        for seconds, rate in segments
        if 0 < seconds <= OUTLOOK_MAX and 0 <= rate <= OUTLOOK_MAX
    ]


cdef double bounded(double value) noexcept:
    """A quantity that an answer can be computed from: neither negative nor infinite, nor not a number."""
    return min(value, OUTLOOK_MAX) if value > 0 else 0.0


cdef long promised(double eta) noexcept:
    return -1 if eta < 0 else <long>(eta + 0.5)


cdef const char* chance_word(double chance) noexcept:
    if chance >= 0.75:
        return b"good"
    if chance >= 0.35:
        return b"fair"
    return b"slim" if chance >= 0.02 else b"none"


cdef void* grown(void* old, size_t size, size_t wanted) except NULL:
    """More memory, what is new of it zero."""
    cdef void* new = realloc(old, wanted)
    if new == NULL:
        raise MemoryError()
    memset(<char*>new + size, 0, wanted - size)
    return new


cdef long count_bits(const unsigned char* bits, Py_ssize_t count) noexcept:
    """How many of the first bits are set, the highest of each byte first, as Redis counts them."""
    cdef uint64_t word
    cdef long found = 0
    while count >= 64:
        memcpy(&word, bits, 8)
        found += __builtin_popcountll(word)
        bits += 8
        count -= 64
    while count >= 8:
        found += __builtin_popcountll(bits[0])
        bits += 1
        count -= 8
    if count > 0:
        found += __builtin_popcountll(bits[0] >> (8 - count))
    return found


cdef char* put_position(char* at, View* view, bint placed) noexcept:
    if view.state == ADMITTED or view.state == OPEN:
        return put(at, b"0")
    if not placed or view.state == GONE:
        return put(at, b"null")
    return put_number(at, view.ahead + 1)
