"""The migration runner against real Postgres."""

import pytest

from engine.store.database import Pool
from engine.store.migrate import MigrationRefused, migrations, pending, upgrade


async def test_upgrade_applies_each_migration_once(pool: Pool) -> None:
    async with pool.acquire() as connection:
        assert await upgrade(connection) == []
        assert await pending(connection) == []


async def test_edited_history_is_refused(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await connection.execute("UPDATE schema_history SET checksum = 'edited' WHERE version = 1")
        with pytest.raises(MigrationRefused, match="edited after it was applied"):
            await upgrade(connection)


async def test_database_newer_than_the_program_is_refused(pool: Pool) -> None:
    unknown = len(migrations()) + 1
    async with pool.acquire() as connection:
        await connection.execute(
            "INSERT INTO schema_history (version, name, checksum) VALUES ($1, 'later', '')", unknown
        )
        with pytest.raises(MigrationRefused, match="newer than the program"):
            await pending(connection)
