"""Brings the schema up to date: numbered SQL files, run once each, in order, never edited after."""

from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from typing import Final

from engine.errors import DoorbusterError
from engine.store.database import Connection, postgres_errors

LOCK_KEY: Final = 0x64_6F_6F_72  # "door": two processes that upgrade at once take turns.

SECONDS_MAX: Final = 7 * 86_400.0  # Large tables take their time; asyncpg knows no "without end".

HISTORY: Final = """
CREATE TABLE IF NOT EXISTS schema_history (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


class MigrationRefused(DoorbusterError):
    """The database's history and the files disagree. Nothing was changed."""


@dataclass(frozen=True)
class Migration:
    """One file of engine/store/sql."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return sha256(self.sql.encode()).hexdigest()


def migrations() -> list[Migration]:
    """All migrations, oldest first, numbered 1, 2, 3 …"""
    folder = files("engine.store").joinpath("sql")
    found = sorted(
        (
            Migration(int(file.name[:4]), file.name.removesuffix(".sql"), file.read_text())
            for file in folder.iterdir()
            if file.name.endswith(".sql")
        ),
        key=lambda migration: migration.version,
    )
    assert [m.version for m in found] == list(range(1, len(found) + 1)), (
        "a number is missing or double"
    )
    return found


async def upgrade(connection: Connection) -> list[Migration]:
    """Applies what is missing, each in a transaction of its own. Returns what was applied."""
    with postgres_errors():
        # However long another process upgrades, and however long a migration of large tables takes.
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK_KEY, timeout=SECONDS_MAX)
        try:
            await connection.execute(HISTORY)
            missing = await pending(connection)
            for migration in missing:
                async with connection.transaction():
                    await connection.execute(migration.sql, timeout=SECONDS_MAX)
                    await connection.execute(
                        "INSERT INTO schema_history (version, name, checksum) VALUES ($1, $2, $3)",
                        migration.version,
                        migration.name,
                        migration.checksum,
                    )
            return missing
        finally:
            await connection.execute("SELECT pg_advisory_unlock($1)", LOCK_KEY)


async def pending(connection: Connection) -> list[Migration]:
    """Migrations not applied yet. Raises MigrationRefused if applied ones were edited or are unknown."""
    with postgres_errors():
        if not await connection.fetchval("SELECT to_regclass('schema_history')"):
            return migrations()
        rows = await connection.fetch("SELECT version, name, checksum FROM schema_history")
    known = {migration.version: migration for migration in migrations()}
    for row in rows:
        migration = known.pop(row["version"], None)
        if migration is None:
            raise MigrationRefused(
                f"The database has migration {row['name']}, which this version does not know: "
                "it is newer than the program."
            )
        if migration.checksum != row["checksum"]:
            raise MigrationRefused(
                f"Migration {migration.name} was edited after it was applied; add a new one instead."
            )
    return sorted(known.values(), key=lambda migration: migration.version)
