"""What has to be true of the servers before anybody may buy: reached, migrated, inspected, seeded.

Each step returns the sentences to tell the operator. Starts no process.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from api.demo.shop import seed
from engine.config import Settings
from engine.core import Engine
from engine.fence import Fence
from engine.reach import reach_postgres, reach_redis
from engine.store.database import Connection, connect, postgres_errors
from engine.store.fences import mark_server_stopped
from engine.store.migrate import upgrade

ACTOR = "up"  # in the audit log


async def reach_servers(settings: Settings) -> None:
    """Raises ConfigError, one sentence, if a server that was named cannot be used."""
    if settings.redis_url is not None:
        await reach_redis(settings)
    if settings.postgres_url is not None:
        await reach_postgres(settings)


async def prepare(settings: Settings, *, demo: bool) -> list[str]:
    """Brings schema, fences and demo shop to what they have to be."""
    told = await _upgrade(settings)
    async with _engine(settings) as engine:
        told += await _inspect(engine)
        if demo and (made := await seed(engine, ACTOR)):
            told.append(f"Loaded the demo shop: {', '.join(made)}.")
    return told


async def inspect_servers(settings: Settings) -> list[str]:
    """Shuts the sales whose stock a server that came back has lost."""
    async with _engine(settings) as engine:
        return await _inspect(engine)


async def note_clean_stop(settings: Settings, run_id: str) -> None:
    """That Redis server was stopped by us, with everything on disk."""
    async with _connection(settings) as connection:
        with postgres_errors():
            await mark_server_stopped(connection, run_id)


async def _inspect(engine: Engine) -> list[str]:
    fence = Fence(engine.redis, engine.pool, engine.inventory, engine.settings.durability)
    return [
        f"Sale {verdict.sale_id} is shut: {verdict.reason}. "
        f"Run `doorbuster recover {verdict.sale_id}`."
        for verdict in await fence.inspect()
        if not verdict.intact
    ]


async def _upgrade(settings: Settings) -> list[str]:
    async with _connection(settings) as connection:
        return [f"Applied migration {done.name}." for done in await upgrade(connection)]


@asynccontextmanager
async def _connection(settings: Settings) -> AsyncIterator[Connection]:
    assert settings.postgres_url is not None
    connection = await connect(settings.postgres_url)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def _engine(settings: Settings) -> AsyncIterator[Engine]:
    engine = await Engine.open(settings)
    try:
        yield engine
    finally:
        await engine.close()
