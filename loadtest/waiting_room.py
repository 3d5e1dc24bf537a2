"""A shopper in a sale's waiting room: takes a ticket, polls as told, and learns whose turn it is.

Leaves the shopper what to do then: click, or go home.
"""

import random
from enum import Enum
from typing import Final, NamedTuple

import gevent  # type: ignore[import-untyped]
from locust.contrib.fasthttp import FastHttpSession

from loadtest.proof import solve
from loadtest.talk import Body, Call, Reply, send

ATTEMPTS_MAX: Final = 10  # Requests for one ticket that are shed or lost.
EARLY_MAX: Final = 60  # Asked before the room lets anybody in.
POLLS_MAX: Final = 1000
POLL_SECONDS: Final = 2.0  # Where the room does not say when to ask again.
POLL_JITTER: Final = 0.2  # Pages that were told the same do not ask in the same moment.
NAME: Final = "/v1/sales/[sale]/queue"
NO_ROOM: Final = frozenset({404, 405})
OVER: Final = frozenset({"sale_ended", "unknown_sale"})
# What a room tells those it does not let in yet: no failure of the engine.
EXPECTED: Final = (*NO_ROOM, 403, 410, 425)


class Word(Enum):
    """How waiting ended."""

    ADMITTED = "it is one's turn"
    OPEN = "there is no room: go and buy"
    GONE = "nothing is left, or the sale is over"
    LOST = "nobody answered, or waiting took too long"


class Turn(NamedTuple):
    """How waiting ended, and the ticket one holds."""

    word: Word
    ticket: str | None = None


class WaitingRoom:
    """One sale's room, as one shopper sees it."""

    def __init__(self, session: FastHttpSession, sale_id: str, headers: dict[str, str]) -> None:
        self._session = session
        self._path = f"/v1/sales/{sale_id}/queue"
        self._headers = headers
        self._proof: str | None = None  # solved for the next ticket
        self.tickets = 0  # taken, this shopper's first or another after one that was over
        self.ticket: str | None = None

    def wait(self) -> Turn:
        """Takes a ticket and waits until it is one's turn, or nobody's any more."""
        reply = self._enter()
        for _ in range(POLLS_MAX):
            if (word := self._word(reply)) is not None:
                return Turn(word, self.ticket)
            gevent.sleep(_pause_s(reply.body))
            reply = self._poll(reply)
        return Turn(Word.LOST, self.ticket)

    def _word(self, reply: Reply) -> Word | None:
        """What the answer says for good; None: wait on."""
        if reply.status in NO_ROOM:
            return Word.OPEN
        if reply.code in OVER:
            return Word.GONE
        if not reply.ok:
            return Word.LOST
        self.ticket = reply.ticket or reply.body.get("ticket") or self.ticket
        state = reply.body.get("state")
        if state in {"prequeue", "waiting"}:
            return None
        return {"open": Word.OPEN, "gone": Word.GONE}.get(str(state), Word.ADMITTED)

    def _enter(self) -> Reply:
        """A ticket, with a proof of work where one is asked for."""
        attempt = early = 0
        while True:
            body: Body = {"altcha": self._proof} if self._proof else {}
            reply = self._ask("POST", body)
            self.tickets += reply.ok
            early += reply.status == 425
            attempt += reply.repeatable or reply.status == 400
            if attempt >= ATTEMPTS_MAX or early >= EARLY_MAX:
                return reply
            if reply.status == 400:  # Asks for a proof, or that one was over or used.
                if not self._solve():
                    return reply
            elif reply.repeatable or reply.status == 425:
                gevent.sleep(reply.pause_s(attempt))
            else:
                return reply

    def _solve(self) -> bool:
        call = Call("GET", f"{self._path}/challenge", f"{NAME}/challenge")
        reply = send(self._session, call, self._headers)
        solved = solve(reply.body, lambda: gevent.sleep(0)) if reply.ok else None
        self._proof = solved
        return solved is not None

    def _poll(self, before: Reply) -> Reply:
        reply = self._ask("GET")
        if reply.status == 403:  # The ticket is over, after five minutes away: as a page does.
            return self._enter()
        return before if reply.repeatable else reply

    def _ask(self, method: str, body: Body | None = None) -> Reply:
        ticket = {"Queue-Ticket": self.ticket} if self.ticket else {}
        expected = (*EXPECTED, 400) if method == "POST" and not self._proof else EXPECTED
        call = Call(method, self._path, NAME, body or None)
        return send(self._session, call, self._headers | ticket, expected=expected)


def _pause_s(body: Body) -> float:
    """Until the next poll: as the room says."""
    asked = body.get("poll_after_seconds")
    seconds = float(asked) if isinstance(asked, int | float) else POLL_SECONDS
    return seconds * random.uniform(1, 1 + POLL_JITTER)
