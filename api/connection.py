"""Caps connections and closes those that dawdle: the gate's, and aiohttp's by standing in front.

aiohttp bounds neither the time in which a request arrives (slowloris) nor the number of
connections. The guard wraps its protocol and passes everything on; it knows nothing of HTTP
beyond "the request has arrived", which it is told through the request factory.
"""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from aiohttp import StreamReader

from api.answers import PROBLEM_JSON
from api.problems import Code, problem
from api.protocol import HttpConnection
from engine import metrics

logger = logging.getLogger(__name__)

SWEEP_SECONDS: Final = 0.5  # How late a dawdler may be closed.

_full = problem(Code.OVERLOADED, "Too many connections.")
FULL_ANSWER: Final = (
    f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: {PROBLEM_JSON}\r\n"
    f"Content-Length: {len(_full.body)}\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
).encode() + _full.body


class Connection(Protocol):
    """A connection that is counted and watched."""

    @property
    def address(self) -> str:
        """The peer's."""

    def is_late(self, now: float) -> bool:
        """Whether its time is over."""

    def abort(self) -> None:
        """Ends it at once."""


class Connections:
    """The open connections of one process, and their caps."""

    full_answer = FULL_ANSWER

    def __init__(
        self, clock: Callable[[], float], *, connections_max: int, per_address_max: int
    ) -> None:
        self._clock = clock
        self._connections_max = connections_max
        self._per_address_max = per_address_max
        self.now = clock()  # As of the last sweep: exact enough to bound seconds.
        self.open: set[Connection] = set()
        self._of_address: Counter[str] = Counter()
        self.empty = asyncio.Event()  # No connection is open.
        self.empty.set()

    def __len__(self) -> int:
        return len(self.open)

    async def run(self) -> None:
        """Sweeps until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self.sweep_once()

    def sweep_once(self) -> int:
        """Closes the connections whose time is over. Returns how many."""
        self.now = self._clock()
        late = [connection for connection in self.open if connection.is_late(self.now)]
        for connection in late:
            connection.abort()
        if late:
            metrics.shed.labels("slow_connection").inc(len(late))
        return len(late)

    def admit(self, connection: Connection) -> bool:
        """Counts a new connection in; False if there are too many already."""
        if (
            len(self.open) >= self._connections_max
            or self._of_address[connection.address] >= self._per_address_max
        ):
            metrics.shed.labels("connections").inc()
            return False
        self.open.add(connection)
        self.empty.clear()
        self._of_address[connection.address] += 1
        return True

    def leave(self, connection: Connection) -> None:
        if connection not in self.open:
            return
        self.open.remove(connection)
        self._of_address[connection.address] -= 1
        if not self._of_address[connection.address]:
            del self._of_address[connection.address]
        if not self.open:
            self.empty.set()


class ConnectionGuards:
    """Makes the guards of aiohttp's protocols."""

    def __init__(
        self,
        make_protocol: Callable[[], HttpConnection],
        connections: Connections,
        *,
        request_seconds_max: float,
    ) -> None:
        self._make_protocol = make_protocol
        self._connections = connections
        self.request_seconds_max = request_seconds_max
        self._guards: dict[HttpConnection, ConnectionGuard] = {}

    def __call__(self) -> "ConnectionGuard":
        """The protocol of a new connection, for `loop.create_server`."""
        return ConnectionGuard(self, self._make_protocol())

    @property
    def now(self) -> float:
        return self._connections.now

    def headers_arrived(self, protocol: HttpConnection, payload: StreamReader) -> None:
        """A request's headers are read; it has arrived once `payload` is at its end."""
        guard = self._guards.get(protocol)
        if guard is not None:
            guard.payload = payload

    def admit(self, guard: "ConnectionGuard", protocol: HttpConnection) -> bool:
        if not self._connections.admit(guard):
            return False
        self._guards[protocol] = guard
        return True

    def leave(self, guard: "ConnectionGuard", protocol: HttpConnection) -> None:
        self._guards.pop(protocol, None)
        self._connections.leave(guard)


class ConnectionGuard(asyncio.Protocol):
    """One connection's guard: passes everything on and remembers since when it waits."""

    __slots__ = (
        "_guards",
        "_inner",
        "_paused_at",
        "_transport",
        "_waiting_since",
        "address",
        "payload",
    )

    def __init__(self, guards: ConnectionGuards, inner: HttpConnection) -> None:
        self._guards = guards
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self._waiting_since = guards.now
        self._paused_at: float | None = None
        self.address = ""
        # Body of the newest request whose headers were read; None while headers are awaited.
        self.payload: StreamReader | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.address = _address(transport)
        if self._guards.admit(self, self._inner):
            self._inner.connection_made(transport)
        else:
            self._transport.write(FULL_ANSWER)
            self._transport.close()
            self._transport = None

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        payload = self.payload
        if payload is not None and payload.is_eof():
            # The last request was whole, so these bytes begin another.
            self.payload = None
            self._waiting_since = self._guards.now
        self._inner.data_received(data)

    def eof_received(self) -> None:
        if self._transport is not None:
            self._inner.eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._transport is not None:
            self._guards.leave(self, self._inner)
            self._inner.connection_lost(exc)
            self._transport = None

    def pause_writing(self) -> None:
        self._paused_at = self._guards.now
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._paused_at = None
        self._inner.resume_writing()

    def is_late(self, now: float) -> bool:
        """Whether a request takes too long to arrive, or an answer too long to be read."""
        seconds_max = self._guards.request_seconds_max
        if self._paused_at is not None and now - self._paused_at > seconds_max:
            return True
        body_is_awaited = self.payload is not None and not self.payload.is_eof()
        if self._inner.is_working and not body_is_awaited:
            # The client waits for us. A next request it has begun has its time afterwards.
            self._waiting_since = now
            return False
        if body_is_awaited:
            seconds_max = max(seconds_max, self._inner.body_seconds)
        if now - self._waiting_since <= seconds_max:
            return False
        if self.payload is None or body_is_awaited:
            return True
        self._waiting_since = math.inf  # Asked once: until more bytes come it stays idle.
        return self._inner.holds_part_of_a_request()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _address(transport: asyncio.BaseTransport) -> str:
    peer: Any = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) else ""
