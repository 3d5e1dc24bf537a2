"""Tries the servers somebody named, quickly, and says in one sentence what is wrong with one."""

import asyncpg
from redis.exceptions import RedisError

from engine.config import Settings, mask_url
from engine.connections import connect_redis, redis_errors, server_run_id, verify_durability
from engine.errors import ConfigError, DoorbusterError
from engine.store.database import connect


async def reach_redis(settings: Settings) -> None:
    """Raises ConfigError unless the given Redis answers and keeps what the mode promises."""
    url = settings.redis_url
    assert url is not None
    try:
        redis = connect_redis(url, settings.redis_timeout_seconds)
        try:
            with redis_errors():
                await redis.ping()
            await verify_durability(redis, settings)
        finally:
            await redis.aclose()
    except ConfigError:
        raise
    except (DoorbusterError, RedisError, ValueError) as error:
        raise _unreachable("DOORBUSTER_REDIS_URL", url, error) from error


async def redis_run_id(settings: Settings) -> str:
    """The id that the Redis which runs now gave itself. Raises RedisUnavailable."""
    assert settings.redis_url is not None
    redis = connect_redis(settings.redis_url, settings.redis_timeout_seconds)
    try:
        return await server_run_id(redis)
    finally:
        await redis.aclose()


async def reach_postgres(settings: Settings) -> None:
    """Raises ConfigError unless the given Postgres lets us into the database."""
    url = settings.postgres_url
    assert url is not None
    try:
        connection = await connect(url)
        await connection.close()
    except (DoorbusterError, asyncpg.PostgresError, ValueError) as error:
        raise _unreachable("DOORBUSTER_POSTGRES_URL", url, error) from error


def _unreachable(variable: str, url: str, error: Exception) -> ConfigError:
    detail = " ".join(str(error).split()) or type(error).__name__
    return ConfigError([f"{variable}={mask_url(url)}: {detail}"])
