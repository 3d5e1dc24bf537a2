"""The gate before aiohttp, and aiohttp alone, in memory: both answer with what they understood."""

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web
from httptools import HttpRequestParser

from api.connection import ConnectionGuards, Connections
from api.protocol import HttpConnection, quiet
from api.server import HEADER_LINE_BYTES_MAX, HEADERS_MAX
from ext.gate import Gate, Kind
from tests.support.wire import Wire

BODY_BYTES_MAX: Final = 400
SECONDS_MAX: Final = 10.0
KEEPALIVE_SECONDS: Final = 75.0
QUIET_TURNS: Final = 8  # Of the loop, without a byte written: nobody is at work any more.
FIELDS: Final = (
    "Authorization", "Idempotency-Key", "Content-Type", "X-Request-Id", "Queue-Ticket",
    "X-Forwarded-For", "Forwarded", "User-Agent",
)  # fmt: skip
NAMES: Final = {"X-Request-Id": "request_id"}  # The others are called as they are.
METHODS: Final = {int(Kind.RESERVE): "POST", int(Kind.ENTER_QUEUE): "POST"}
PATHS: Final = {
    int(Kind.RESERVE): "/v1/sales/{}/reservations",
    int(Kind.SHOW_SALE): "/v1/sales/{}",
    int(Kind.SHOW_RESERVATION): "/v1/reservations/{}",
    int(Kind.SHOW_QUEUE): "/v1/sales/{}/queue",
    int(Kind.ENTER_QUEUE): "/v1/sales/{}/queue",
    int(Kind.SHOW_CHALLENGE): "/v1/sales/{}/queue/challenge",
}


def understood(method: str, path: str, fields: list[str | None], body: bytes) -> bytes:
    """What an answer says: whoever read the request in another way says something else."""
    return repr((method, path, fields, body)).encode()


class EchoDoors:
    """Answers the gate's requests: at once, or in a later turn of the loop and out of order."""

    full_answer = b""

    def __init__(self, guards: ConnectionGuards, dice: random.Random) -> None:
        self._guards = guards
        self._dice = dice
        self._waiting: list[tuple[Any, bytes]] = []
        self.seen = 0
        self.in_work_most = 0

    def take(self, request: Any) -> bytes | None:
        self.seen += 1
        body = understood(
            METHODS.get(request.kind, "GET"),
            PATHS[request.kind].format(request.name),
            [_text(getattr(request, _name_of(name))) for name in FIELDS],
            request.body,
        )
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        if self._dice.random() < 0.5:
            return answer
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._answer)
        self._waiting.append((request, answer))
        self.in_work_most = max(self.in_work_most, len(self._waiting))
        return None

    def hand_over(self, transport: Any, data: bytes) -> None:
        guard = self._guards()
        transport.set_protocol(guard)
        guard.connection_made(transport)
        guard.data_received(data)

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._dice.shuffle(waiting)
        for request, answer in waiting:
            request.answer(answer)


def _name_of(field: str) -> str:
    return NAMES.get(field) or field.lower().replace("-", "_")


def _text(header: bytes | None) -> str | None:
    return None if header is None else header.decode("utf-8", "surrogateescape")


class Rig:
    """Both doors in one loop."""

    def __init__(self, dice: random.Random) -> None:
        self._loop = asyncio.get_running_loop()
        self.now = 1000.0
        self.connections = Connections(
            lambda: self.now, connections_max=100_000, per_address_max=100_000
        )
        self.server = web.Server(self._echo)
        self.guards = ConnectionGuards(
            self._make_protocol, self.connections, request_seconds_max=SECONDS_MAX
        )
        self.doors = EchoDoors(self.guards, dice)
        self.gate = Gate(
            self.doors.take,
            self.doors,
            self.connections,
            HttpRequestParser,
            body_bytes_max=BODY_BYTES_MAX,
            request_seconds_max=SECONDS_MAX,
            keepalive_seconds=KEEPALIVE_SECONDS,
        )

    def by_gate(self) -> Wire:
        return Wire(self.gate())

    def by_aiohttp(self) -> Wire:
        return Wire(self.guards())

    async def settle(self, wires: list[Wire]) -> None:
        """Returns when none of them has anything more to say."""
        before, turns = -1, 0
        while turns < QUIET_TURNS:
            await asyncio.sleep(0)
            said = sum(len(wire.written) + wire.closed for wire in wires)
            turns = turns + 1 if said == before else 0
            before = said

    async def end(self) -> None:
        await self.server.shutdown(1)

    def _make_protocol(self) -> HttpConnection:
        return HttpConnection(
            self.server,
            loop=self._loop,
            keepalive_timeout=KEEPALIVE_SECONDS,
            access_log=None,  # type: ignore[arg-type]
            logger=quiet,
            max_line_size=HEADER_LINE_BYTES_MAX,
            max_field_size=HEADER_LINE_BYTES_MAX,
            max_headers=HEADERS_MAX,
            auto_decompress=False,
        )

    async def _echo(self, request: web.BaseRequest) -> web.Response:
        if request.method not in {"GET", "POST"}:
            return web.Response(status=405)
        fields = [request.headers.get(name) for name in FIELDS]
        try:
            body = await request.read()
        except ConnectionError:
            return web.Response(status=499)  # The client left; nobody reads this.
        return web.Response(body=understood(request.method, request.raw_path, fields, body))


Runner = Callable[[Rig], Any]
