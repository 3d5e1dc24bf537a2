"""One keep-alive HTTP/1.1 connection with one request in flight. Knows nothing of sales.

Written on raw protocols because the generator shares its cores with the engine it measures.
"""

import asyncio
import time
from typing import Any, Final, Protocol, cast

import httptools

RETRY_AFTER_LENGTH: Final = len(b"retry-after")


class Owner(Protocol):
    """Who hands out the work and takes the answers."""

    def answered(self, connection: "Connection", status: int, body: bytes) -> None:
        """The request is answered; `connection.retry_after_s` holds the header, if there was one."""

    def closed(self, connection: "Connection") -> None:
        """The connection is gone; a request in `connection.work` has no answer."""


class Connection(asyncio.Protocol):
    """Sends what it is given, reports what comes back."""

    __slots__ = (
        "_body", "_complete", "_keep_alive", "_owner", "_parser", "_transport",
        "is_open", "retry_after_s", "sent_s", "work",
    )  # fmt: skip

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._parser: Any = httptools.HttpResponseParser(self)
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
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort()
            return
        if self._complete:
            self._deliver()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._transport = None
        self.is_open = False
        self._owner.closed(self)

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._body = b""
        self.retry_after_s = None

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) == RETRY_AFTER_LENGTH and name.lower() == b"retry-after":
            self.retry_after_s = float(value) if value.isdigit() else None

    def on_body(self, body: bytes) -> None:
        self._body = self._body + body if self._body else body

    def on_message_complete(self) -> None:
        self._complete = True
        # The parser knows this only here; afterwards it is ready for the next answer and says no.
        self._keep_alive = self._parser.should_keep_alive()

    def _deliver(self) -> None:
        self._complete = False
        status = self._parser.get_status_code()
        if status < 200:  # An interim answer; the real one follows.
            return
        if self.work is None:  # An answer to nothing: the server is about to hang up.
            self.abort()
            return
        # Known before the answer is told, so that nobody sends on it again.
        self.is_open = self._keep_alive
        self._owner.answered(self, status, self._body)
        if not self._keep_alive:
            self.abort()
