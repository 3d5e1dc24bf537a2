"""Real servers for every test: one Valkey and one Postgres per run, emptied for each test."""

import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from hypothesis import settings
from redis.asyncio import Redis

from engine.connections import connect_redis
from engine.servers import EmbeddedPostgres, EmbeddedValkey
from engine.store.database import Pool, open_pool
from engine.store.migrate import upgrade

TEMPLATE = "doorbuster_template"
database_numbers = itertools.count(1)

# A machine that pauses is no failure: no test times anything.
settings.register_profile("calm", deadline=None)
settings.load_profile("calm")


@pytest.fixture(scope="session")
def server_dir() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="doorbuster-test-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def valkey(server_dir: Path) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(server_dir)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres(server_dir: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(server_dir)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def redis(valkey: EmbeddedValkey) -> AsyncIterator[Redis]:
    """A client of an empty Valkey."""
    client = connect_redis(valkey.url, 5)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def postgres_url(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """The URL of a migrated, empty database of this test's own."""
    admin = await asyncpg.connect(postgres.url_of("postgres"))
    name = f"test_{next(database_numbers)}"
    try:
        if not await admin.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", TEMPLATE):
            await admin.execute(f"CREATE DATABASE {TEMPLATE}")
            template = await asyncpg.connect(postgres.url_of(TEMPLATE))
            try:
                await upgrade(template)
            finally:
                await template.close()
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        yield postgres.url_of(name)
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[Pool]:
    async with await open_pool(postgres_url, 8) as pool:
        yield pool
