"""One keep-alive HTTP/1.1 connection with one request in flight. Knows nothing of sales.

Written on raw protocols because the generator shares its cores with the engine it measures. The parser calls
back for a body and an end only: a Python call per header would double the price of an answer.
"""

import asyncio
import time
from typing import Any, Final, Protocol, cast

import httptools

RETRY_AFTER_NAME: Final = b"\r\nretry-after:"
WAITING: Final = frozenset({425, 429, 503})  # Answers that say when to come back.


class Owner(Protocol):
    """Who hands out the work and takes the answers."""

    def answered(self, connection: "Connection", status: int, body: bytes) -> None:
        """The request is answered; `connection.retry_after_s` holds the header, if there was one."""

    def closed(self, connection: "Connection") -> None:
        """The connection is gone; a request in `connection.work` has no answer."""


class Connection(asyncio.Protocol):
    """Sends what it is given, reports what comes back."""

    __slots__ = (
        "_body", "_complete", "_keep_alive", "_owner", "_parser", "_received", "_transport",
        "is_open", "retry_after_s", "sent_s", "work",
    )  # fmt: skip

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._parser: Any = httptools.HttpResponseParser(self)
        self._received = b""  # of the answer that is not complete yet
        self._body = b""
        self._complete = False
        self._keep_alive = True
        self.is_open = False  # and may be sent on, if idle
        self.retry_after_s: float | None = None
        self.sent_s = 0.0
        self.work: Any = None  # the owner's note of what is in flight; None: idle

    def send(self, work: Any, request: bytes) -> None:
        """One request. The connection must be idle and open."""
        assert self._transport is not None
        self.work = work
        self.sent_s = time.monotonic()
        self._transport.write(request)

    def abort(self) -> None:
        """Drops the connection at once; `closed` follows."""
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name.
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        if self.work is None:  # An answer to nothing: the server is about to hang up.
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort()
            return
        self._received = self._received + data if self._received else data
        if self._complete:
            self._deliver()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._transport = None
        self.is_open = False
        self._owner.closed(self)

    # What the parser calls.

    def on_body(self, body: bytes) -> None:
        self._body = self._body + body if self._body else body

    def on_message_complete(self) -> None:
        if self._complete:
            raise ValueError("a second answer to one request")  # The parser makes it its own error.
        if self._parser.get_status_code() < 200:
            return  # An interim answer; the real one follows.
        self._complete = True
        # The parser knows this only here; afterwards it is ready for the next answer and says no.
        self._keep_alive = self._parser.should_keep_alive()

    def _deliver(self) -> None:
        status, body = self._parser.get_status_code(), self._body
        self.retry_after_s = retry_after(self._received) if status in WAITING else None
        self._body = self._received = b""
        self._complete = False
        # Known before the answer is told, so that nobody sends on it again.
        self.is_open = self._keep_alive
        self._owner.answered(self, status, body)
        if not self._keep_alive:
            self.abort()


def retry_after(answer: bytes) -> float | None:
    """What the engine asks for, in seconds; None if it does not, or asks in another way."""
    head, _, _ = answer.lower().rpartition(b"\r\n\r\n")
    _, _, rest = head.partition(RETRY_AFTER_NAME)
    seconds = rest.partition(b"\r\n")[0].strip()
    return float(seconds) if seconds.isdigit() else None
