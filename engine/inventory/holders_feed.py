"""Hears from Redis which buyers get a record, over one connection for all sales listened to.

Keeps nothing: what was heard is handed on. Knows nothing of stock.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from engine.connections import redis_errors
from engine.errors import RedisUnavailable

ANSWER_SECONDS_MAX: Final = 2.0  # Then the connection is taken for lost.


class Listener(NamedTuple):
    """Who hears of a channel. `lost` is told once; nothing is heard after it."""

    hear: Callable[[bytes], None]
    lost: Callable[[], None]


class _Asked(NamedTuple):
    """A command under way. Redis answers in order, so the first one waiting is the one answered."""

    kind: bytes
    answered: asyncio.Future[None]


class HoldersFeed:
    """Subscriptions to sharded channels. Connects when first needed, and again after a loss."""

    def __init__(self, redis: Redis) -> None:
        self._pool = redis.connection_pool
        self._connection: Any = None
        self._stopped = False
        self._reader: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()
        self._asked: deque[_Asked] = deque()
        self._listeners: dict[bytes, Listener] = {}

    async def listen(self, channel: str, listener: Listener) -> None:
        """Returns once everything published from now on will be heard. Raises RedisUnavailable."""
        name = channel.encode()
        async with self._connecting:
            if self._stopped:
                raise RedisUnavailable("The feed of holders is stopped.")
            if self._connection is None:
                await self._connect()
        self._listeners[name] = listener
        try:
            await self._ask(b"ssubscribe", "SSUBSCRIBE", channel)
        except BaseException:
            self._listeners.pop(name, None)
            raise

    async def catch_up(self) -> None:
        """Returns once everything published before this call was heard. Raises RedisUnavailable.

        Redis writes to a connection in order: its answer comes after what it published there.
        """
        await self._ask(b"pong", "PING")

    async def forget(self, channel: str) -> None:
        """Hears no more of a channel. Its listener is told nothing."""
        if self._listeners.pop(channel.encode(), None) is not None:
            with suppress(RedisUnavailable):
                await self._ask(b"sunsubscribe", "SUNSUBSCRIBE", channel)

    async def stop(self) -> None:
        """Closes the connection for good. Idempotent."""
        self._stopped = True
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()
            await asyncio.wait([reader])
        await self._lose(RedisUnavailable("The feed was stopped."))

    async def _connect(self) -> None:
        # A connection of our own: the pool's are few, and this one is kept. In RESP2 what is
        # published and what is answered come alike, in one order.
        wanted = self._pool.connection_kwargs | {"protocol": 2, "socket_timeout": None}
        connection: Any = self._pool.connection_class(**wanted)
        with redis_errors():
            await connection.connect()
        self._connection = connection
        self._reader = asyncio.create_task(self._read(connection), name="holders feed")

    async def _ask(self, kind: bytes, *command: str) -> None:
        connection = self._connection
        if connection is None:
            raise RedisUnavailable("The feed of holders is not connected.")
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked.append(_Asked(kind, answered))
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                with redis_errors():
                    await connection.send_command(*command, check_health=False)
                await answered
        except BaseException as error:
            # Answers would no longer match what was asked.
            await self._lose(error, connection)
            if isinstance(error, TimeoutError):
                raise RedisUnavailable("Redis did not answer on the feed of holders.") from error
            raise

    async def _read(self, connection: Any) -> None:
        try:
            while True:
                self._take(await connection.read_response(True, timeout=math.inf))
        except (RedisError, OSError, ValueError) as error:
            await self._lose(error, connection)

    def _take(self, reply: Any) -> None:
        """One thing Redis sent. Raises ValueError if it is nothing we wait for."""
        match reply:
            case [b"smessage", channel, text]:
                listener = self._listeners.get(channel)
                if listener is not None:
                    listener.hear(text)
            case [kind, *_] if self._asked and self._asked[0].kind == kind:
                _, answered = self._asked.popleft()
                if not answered.done():
                    answered.set_result(None)
            case _:
                # Redis may end a subscription by itself: the slot moved to another node.
                raise ValueError(f"Redis sent {str(reply)[:100]}")

    async def _lose(self, error: BaseException, connection: Any = None) -> None:
        """Ends a connection, once, and tells everybody who counted on it."""
        if self._connection is None or connection not in {None, self._connection}:
            return
        lost, self._connection = self._connection, None
        asked, self._asked = self._asked, deque()
        listeners, self._listeners = self._listeners, {}
        for listener in listeners.values():
            listener.lost()
        for _, answered in asked:
            if not answered.done():
                answered.set_exception(RedisUnavailable(f"The feed of holders was lost: {error}"))
                answered.exception()  # Whoever asked may have left.
        with suppress(RedisError, OSError):
            await lost.disconnect(nowait=True)
