"""Opens the connections to Redis and translates its errors. Knows no key and no script."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from engine.config import Durability, Settings
from engine.errors import ConfigError, RedisUnavailable

logger = logging.getLogger(__name__)

CONNECTIONS_MAX: Final = 16  # One per sale in flight and a few for reads; waiting is bounded too.
BLOCKING_SECONDS_MAX: Final = 5.0  # Far above any BLOCK; a server that hangs is noticed.
# Error words of a server that is there but cannot serve now; nothing was written.
CANNOT_SERVE: Final = ("NOREPLICAS", "MISCONF", "OOM", "READONLY", "LOADING", "MASTERDOWN", "BUSY")


def connect_redis(url: str, timeout_seconds: float) -> Redis:
    """A client that never repeats a command by itself: a script may have run before its reply was lost."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS_MAX,
        timeout=timeout_seconds,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
    )
    return Redis.from_pool(pool)


def connect_redis_blocking(url: str) -> Redis:
    """A client for the short blocking reads of one loop, so that they hold nobody else up."""
    return connect_redis(url, BLOCKING_SECONDS_MAX)


@contextmanager
def redis_errors() -> Iterator[None]:
    """The one border where redis-py's errors become ours. A script error that is a bug stays as it is."""
    try:
        yield
    except (RedisConnectionError, RedisTimeoutError, OSError) as error:
        raise RedisUnavailable(f"Redis did not answer: {error}") from error
    except ResponseError as error:
        if str(error).startswith(CANNOT_SERVE):
            raise RedisUnavailable(f"Redis cannot serve: {error}") from error
        raise


async def verify_durability(redis: Redis, settings: Settings) -> None:
    """Holds the server's configuration against the promised mode; ConfigError where it falls short.

    A managed server may hide CONFIG; then the operator's word is taken, and said in the log.
    """
    try:
        with redis_errors():
            found = await redis.config_get("append*", "min-replicas-to-write", "maxmemory-policy")
    except ResponseError:
        logger.warning("Redis hides CONFIG: durability %s is taken on trust.", settings.durability)
        return
    values = {_text(key): _text(value) for key, value in found.items()}
    if problems := _shortfalls(values, settings.durability):
        raise ConfigError(problems)


def _shortfalls(values: dict[str, str], durability: Durability) -> list[str]:
    problems = []
    if values.get("appendonly") != "yes":
        problems.append("Redis keeps nothing on disk: set appendonly yes.")
    elif durability is Durability.STRICT and values.get("appendfsync") != "always":
        problems.append(
            "Durability strict needs appendfsync always on Redis; "
            "set it, or choose DOORBUSTER_DURABILITY=balanced."
        )
    if durability is Durability.REPLICATED and values.get("min-replicas-to-write", "0") == "0":
        problems.append("Durability replicated needs min-replicas-to-write 1 or more on Redis.")
    if values.get("maxmemory-policy", "noeviction") != "noeviction":
        problems.append("Redis may evict stock: set maxmemory-policy noeviction.")
    return problems


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


async def server_run_id(redis: Redis) -> str:
    """The id Redis gives itself at each start."""
    with redis_errors():
        info = await redis.info("server")
    return str(info["run_id"])
