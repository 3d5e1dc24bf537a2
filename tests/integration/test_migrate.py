"""The migration runner against real Postgres."""

import asyncio

import pytest

from engine.store import database, migrate
from engine.store.database import Pool, connect
from engine.store.migrate import LOCK_KEY, Migration, MigrationRefused, migrations, pending, upgrade


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


async def test_migration_may_take_longer_than_any_other_statement(
    pool: Pool, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "COMMAND_SECONDS_MAX", 0.1)
    slow = Migration(len(migrations()) + 1, "slow", "SELECT pg_sleep(0.3)")
    known = [*migrations(), slow]
    monkeypatch.setattr(migrate, "migrations", lambda: known)
    connection = await connect(postgres_url)
    async with pool.acquire() as other:  # Another upgrade, which takes its time too.
        await other.execute("SELECT pg_advisory_lock($1)", LOCK_KEY)
        upgrading = asyncio.create_task(upgrade(connection))
        done, _ = await asyncio.wait([upgrading], timeout=0.3)
        assert not done
        await other.execute("SELECT pg_advisory_unlock($1)", LOCK_KEY)
    assert await upgrading == [slow]
    await connection.close()
