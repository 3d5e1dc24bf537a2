"""Real servers for every test: one Valkey and one Postgres per run, emptied for each test."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from redis.asyncio import Redis

from engine.connections import connect_redis
from engine.servers import EmbeddedPostgres, EmbeddedValkey
from engine.store.database import Pool, open_pool
from tests.support.databases import fresh_database

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
    async with fresh_database(postgres) as url:
        yield url


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[Pool]:
    async with await open_pool(postgres_url, 8) as pool:
        yield pool
