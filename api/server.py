"""Serves the application on a listening socket, and stops without losing an answer.

The gate takes every connection first and serves the hot calls; aiohttp has the rest. There, too,
the reserve call goes straight to its handler: `web.Application` costs more than its own work.
"""

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import socket
from collections.abc import Callable
from typing import Any, Final

import uvloop
from aiohttp import http_parser, web

from api.app import ENTRANCE, FRONT, make_app
from api.connection import ConnectionGuards, Connections
from api.counts import FLUSH_SECONDS
from api.protocol import HttpConnection, quiet
from api.reservations.handlers import hot_sale_id, make_reservation
from api.routing import Route, adapt
from api.upkeep import Upkeep
from engine.admission.limit import Priority
from engine.config import Settings
from engine.core import Engine
from engine.errors import ConfigError
from engine.polling import supervise
from ext import COMPILED

if COMPILED:
    from httptools import HttpRequestParser

    from api.gate import GateDoors
    from ext.gate import Gate, GateConnection

logger = logging.getLogger(__name__)

BACKLOG: Final = 4096  # A crowd connects at once; the kernel's somaxconn bounds it further.
HEADER_LINE_BYTES_MAX: Final = 8190
HEADERS_MAX: Final = 64
GOODBYE_SECONDS: Final = 0.25  # In which kept-alive connections are told "Connection: close".
STOP_SECONDS_MAX: Final = 30.0
STOP_STEP_SECONDS: Final = 0.01

GC_THRESHOLDS: Final = (20_000, 10, 10)  # Some batches' worth of objects; Python's own is 700.

HOT_ROUTE: Final = Route(
    "POST", "/v1/sales/{sale}/reservations", make_reservation, priority=Priority.RESERVE
)


class HttpServer:
    """One process's server. `start`, then `stop`; the engine is its owner's to close."""

    def __init__(self, engine: Engine, listener: socket.socket) -> None:
        if not http_parser.HttpRequestParser.__module__.endswith("_http_parser"):
            raise ConfigError(["aiohttp lacks its compiled parser: install a wheel with it."])
        self.app = make_app(engine)
        self._settings = engine.settings
        self.listener = listener
        self._upkeep = Upkeep(engine, self.app[FRONT].revocations)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Accepts connections when it returns."""
        # Asked once, not per request: before Python 3.12 it costs a system call.
        loop = self._loop = asyncio.get_running_loop()
        settings = self._settings
        self._runner = web.AppRunner(self.app, access_log=None)
        await self._runner.setup()
        assert self._runner.server is not None
        self._server = web.Server(
            _dispatcher(self.app, self._runner.server), request_factory=self._make_request
        )
        self.connections = Connections(
            loop.time,
            connections_max=settings.connections_max,
            per_address_max=settings.connections_per_address_max,
        )
        self.guards = ConnectionGuards(
            self._make_protocol,
            self.connections,
            request_seconds_max=settings.request_seconds_max,
        )
        self.gate = self._make_gate()
        await self._upkeep.start()
        self._listening = await loop.create_server(
            self.gate or self.guards, sock=self.listener, backlog=BACKLOG
        )
        self._tasks = [
            asyncio.create_task(self.connections.run(), name="watch connections"),
            asyncio.create_task(self._flush_counts(), name="flush counts"),
        ]
        if self.gate is not None:
            follow = supervise("Following sales", self._doors.follow_sales, asyncio.Event())
            self._tasks.append(asyncio.create_task(follow, name="follow sales"))

    async def stop(self) -> None:
        """Stops accepting, finishes what is in flight, says goodbye, closes. Idempotent."""
        if not self._tasks:
            return
        tasks, self._tasks = self._tasks, []
        self.app[FRONT].stopping = True
        if self.gate is not None:
            self.gate.stopping = True
        # One more turn takes in what the kernel has accepted already: closing would reset it.
        await asyncio.sleep(0)
        self._listening.close()
        self.app[FRONT].held.stop()
        await self._say_goodbye()
        self._server.pre_shutdown()
        await asyncio.gather(self._server.shutdown(STOP_SECONDS_MAX), self._close_gate())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._upkeep.stop()
        if self.gate is not None:
            self._doors.flush_counts()
        await self._runner.cleanup()

    def _make_gate(self) -> "Gate | None":
        settings = self._settings
        if not settings.gate:
            return None
        if not COMPILED:
            logger.warning(
                "ext/ is not compiled: aiohttp serves alone, at a multiple of the cost. "
                "`pip install .` compiles it.",
                extra={"action": "gate_missing"},
            )
            return None
        self._doors = GateDoors(self.app[FRONT], self.app[ENTRANCE], self.guards)
        return Gate(
            self._doors.straight.take,
            self._doors,
            self.connections,
            HttpRequestParser,
            body_bytes_max=settings.body_bytes_max,
            request_seconds_max=settings.request_seconds_max,
            keepalive_seconds=settings.keepalive_seconds,
        )

    async def _close_gate(self) -> None:
        """Closes the gate's connections once they have their answers."""
        if self.gate is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS_MAX):
                await self._doors.stop()
                while waiting := self._close_idle():
                    logger.debug("%d connections wait for an answer.", waiting)
                    await asyncio.sleep(STOP_STEP_SECONDS)

    def _close_idle(self) -> int:
        """Closes the gate's connections that wait for nothing. Returns how many wait for an answer."""
        mine = [each for each in self.connections.open if isinstance(each, GateConnection)]
        idle = [connection for connection in mine if connection.is_idle()]
        for connection in idle:
            connection.close()
        return len(mine) - len(idle)

    def _make_protocol(self) -> HttpConnection:
        return HttpConnection(
            self._server,
            loop=self._loop,
            keepalive_timeout=self._settings.keepalive_seconds,
            access_log=None,  # type: ignore[arg-type]  # None switches it off.
            logger=quiet,
            max_line_size=HEADER_LINE_BYTES_MAX,
            max_field_size=HEADER_LINE_BYTES_MAX,
            max_headers=HEADERS_MAX,
            auto_decompress=False,
            lingering_time=min(2.0, self._settings.request_seconds_max),
        )

    def _make_request(
        self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any
    ) -> web.BaseRequest:
        self.guards.headers_arrived(protocol, payload)
        if hot_sale_id(message.method, message.path) and "Expect" not in message.headers:
            return web.BaseRequest(message, payload, protocol, writer, task, self._loop)
        assert self._runner.server is not None
        return self._runner.server.request_factory(message, payload, protocol, writer, task)

    async def _say_goodbye(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                while len(self.connections):  # One that is handed over leaves for a moment.
                    await self.connections.empty.wait()

    async def _flush_counts(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            if self.gate is not None:
                self._doors.flush_counts()
            self.app[FRONT].flush()


def _dispatcher(app: web.Application, rest: web.Server) -> Callable[..., Any]:
    """Sends requests made for the hot route to it, and all others to the application."""
    reserve = adapt(app[FRONT], HOT_ROUTE)
    handle_rest: Any = rest.request_handler

    async def dispatch(request: web.BaseRequest) -> web.StreamResponse:
        if type(request) is web.BaseRequest:
            return await reserve(request)
        response: web.StreamResponse = await handle_rest(request)
        return response

    return dispatch


def open_listener(host: str, port: int) -> socket.socket:
    """A TCP socket that shares its port with the other front processes. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def run(
    settings: Settings, listener: socket.socket, ready: Callable[[], None] = lambda: None
) -> None:
    """One front process, from opening the engine until SIGTERM or SIGINT. `ready` is called once
    it serves. Raises ConfigError, RedisUnavailable or StoreUnavailable."""
    raise_open_files_limit()
    calm_garbage_collector()
    uvloop.run(_serve(settings, listener, ready))


async def _serve(settings: Settings, listener: socket.socket, ready: Callable[[], None]) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stopping.set)
    engine = await Engine.open(settings)
    try:
        server = HttpServer(engine, listener)
        await server.start()
        try:
            ready()
            await stopping.wait()
        finally:
            await server.stop()
    finally:
        await engine.close()


def calm_garbage_collector() -> None:
    """Keeps what was loaded for good out of every collection, and collects less often.

    Requests leave next to no cycles; without this, collections cost a tenth of a reservation.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def raise_open_files_limit() -> None:
    """Lets the process open as many connections as the system grants."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard or hard == resource.RLIM_INFINITY:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
