"""Opens connections to Postgres and translates its errors. Knows no table."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager
from typing import Any, Final, Protocol, TypeAlias

import asyncpg
import msgspec

from engine.errors import CircuitOpen, StoreUnavailable

CONNECT_SECONDS_MAX: Final = 5.0
COMMAND_SECONDS_MAX: Final = 30.0
ACQUIRE_SECONDS_MAX: Final = 5.0  # For a free connection: a pool that is used up is no answer.

Connection: TypeAlias = Any  # asyncpg ships no types.
Pool: TypeAlias = Any


NO_ANSWER: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.LockNotAvailableError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InternalClientError,
    asyncpg.InterfaceError,
)


class StoreCut(CircuitOpen, StoreUnavailable):
    """Postgres failed so often that it is not asked now. Nothing was done."""


class Guard(Protocol):
    """What a pool needs of engine.admission.breaker.Breaker."""

    def guarding(
        self, failures: tuple[type[BaseException], ...]
    ) -> AbstractContextManager[None]: ...


class BoundedPool(asyncpg.Pool):  # type: ignore[misc]  # asyncpg ships no types.
    """A pool that nobody waits for without end, neither to get a connection nor to give it back.

    With a breaker, nobody waits at all for a Postgres that fails.
    """

    def __init__(self, *urls: str, breaker: Guard | None, **options: Any) -> None:
        super().__init__(*urls, **options)
        self._breaker = breaker

    def acquire(self, *, timeout: float | None = None) -> Any:
        """For `async with`; all of its block counts as one call of Postgres."""
        acquiring = self.acquire_unguarded(timeout=timeout)
        return acquiring if self._breaker is None else _guarded(self._breaker, acquiring)

    def acquire_unguarded(self, *, timeout: float | None = None) -> Any:
        """As `acquire`, past the breaker: for who asks whether Postgres answers."""
        return super().acquire(timeout=timeout or ACQUIRE_SECONDS_MAX)


async def open_pool(url: str, connections_max: int, breaker: Guard | None = None) -> Pool:
    """A pool whose jsonb columns are Python values. Raises StoreUnavailable."""
    with postgres_errors():
        return await BoundedPool(
            url,
            breaker=breaker,
            min_size=1,
            max_size=connections_max,
            max_queries=50_000,  # This and the next as in asyncpg.create_pool.
            max_inactive_connection_lifetime=300.0,
            connection_class=asyncpg.Connection,
            record_class=asyncpg.Record,
            loop=None,
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
    except NO_ANSWER as error:
        raise StoreUnavailable(f"Postgres did not answer: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What to tell of the error; a time-out brings no text of its own."""
    if isinstance(error, TimeoutError):
        return "it took too long."
    return str(error) or type(error).__name__


@asynccontextmanager
async def _guarded(breaker: Guard, acquiring: Any) -> AsyncIterator[Connection]:
    with ExitStack() as guard:
        try:
            guard.enter_context(breaker.guarding((*NO_ANSWER, StoreUnavailable)))
        except CircuitOpen as error:
            raise StoreCut(str(error)) from error
        async with acquiring as connection:
            yield connection


async def _set_codecs(connection: Any) -> None:
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        encoder=lambda value: msgspec.json.encode(value).decode(),
        decoder=msgspec.json.decode,
    )
