"""Remembers what was loaded for a short time and loads each key once at a time. Bounded."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, NamedTuple, TypeVar

from engine.clock import Clock
from engine.errors import Unavailable

Value = TypeVar("Value")


class Kept(NamedTuple, Generic[Value]):
    """A value and when it was asked for: it is at least as new as that."""

    value: Value
    at: float


class ShortMemory(Generic[Value]):
    """Values by key. All who ask for one at the same time share one load; none can cancel it.

    A source that is away is bridged with the last known value for `stale_seconds_max`.
    """

    def __init__(
        self,
        load: Callable[[str], Awaitable[Value]],
        clock: Clock,
        *,
        fresh_seconds: Callable[[Value], float],
        stale_seconds_max: float,
        keys_max: int,
    ) -> None:
        self._load = load
        self._clock = clock
        self._fresh_seconds = fresh_seconds
        self._stale_seconds_max = stale_seconds_max
        self._keys_max = keys_max
        self._kept: dict[str, Kept[Value]] = {}
        self._loading: dict[str, asyncio.Task[Value]] = {}

    def peek(self, key: str) -> Value | None:
        """The value if it is fresh."""
        kept = self._kept.get(key)
        if kept is None or self._age(kept) >= self._fresh_seconds(kept.value):
            return None
        return kept.value

    async def get(self, key: str) -> Value:
        """The value, loaded if it is not fresh. Raises what the load raises."""
        kept = self._kept.get(key)
        if kept is not None and self._age(kept) < self._fresh_seconds(kept.value):
            return kept.value
        task = self._loading.get(key)
        if task is None:
            task = asyncio.create_task(self._reload(key), name=f"load {key}")
            self._loading[key] = task
            task.add_done_callback(lambda done: self._finish(key, done))
        return await asyncio.shield(task)

    def forget(self, key: str) -> None:
        """The next `get` loads anew, even if a load is under way."""
        self._kept.pop(key, None)
        self._loading.pop(key, None)

    async def _reload(self, key: str) -> Value:
        asked_at = self._clock.monotonic()
        task = asyncio.current_task()
        try:
            value = await self._load(key)
        except Unavailable:
            kept = self._kept.get(key)
            if kept is None or self._age(kept) >= self._stale_seconds_max:
                raise
            return kept.value
        if self._loading.get(key) is task:
            self._keep(key, Kept(value, asked_at))
        return value

    def _keep(self, key: str, kept: Kept[Value]) -> None:
        self._kept.pop(key, None)
        while len(self._kept) >= self._keys_max:
            del self._kept[next(iter(self._kept))]  # The one loaded longest ago.
        self._kept[key] = kept

    def _finish(self, key: str, task: asyncio.Task[Value]) -> None:
        if self._loading.get(key) is task:
            del self._loading[key]
        if not task.cancelled():
            # Those who waited may have left; asyncio would report the error as never read.
            task.exception()

    def _age(self, kept: Kept[Value]) -> float:
        return self._clock.monotonic() - kept.at
