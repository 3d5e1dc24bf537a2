"""Joins what was copied from Redis with the orders, in temporary tables of one connection."""

from collections.abc import AsyncIterator, Sequence
from importlib.resources import files
from typing import Final, NamedTuple

from engine.store.database import Connection

FIND_SUSPECTS: Final = (files("engine.store") / "statements" / "find_suspects.sql").read_text()
SECONDS_MAX: Final = 300.0  # A million orders take seconds; a loaded machine more.


class Suspect(NamedTuple):
    """One reservation on which Redis and Postgres do not agree at first sight."""

    invariant: int
    reservation_id: str
    user_id: str
    problem: str


async def create_tables(connection: Connection) -> None:
    """`seen`: the buyers' records. `streamed`: what waits in the stream."""
    await connection.execute(
        """
        CREATE TEMP TABLE seen (
            user_id text COLLATE "C" NOT NULL,
            reservation_id text COLLATE "C" NOT NULL,
            state text COLLATE "C" NOT NULL,
            items jsonb NOT NULL
        );
        CREATE TEMP TABLE streamed (reservation_id text COLLATE "C" NOT NULL);
        """
    )


async def drop_tables(connection: Connection) -> None:
    """Undoes `create_tables`, unless the connection is gone and they with it."""
    if not connection.is_closed():
        await connection.execute("DROP TABLE IF EXISTS seen, streamed")


async def copy_seen(connection: Connection, lines: AsyncIterator[bytes]) -> None:
    """Replaces `seen`. Lines as COPY takes them: user, reservation, state, items as JSON."""
    await connection.execute("TRUNCATE seen")
    await connection.copy_to_table("seen", source=lines, timeout=SECONDS_MAX)
    await connection.execute("ANALYZE seen", timeout=SECONDS_MAX)


async def copy_streamed(connection: Connection, lines: AsyncIterator[bytes]) -> None:
    """Replaces `streamed`. Lines: one reservation id each."""
    await connection.execute("TRUNCATE streamed")
    await connection.copy_to_table("streamed", source=lines, timeout=SECONDS_MAX)
    await connection.execute("ANALYZE streamed", timeout=SECONDS_MAX)


async def find_suspects(
    connection: Connection,
    sale_id: str,
    since_ms: int | None,
    only: Sequence[str] | None,
    *,
    rows_max: int,
) -> list[Suspect]:
    """Where `seen` and the orders differ; of `only` these reservations, if given.

    Excused is what an outbox message will still bring to Redis, and, if `seen` began to be read at
    `since_ms`, the orders reserved after that.
    """
    rows = await connection.fetch(
        FIND_SUSPECTS,
        sale_id,
        since_ms,
        only,
        rows_max,
        timeout=SECONDS_MAX,
    )
    return [
        Suspect(int(problem[0]), reservation_id, user_id, problem[2:])
        for reservation_id, user_id, problem in rows
    ]
