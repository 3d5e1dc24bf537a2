"""Deals jobs out over a few Postgres connections, one at a time to each. Knows no job's content."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeAlias

from engine.store.database import Connection


class Lane:
    """A connection of one's own, opened when it is first needed and again when it was lost."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._connect = connect
        self._connection: Connection | None = None

    async def connection(self) -> Connection:
        """Raises StoreUnavailable."""
        if not self.is_connected():
            self._connection = await self._connect()
        return self._connection

    def is_connected(self) -> bool:
        return self._connection is not None and not self._connection.is_closed()

    async def close(self) -> None:
        """Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


Job: TypeAlias = Callable[[Lane], Awaitable[None]]


class Lanes:
    """`async with lanes:` deals jobs out; at its end every one of them is done.

    A job that raises ends the dealing: `deal` or the end raises the same. Those beside it finish first;
    only when the dealer itself is cancelled, they are.
    """

    def __init__(self, connect: Callable[[], Awaitable[Connection]], count: int) -> None:
        self._lanes = [Lane(connect) for _ in range(count)]
        # The last one used comes first: connections that are not needed are not opened.
        self._free = self._lanes[::-1]
        self._jobs: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    async def __aenter__(self) -> Self:
        assert not self._jobs, "these lanes are in use"
        self._failure = None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if isinstance(error, asyncio.CancelledError):
            self._cancel()
        await self._finish()
        if error is None and self._failure is not None:
            raise self._failure

    async def deal(self, job: Job) -> None:
        """Starts the job on the next lane that is free."""
        if not self._free:
            await asyncio.wait(self._jobs, return_when=asyncio.FIRST_COMPLETED)
        if self._failure is not None:
            raise self._failure
        lane = self._free.pop()
        task = asyncio.create_task(self._work(job, lane))
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    async def close(self) -> None:
        """Gives the connections back. Idempotent."""
        for lane in self._lanes:
            await lane.close()

    async def _work(self, job: Job, lane: Lane) -> None:
        try:
            await job(lane)
        except BaseException as error:  # The dealer raises it.
            self._failure = self._failure or error
        finally:
            self._free.append(lane)

    async def _finish(self) -> None:
        cancelled: asyncio.CancelledError | None = None
        while self._jobs:
            try:
                await asyncio.wait(self._jobs)
            except asyncio.CancelledError as error:
                cancelled = error
                self._cancel()
        if cancelled is not None:
            raise cancelled

    def _cancel(self) -> None:
        for task in self._jobs:
            task.cancel()
