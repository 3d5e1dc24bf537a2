"""Opens connections to Postgres and translates its errors. Knows no table."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import asyncpg
import msgspec

from engine.errors import StoreUnavailable

CONNECT_SECONDS_MAX: Final = 5.0
COMMAND_SECONDS_MAX: Final = 30.0

Connection: TypeAlias = Any  # asyncpg ships no types.
Pool: TypeAlias = Any


async def open_pool(url: str, connections_max: int) -> Pool:
    """A pool whose jsonb columns are Python values. Raises StoreUnavailable."""
    with postgres_errors():
        return await asyncpg.create_pool(
            url,
            min_size=1,
            max_size=connections_max,
            timeout=CONNECT_SECONDS_MAX,
            command_timeout=COMMAND_SECONDS_MAX,
            init=_set_codecs,
        )


async def connect(url: str) -> Connection:
    """One connection of one's own, for a loop. Raises StoreUnavailable."""
    with postgres_errors():
        connection = await asyncpg.connect(
            url, timeout=CONNECT_SECONDS_MAX, command_timeout=COMMAND_SECONDS_MAX
        )
        await _set_codecs(connection)
        return connection


@contextmanager
def postgres_errors() -> Iterator[None]:
    """The one border where asyncpg's connection errors become ours; errors of SQL stay as they are."""
    try:
        yield
    except (
        OSError,
        TimeoutError,
        asyncpg.PostgresConnectionError,
        asyncpg.CannotConnectNowError,
        asyncpg.AdminShutdownError,
        asyncpg.CrashShutdownError,
        asyncpg.TooManyConnectionsError,
        asyncpg.InvalidCatalogNameError,
        asyncpg.InvalidAuthorizationSpecificationError,
        asyncpg.InternalClientError,
        asyncpg.InterfaceError,
    ) as error:
        raise StoreUnavailable(f"Postgres did not answer: {error}") from error


async def _set_codecs(connection: Any) -> None:
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        encoder=lambda value: msgspec.json.encode(value).decode(),
        decoder=msgspec.json.decode,
    )
