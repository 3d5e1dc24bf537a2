"""Keeps what admission goes by up to date: the pace, operators' rules, void tokens, waiting rooms.

Runs their loops beside the server and stops them after it. Knows nothing of HTTP.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Protocol

from engine.core import Engine
from engine.errors import Unavailable
from engine.polling import supervise

FIRST_LOOK_SECONDS_MAX: Final = 2.0  # A front that cannot look serves all the same.


class Loop(Protocol):
    """A loop whose pass is `refresh_once`."""

    async def run(self) -> None: ...
    async def refresh_once(self) -> int: ...
    def stop(self) -> None: ...


class Upkeep:
    """The loops of one front process."""

    def __init__(self, engine: Engine, revocations: Loop) -> None:
        self._loops: dict[str, Loop] = {
            "The pulse": engine.pulse,
            "Reading access rules": engine.access,
            "Reading revocations": revocations,
            "Following rooms": engine.rooms,
        }
        self._stopped = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Looks once, so that the first request meets what holds now; then goes on looking."""
        await asyncio.gather(*(_look(loop.refresh_once) for loop in self._loops.values()))
        self._tasks = [
            asyncio.create_task(supervise(name, loop.run, self._stopped), name=name)
            for name, loop in self._loops.items()
        ]

    async def stop(self) -> None:
        """Returns when nothing runs any more. Idempotent."""
        self._stopped.set()
        for loop in self._loops.values():
            loop.stop()
        await asyncio.gather(*self._tasks)


async def _look(refresh_once: Callable[[], Awaitable[int]]) -> None:
    with suppress(Unavailable, TimeoutError):
        async with asyncio.timeout(FIRST_LOOK_SECONDS_MAX):
            await refresh_once()
