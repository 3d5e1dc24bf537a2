"""A served engine on a socket of its own, and a client that speaks to it."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, Self

import aiohttp

from api.app import FRONT
from api.front import Front
from api.server import HttpServer, open_listener
from api.tokens import Role, Tokens
from engine.admission.limit import Priority
from engine.admission.pace import PACE_KEY
from engine.clock import SystemClock
from engine.config import LimitKind, Settings
from engine.connections import connect_redis_blocking, redis_errors
from engine.core import Engine
from engine.drainer import Drainer
from engine.errors import Unavailable
from engine.sales import Sale, parse_sale_document
from engine.store.database import connect
from tests.support.sales import sale_document
from tests.support.waiting import WAIT_SECONDS_MAX

SECRET: Final = "a-secret-for-tests-of-32-characters"
PACE_SAID_SECONDS: Final = 1.0
SANDBOX_SECRET: Final = "another-secret-for-tests-of-32-chars"


@dataclass
class Reply:
    """An answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The problem's code, after checking that it is a proper problem."""
        if self.headers.get("Content-Type") != "application/problem+json":
            return None
        problem = self.json
        assert problem["status"] == self.status, problem
        assert problem["title"]
        assert problem["type"].endswith(problem["code"])
        if self.status in {425, 429, 503}:
            assert 1 <= int(self.headers["Retry-After"]) <= 3600
        return str(problem["code"])


@dataclass
class Served:
    """An engine behind HTTP."""

    engine: Engine
    server: HttpServer
    host: str
    port: int
    session: aiohttp.ClientSession
    tokens: Tokens = field(default_factory=lambda: Tokens(SECRET, SystemClock()))

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def front(self) -> Front:
        return self.server.app[FRONT]

    async def call(
        self,
        method: str,
        path: str,
        *,
        user: str | None = None,
        role: Role = Role.BUYER,
        body: object = None,
        data: bytes | None = None,
        **headers: str,
    ) -> Reply:
        """One call; `body` goes as JSON, `data` as it is. Header names: `idempotency_key=…`."""
        named = {name.replace("_", "-").title(): value for name, value in headers.items()}
        if user is not None:
            named["Authorization"] = f"Bearer {self.tokens.issue(user, role)}"
        if body is not None:
            data = json.dumps(body).encode()
        if data is not None:
            named.setdefault("Content-Type", "application/json")
        async with self.session.request(method, self.url + path, data=data, headers=named) as got:
            return Reply(got.status, got.headers, await got.read())

    async def get(self, path: str, **options: Any) -> Reply:
        return await self.call("GET", path, **options)

    async def post(self, path: str, **options: Any) -> Reply:
        return await self.call("POST", path, **options)

    async def operate(self, path: str, body: object = None, **headers: str) -> Reply:
        """A POST under /v1/admin, as an operator."""
        return await self.call(
            "POST", f"/v1/admin{path}", user="op-1", role=Role.OPERATOR, body=body, **headers
        )

    async def reserve(
        self,
        user: str,
        *,
        sale: str = "demo",
        sku: str = "phone-black",
        quantity: object = 1,
        key: str = "k",
    ) -> Reply:
        body = {"items": [{"sku": sku, "quantity": quantity}]}
        path = f"/v1/sales/{sale}/reservations"
        return await self.post(path, user=user, body=body, idempotency_key=key)

    async def sell(self, sale_id: str = "demo", **changes: Any) -> Sale:
        """Puts a sale up, without HTTP."""
        document = parse_sale_document(sale_document(sale_id, **changes))
        return await self.engine.sales.create(document, "tester")

    async def drain(self) -> None:
        """Stores what is in the streams, as the worker does."""
        assert self.engine.settings.redis_url is not None
        client = connect_redis_blocking(self.engine.settings.redis_url)
        drainer = Drainer(
            client,
            lambda: connect(str(self.engine.settings.postgres_url)),
            self.engine.directory,
            self.engine.clock,
            consumer="worker-0",
            batch_max=1000,
            attempts_max=3,
            claim_idle_seconds=60,
        )
        try:
            while await drainer.drain_once(block_ms=1):
                pass
        finally:
            await drainer.close()
            await client.aclose()

    async def raw(self) -> "RawConnection":
        reader, writer = await asyncio.open_connection(self.host, self.port)
        return RawConnection(reader, writer)


@dataclass
class RawConnection:
    """A socket for those who do not speak proper HTTP."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def rest(self) -> bytes:
        """Everything until the server closes; TimeoutError if it does not."""
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    async def answer(self) -> bytes:
        """One answer's head and body."""
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.partition(b":")[2])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length")
            )
            return head + await self.reader.readexactly(length)


@asynccontextmanager
async def serve(redis_url: str, postgres_url: str, **changes: Any) -> AsyncIterator[Served]:
    """A served engine. `changes` replace settings."""
    settings = Settings(
        **{
            "redis_url": redis_url,
            "postgres_url": postgres_url,
            "secret": SECRET,
            "sandbox_secret": SANDBOX_SECRET,
            "sandbox_url": "http://127.0.0.1:9",
            "throttle_per_second": 10_000,
            "throttle_burst": 10_000,
            "limit": LimitKind.FIXED,  # What a test sends at once is not to be learnt from.
            "shed_hold_seconds": 0.05,  # A moment, and no longer: nobody here asks again at once.
            **changes,
        }
    )
    engine = await Engine.open(settings)
    listener = open_listener("127.0.0.1", 0)
    host, port = listener.getsockname()
    server = HttpServer(engine, listener)
    await server.start()
    stopping = asyncio.Event()
    pacing = asyncio.create_task(keep_pace(engine, stopping))
    connector = aiohttp.TCPConnector(limit=0)
    try:
        async with aiohttp.ClientSession(connector=connector) as session:
            yield Served(engine, server, host, port, session)
    finally:
        stopping.set()
        await pacing
        await server.stop()
        await engine.close()


async def keep_pace(engine: Engine, stopping: asyncio.Event) -> None:
    """Says, as the worker does, that all that is reserved is stored; fronts slow down without it.

    Told to stop, not cancelled: before Python 3.12 `asyncio.wait_for`, by which redis-py sends, may
    swallow that. It would go on, and open a connection of the closed engine's that nobody closes.
    """
    while not stopping.is_set():
        with suppress(Unavailable), redis_errors():
            said = {"per_second": "inf", "hop": "", "at_ms": engine.clock.now_ms()}
            await engine.redis.hset(PACE_KEY, mapping=said)
        with suppress(TimeoutError):
            async with asyncio.timeout(PACE_SAID_SECONDS):
                await stopping.wait()


@contextmanager
def taken(served: Served, priority: Priority) -> Iterator[None]:
    """Every place that such a request could have is taken meanwhile."""
    limit = served.front.limit
    places = list(iter(lambda: limit.try_enter(priority), 0.0))
    yield
    for entered in places:
        limit.leave(priority, entered, False)
