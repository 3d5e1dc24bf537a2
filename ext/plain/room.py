"""One sale's waiting room in one front's memory: who is served, and what those who wait are told."""

import json
import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from ext.plain.outlook import bounded, grown, is_gone
from ext.plain.tickets import NUMBER_MAX, Ticket, TicketKey
from ext.plain.told import chance_word, promised, short, tenths, time_text

TICKET_SECONDS: Final = 300  # A reconnect within 5 minutes keeps the place.
RENEW_SECONDS: Final = 60  # A waiting ticket is signed anew when it is older.
SERVED_MAX: Final = 4096
ERRORS_MAX: Final = 4096
POLL_SECONDS_MIN: Final = 0.5
POLL_SECONDS_MAX: Final = 15
POLLS_AHEAD: Final = 5
POLL_SPREAD: Final = 0.2
OPENING_SECONDS: Final = 5
WAIT_SECONDS_MIN: Final = 10
WAIT_SECONDS_MAX: Final = 1e7
EIGHT_OF_TEN: Final = 1.2816
MODEL_VARIATION: Final = 0.05
MIX: Final = 0x9E3779B97F4A7C15


class _View(NamedTuple):
    """One place as it is now. The formulas' sources stand in ext/room.pyx."""

    number: int
    place: int
    state: str
    ahead: int
    eta: float
    eta_low: float
    eta_high: float
    chance: float = 0.0


class Room:
    """A room as the last look showed it. While it is not `known` it must not be asked: follow it first."""

    def __init__(self, sale_id: str, ticket_key: TicketKey, forecast: Any) -> None:
        self.sale_id = sale_id
        self._key = ticket_key
        self._forecast = forecast
        self.known = self.on = self.gone = self.asked = False
        self.issued = self.serving = self.waiting = self.lapsed = 0
        self.drawn = -1
        self.look: Any = None
        self._by_draw = False
        self._opens_s = 0.0
        self._closes_s = math.inf
        self._admission_seconds = 120
        self._absent_seconds = 45
        self._draw: Sequence[int] | None = None
        self._served: list[tuple[int, float]] = []
        self._present: list[int] = [0]  # How many are present up to each place.
        self._mark = 0
        self._polled: set[int] = set()
        self._said: dict[str, int] = {}
        self._eta_errors: list[float] = []
        self._outlook: Any = None

    def check(self, token: bytes | None, user_id: str, now_s: float) -> int:
        """Above 0: the number of an admitted ticket. -1: this user's, but not admitted. 0: none of his."""
        self.asked = True
        ticket = self._theirs(token, user_id)
        if ticket is None:
            return 0
        if ticket.expires_s <= now_s:
            return -1
        if ticket.admitted or 0 < self._place_of(ticket.number) <= self.serving:
            return ticket.number
        return -1

    def poll(self, token: bytes | None, user_id: str, now_s: float) -> bytes | None:
        """What to tell the ticket's holder, as JSON; he counts as present. None: see `why`."""
        self.asked = True
        ticket = self._theirs(token, user_id) if self.known else None
        if token is None or ticket is None or ticket.expires_s <= now_s:
            return None
        if ticket.admitted:
            self.serving = max(self.serving, self._place_of(ticket.number))
        view = self._look_up(ticket.number, now_s)
        self._note_poll(view)
        token = self._fresh(token, ticket, view, now_s)
        return self._written(token, ticket, view, now_s)

    def why(self, token: bytes | None, user_id: str, now_s: float) -> str:
        """Why a poll said None: 'required', 'forged', 'foreign', 'expired' or 'unknown' (no look yet)."""
        if token is None:
            return "required"
        ticket = self._key.read(token)
        if ticket is None:
            return "forged"
        if (ticket.sale_id, ticket.user_id) != (self.sale_id, user_id):
            return "foreign"
        return "expired" if ticket.expires_s <= now_s else "unknown"

    def issue(
        self, user_id: str, number: int, now_s: float, until_s: float = math.inf
    ) -> tuple[bytes, bytes]:
        """A ticket for a number that Redis gave this user, and what to tell him: (ticket, JSON).

        `until_s`: when his admission ends, if he has one. It is not prolonged.
        """
        if not self.known:
            raise ValueError("a room without a look gives no tickets")
        if not 0 < number <= NUMBER_MAX:
            raise ValueError("a number is 1 to 2^24")
        self.issued = max(self.issued, number)
        view = self._look_up(number, now_s)
        admitted = view.state == "admitted"
        issued_s, eta = int(now_s), promised(view.eta)
        expires_s = issued_s + TICKET_SECONDS
        if admitted:
            expires_s = int(min(until_s, issued_s + self._admission_seconds))
        ticket = Ticket(self.sale_id, user_id, number, issued_s, expires_s, eta, admitted)
        self._note_poll(view)
        token = self._sign(ticket)
        return token, self._written(token, ticket, view, now_s)

    def has_lapsed(self, number: int, now_s: float) -> bool:
        """Whether it was served, and so long ago that the time to reserve is over."""
        place = self._place_of(number)
        return 0 < place <= self.lapsed and self._state_of(place, now_s) == "admitted"

    def learn_settings(self, *, admission_seconds: int, absent_seconds: int) -> None:
        """How long an admitted ticket is good for, and after which silence a visitor counts as gone."""
        self._admission_seconds = admission_seconds
        self._absent_seconds = absent_seconds

    def learn(self, look: Any) -> None:
        """The room as Redis shows it. Numbers issued and served never go back."""
        self.look = look
        self.on = look.on
        self._by_draw = look.order == "draw"
        if look.state is not None:
            self._opens_s = look.opens_at_ms / 1000
            self._closes_s = look.closes_at_ms / 1000
        self.waiting = look.waiting
        self.lapsed = look.lapsed
        self.issued = max(self.issued, look.issued)
        self.gone = is_gone(look)
        if look.drawn is not None and self.drawn != look.drawn:
            self.drawn = look.drawn
            self._draw = None
            self._polled.clear()
            self._present, self._mark = [0], 0
        if look.serving > self.serving:
            self.serving = look.serving
            self._served.append((look.serving, look.now_ms / 1000))
            if len(self._served) > SERVED_MAX:
                del self._served[: SERVED_MAX // 2]
        self._outlook = bounded(self._forecast.learn(look))
        self.known = True

    def forget(self) -> None:
        """The room is followed no longer: what is here gets old."""
        self.known = False

    def learn_present(self, bitmap: bytes, mark: int) -> None:
        """Who is present, one bit per place, the first place's the second bit. Beyond `mark` all are."""
        self._present = []
        count = 0
        for byte in bitmap:
            for bit in range(7, -1, -1):
                count += byte >> bit & 1
                self._present.append(count)
        self._present = self._present or [0]
        self._mark = mark

    def learn_draw(self, places: Sequence[int]) -> None:
        """The draw's places by number, as engine/admission/room/draw.py makes them."""
        if len(places) != self.drawn:
            raise ValueError(f"{len(places)} places for {self.drawn} numbers drawn")
        self._draw = places

    @property
    def needs_draw(self) -> bool:
        """Whether numbers were drawn whose places are not known here."""
        return self.drawn > 0 and self._draw is None

    def take_attendance(self) -> bytes:
        """Who polled since it was asked last, one bit per place as in `learn_present`."""
        if not self._polled:
            return b""
        bits = bytearray(max(self._polled) // 8 + 1)
        for place in self._polled:
            bits[place >> 3] |= 0x80 >> (place & 7)
        self._polled.clear()
        return bytes(bits)

    def take_said(self) -> dict[str, int]:
        """How often each state was said since it was asked last."""
        said, self._said = self._said, {}
        return said

    def take_eta_errors(self) -> list[float]:
        """How far promised waits were off, relative to the actual ones, since it was asked last."""
        errors, self._eta_errors = self._eta_errors, []
        return errors

    def ahead_of(self, place: int) -> int:
        """People present between those served and a place."""
        last = place - 1
        judged, people = min(last, self._mark), 0
        if judged > self.serving:
            people = self._present_to(judged) - self._present_to(self.serving)
        return people + max(0, last - max(self._mark, self.serving))

    def place_of(self, number: int) -> int | None:
        """The place of a number, None while the draw is to come."""
        return self._place_of(number) or None

    def _theirs(self, token: bytes | None, user_id: str) -> Ticket | None:
        ticket = self._key.read(token)
        if ticket is None or (ticket.sale_id, ticket.user_id) != (self.sale_id, user_id):
            return None
        self.issued = max(self.issued, ticket.number)
        return ticket

    def _fresh(self, token: bytes, ticket: Ticket, view: _View, now_s: float) -> bytes:
        old = ticket.expires_s - now_s < TICKET_SECONDS - RENEW_SECONDS
        if ticket.admitted or view.state in {"gone", "open"}:
            return token
        if view.state == "admitted":
            self._observe(ticket, view)
            ticket.admitted = True
            ticket.expires_s = min(ticket.expires_s, int(now_s) + self._admission_seconds)
            return self._sign(ticket)
        if ticket.eta_s is None and view.eta >= 0:
            ticket.eta_s = promised(view.eta)
            ticket.issued_s = int(now_s)
            old = True
        if not old:
            return token
        ticket.expires_s = int(now_s) + TICKET_SECONDS
        return self._sign(ticket)

    def _sign(self, ticket: Ticket) -> bytes:
        eta = -1 if ticket.eta_s is None else ticket.eta_s
        return self._key.sign(
            ticket.sale_id,
            ticket.user_id,
            ticket.number,
            ticket.issued_s,
            ticket.expires_s,
            eta,
            ticket.admitted,
        )

    def _place_of(self, number: int) -> int:
        if not self._by_draw or 0 <= self.drawn < number:
            return number
        if self.drawn < 0 and self.serving > 0:
            return number
        return 0 if self._draw is None else self._draw[number - 1]

    def _present_to(self, place: int) -> int:
        return self._present[max(0, min(place, len(self._present) - 1))]

    def _note_poll(self, view: _View) -> None:
        self._said[view.state] = self._said.get(view.state, 0) + 1
        if view.place or self.drawn <= 0:
            self._polled.add(view.place or view.number)

    def _observe(self, ticket: Ticket, view: _View) -> None:
        at = bisect_left(self._served, (view.place, -math.inf))
        if not 0 < at < len(self._served) or ticket.eta_s is None:
            return
        wait = self._served[at][1] - ticket.issued_s
        if wait >= 0 and len(self._eta_errors) < ERRORS_MAX:
            self._eta_errors.append(abs(ticket.eta_s - wait) / max(wait, WAIT_SECONDS_MIN))

    def _look_up(self, number: int, now_s: float) -> _View:
        place = self._place_of(number)
        state = self._state_of(place, now_s)
        ahead = self.ahead_of(place) if state in {"waiting", "prequeue"} and place > 0 else 0
        view = _View(number, place, state, ahead, *self._promise(state, place, ahead, now_s))
        return view._replace(chance=self._chance_of(view))

    def _state_of(self, place: int, now_s: float) -> str:
        if not self.on:
            return "open"
        if self.gone or now_s >= self._closes_s:
            return "gone"
        if 0 < place <= self.serving:
            return "admitted"
        return "prequeue" if now_s < self._opens_s or place == 0 else "waiting"

    def _promise(
        self, state: str, place: int, ahead: int, now_s: float
    ) -> tuple[float, float, float]:
        if state in {"admitted", "open"}:
            return 0.0, 0.0, 0.0
        before = max(0.0, self._opens_s - now_s)
        leaving, variation = self._outlook.leaving, self._outlook.variation
        wait = -1.0 if state == "gone" or place == 0 else self._wait(ahead + 1, leaving)
        if wait < 0:
            return -1.0, -1.0, -1.0
        wait = max(wait, (place - self.serving) / self._outlook.places_per_second)
        if not wait < WAIT_SECONDS_MAX:
            return -1.0, -1.0, -1.0
        slow = self._wait(ahead + 1, 0)
        steady = min(1.0, self._outlook.steady_seconds / max(wait, 1e-9))
        doubt = EIGHT_OF_TEN * math.sqrt(variation**2 * steady + MODEL_VARIATION**2)
        return (
            before + wait,
            before + wait * max(0.0, 1 - doubt),
            before + max(wait, slow if slow >= 0 else 2 * wait) * (1 + doubt),
        )

    def _wait(self, people: float, leaving: float) -> float:
        """Seconds until so many are gone; below 0 if that is not foreseen."""
        at = gone = 0.0
        for seconds, rate in self._outlook.segments:
            slow = leaving * (at + seconds) < 1e-9
            growth = seconds if slow else grown(leaving, at, seconds)
            if people <= gone + rate * growth:
                needed = (people - gone) / rate
                if leaving * (at + needed) >= 1e-9:
                    needed = math.log1p(leaving * needed * math.exp(-leaving * at)) / leaving
                return float(at + needed)
            gone += rate * growth
            at += seconds
        return -1.0

    def _chance_of(self, view: _View) -> float:
        outlook = self._outlook
        if view.state == "gone":
            return 0.0
        if view.place == 0:
            people = max(1, self.waiting) * outlook.take
            return min(1.0, outlook.supply / people) if people > 0 else 1.0
        stay = math.exp(-outlook.leaving * view.eta) if view.eta > 0 else 1.0
        people = view.ahead * stay + outlook.undecided
        spare = outlook.supply - people * outlook.take - 0.5
        variance = (
            people * outlook.take_variance
            + (people * outlook.take * outlook.take_doubt) ** 2
            + outlook.supply_variance
        )
        if variance <= 0:
            return 1.0 if spare > 0 else 0.0
        return 0.5 * math.erfc(-spare / math.sqrt(2 * variance))

    def _poll_after(self, view: _View, now_s: float) -> float:
        seconds = most = min(POLL_SECONDS_MAX, self._absent_seconds / 3.0)
        before = self._opens_s - now_s
        if view.state == "prequeue" and view.eta < 0 and before <= most:
            return max(POLL_SECONDS_MIN, before + OPENING_SECONDS * self._turn_of(view))
        if view.state in {"waiting", "prequeue"} and view.eta >= 0:
            seconds = view.eta / POLLS_AHEAD
        seconds = min(most, max(POLL_SECONDS_MIN, seconds))
        return seconds * (1 - POLL_SPREAD + 2 * POLL_SPREAD * _mixed(view.number))

    def _turn_of(self, view: _View) -> float:
        if view.place == 0:
            return _mixed(view.number)
        return min(1.0, view.ahead / max(1, self.waiting))

    def _written(self, token: bytes, ticket: Ticket, view: _View, now_s: float) -> bytes:
        placed = view.place > 0 or view.state in {"open", "gone"}
        known = view.eta >= 0
        eta_range = [tenths(view.eta_low), tenths(view.eta_high)] if known else None
        body = {
            "sale_id": self.sale_id,
            "state": view.state,
            "ticket": token.decode(),
            "number": view.number,
            "position": _position(view, placed),
            "ahead": view.ahead if placed else None,
            "eta_seconds": tenths(view.eta) if known else None,
            "eta_range_seconds": eta_range,
            "chance": short(int(view.chance * 100 + 0.5) / 100),
            "chance_says": chance_word(view.chance),
            "available": max(0, self.look.available),
            "may_return": max(0, self.look.reserved),
            "poll_after_seconds": tenths(self._poll_after(view, now_s)),
            "expires_at": time_text(ticket.expires_s * 1000),
            "server_time": time_text(int(now_s * 1000)),
        }
        return json.dumps(body, separators=(",", ":")).encode()


def _mixed(number: int) -> float:
    return (number * MIX % (1 << 64) >> 40) / (1 << 24)


def _position(view: _View, placed: bool) -> int | None:
    if view.state in {"admitted", "open"}:
        return 0
    return view.ahead + 1 if placed and view.state != "gone" else None
