"""One RESP connection for the reserve calls: bytes out, replies in, in order. Knows no script.

redis-py packs and awaits a call of 128 reservations in some 200 µs; this takes a tenth of it
(benchmarks/test_kernels.py). Everything else stays with redis-py.
"""

import asyncio
from collections import deque
from ssl import SSLContext
from typing import Any, Final, Protocol, cast

import hiredis
from redis.asyncio import ConnectionPool, Redis, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

TIMEOUT_SECONDS: Final = 2.0  # Where the client has none of its own.
_LOST: Final = "The connection was lost; what was asked may have been done."


class Link(Protocol):
    """A way to call Redis with a command in RESP."""

    async def call(self, command: bytes) -> Any:
        """The reply to one command; an error reply is a ResponseError, returned.

        Raises redis-py's ConnectionError and TimeoutError, and OSError.
        """

    def close(self) -> None:
        """Idempotent."""


class PooledLink:
    """Calls Redis over whatever connection redis-py's pool has free."""

    def __init__(self, redis: Redis) -> None:
        self._pool = redis.connection_pool

    async def call(self, command: bytes) -> Any:
        connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.send_packed_command([command])
            return await connection.read_response()
        except ResponseError as error:
            return error
        finally:
            await self._pool.release(connection)

    def close(self) -> None:
        """The pool is its owner's to close."""


class RedisLink:
    """Calls Redis over one connection that is opened when it is needed.

    After a call that timed out or was lost, the next one opens another connection: no reply can
    reach the wrong caller. Never repeats a call.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        to = redis.connection_pool.connection_kwargs
        self._timeout_seconds: float = to.get("socket_timeout") or TIMEOUT_SECONDS
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()

    async def call(self, command: bytes) -> Any:
        """See Link."""
        connection = None
        try:
            async with asyncio.timeout(self._timeout_seconds):
                connection = self._connection
                if connection is None or not connection.is_open:
                    connection = await self._connected()
                return await connection.call(command)
        except TimeoutError:
            if connection is not None:
                connection.close()  # A late reply must not answer the next call.
            raise RedisTimeoutError("No reply in time.") from None

    def close(self) -> None:
        """Idempotent; a later call opens a connection again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def _connected(self) -> "_Connection":
        async with self._connecting:
            if self._connection is None or not self._connection.is_open:
                self._connection = await _open(self._redis)
        return self._connection


class _Connection(asyncio.Protocol):
    """One connection and the callers that wait on it, oldest first."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=ResponseError)
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def call(self, command: bytes) -> asyncio.Future[Any]:
        """A future of the reply. One that is cancelled leaves its place to the reply all the same."""
        if self._transport is None:
            raise RedisConnectionError(_LOST)
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append(answer)
        self._transport.write(command)
        return answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                answer = self._waiting.popleft()
                if not answer.done():
                    answer.set_result(reply)
        except (hiredis.ProtocolError, IndexError):
            self.close()  # What comes is no RESP, or nobody asked for it.

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's.
        self._transport = None
        while self._waiting:
            answer = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(RedisConnectionError(_LOST))


async def _open(redis: Redis) -> _Connection:
    """A connection to where the client's pool leads, logged in, on its database."""
    pool = redis.connection_pool
    to: dict[str, Any] = pool.connection_kwargs
    loop = asyncio.get_running_loop()
    if issubclass(pool.connection_class, UnixDomainSocketConnection):
        _, connection = await loop.create_unix_connection(_Connection, to["path"])
    else:
        host, port = to.get("host", "localhost"), int(to.get("port", 6379))
        tls = _tls_context(pool) if _is_tls(pool) else None
        _, connection = await loop.create_connection(_Connection, host, port, ssl=tls)
    try:
        for command in _greetings(to):
            reply = await connection.call(hiredis.pack_command(command))  # type: ignore[arg-type]
            if isinstance(reply, ResponseError):
                raise RedisConnectionError(f"{command[0]} was refused: {reply}")
    except BaseException:
        connection.close()
        raise
    return connection


def _is_tls(pool: ConnectionPool) -> bool:
    return issubclass(pool.connection_class, SSLConnection)


def _tls_context(pool: ConnectionPool) -> SSLContext:
    """The context that redis-py makes of its own settings."""
    connection = pool.make_connection()  # type: ignore[no-untyped-call]
    return cast("SSLContext", connection.ssl_context.get())


def _greetings(to: dict[str, Any]) -> list[tuple[str, ...]]:
    commands: list[tuple[str, ...]] = []
    if to.get("password"):
        user = (to["username"],) if to.get("username") else ()
        commands.append(("AUTH", *user, to["password"]))
    if to.get("db"):
        commands.append(("SELECT", str(to["db"])))
    return commands
