"""Databases of the test run's Postgres: each migrated, empty, and one owner's alone."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from engine.servers import EmbeddedPostgres
from engine.store.migrate import upgrade

TEMPLATE = "doorbuster_template"
database_numbers = itertools.count(1)


@asynccontextmanager
async def fresh_database(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """The URL of a new one, which is gone afterwards."""
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
