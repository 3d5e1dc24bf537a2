"""Finds out whether the servers an engine process needs answer now."""

import asyncio
from typing import Final

from redis.asyncio import Redis

from engine.connections import redis_errors
from engine.errors import Unavailable
from engine.store.database import Pool, postgres_errors

ANSWER_SECONDS_MAX: Final = 1.0  # A probe that waits longer than its prober says nothing.


async def unreachable_servers(redis: Redis, pool: Pool) -> list[str]:
    """The names of those that do not answer: 'redis', 'postgres'. Empty: ready."""
    answers = await asyncio.gather(_redis_answers(redis), _postgres_answers(pool))
    return [
        name for name, answered in zip(("redis", "postgres"), answers, strict=True) if not answered
    ]


async def _redis_answers(redis: Redis) -> bool:
    try:
        with redis_errors():
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                await redis.get("ready?")
    except (Unavailable, TimeoutError):
        return False
    return True


async def _postgres_answers(pool: Pool) -> bool:
    try:
        with postgres_errors():
            # Past the breaker: a probe is to see what is, not what was.
            async with (
                asyncio.timeout(ANSWER_SECONDS_MAX),
                pool.acquire_unguarded() as connection,
            ):
                await connection.fetchval("SELECT 1")
    except (Unavailable, TimeoutError):
        return False
    return True
