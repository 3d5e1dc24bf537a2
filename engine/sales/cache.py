"""Remembers what was loaded for a short time and loads each key once at a time. Bounded."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, NamedTuple, TypeVar

from engine.clock import Clock
from engine.errors import Unavailable

PATIENCE_SECONDS: Final = 0.1  # How long a load is waited for if an older copy will do.
REST_SECONDS: Final = 1.0  # After a load that failed, before the next while an older copy will do.

Value = TypeVar("Value")


class Kept(NamedTuple, Generic[Value]):
    """A value and when it was asked for: it is at least as new as that."""

    value: Value
    at: float
    rests_until: float = 0.0  # Not loaded again before.


class Load(NamedTuple, Generic[Value]):
    """A load under way and when it began."""

    task: asyncio.Task[Value]
    at: float


class ShortMemory(Generic[Value]):
    """Values by key. All who ask for one at the same time share one load; none can cancel it.

    A source that is slow or away is bridged with the last known value for `stale_seconds`; 0 says
    that only a fresh value will do.
    """

    def __init__(
        self,
        load: Callable[[str], Awaitable[Value]],
        clock: Clock,
        *,
        fresh_seconds: Callable[[Value], float],
        stale_seconds: Callable[[Value], float],
        keys_max: int,
    ) -> None:
        self._load = load
        self._clock = clock
        self._fresh_seconds = fresh_seconds
        self._stale_seconds = stale_seconds
        self._keys_max = keys_max
        self._kept: dict[str, Kept[Value]] = {}
        self._loading: dict[str, Load[Value]] = {}

    def peek(self, key: str) -> Value | None:
        """The value if it is fresh."""
        kept = self.peek_kept(key)
        return kept.value if kept is not None else None

    def peek_kept(self, key: str) -> Kept[Value] | None:
        """The value and when it was asked for, if it is fresh."""
        kept = self._kept.get(key)
        return kept if kept is not None and self._is_fresh(kept) else None

    async def renew(self, key: str) -> None:
        """Loads the value, fresh or not, or waits for a load under way. Raises what the load raises."""
        await asyncio.shield(self._loaded(key).task)

    async def get(self, key: str) -> Value:
        """The value, loaded if it is not fresh. Raises what the load raises.

        Where an older copy will do, it waits for the load at most PATIENCE_SECONDS, all together.
        """
        kept = self._kept.get(key)
        if kept is not None and self._is_fresh(kept):
            return kept.value
        if kept is None or not self._will_do(kept):
            return await asyncio.shield(self._loaded(key).task)
        if self._clock.monotonic() < kept.rests_until:
            return kept.value
        load = self._loaded(key)
        patience = PATIENCE_SECONDS - (self._clock.monotonic() - load.at)
        if patience > 0:
            await asyncio.wait([load.task], timeout=patience)
        return load.task.result() if load.task.done() else kept.value

    def forget(self, key: str) -> None:
        """The next `get` loads anew, even if a load is under way."""
        self._kept.pop(key, None)
        self._loading.pop(key, None)

    def _loaded(self, key: str) -> Load[Value]:
        """The load under way, begun if there is none."""
        load = self._loading.get(key)
        if load is None:
            task = asyncio.create_task(self._reload(key), name=f"load {key}")
            load = self._loading[key] = Load(task, self._clock.monotonic())
            task.add_done_callback(lambda done: self._finish(key, done))
        return load

    async def _reload(self, key: str) -> Value:
        asked_at = self._clock.monotonic()
        try:
            value = await self._load(key)
        except Unavailable:
            kept = self._kept.get(key)
            if kept is None or not self._will_do(kept):
                raise
            if self._is_current(key):
                rested = self._clock.monotonic() + REST_SECONDS
                self._kept[key] = kept._replace(rests_until=rested)
            return kept.value
        if self._is_current(key):
            self._keep(key, Kept(value, asked_at))
        return value

    def _is_current(self, key: str) -> bool:
        """Whether the load that asks was not forgotten meanwhile."""
        load = self._loading.get(key)
        return load is not None and load.task is asyncio.current_task()

    def _keep(self, key: str, kept: Kept[Value]) -> None:
        self._kept.pop(key, None)
        while len(self._kept) >= self._keys_max:
            del self._kept[self._least_needed()]
        self._kept[key] = kept

    def _least_needed(self) -> str:
        """A key that leads nowhere, so that guessed names evict no real one; else the oldest."""
        empty = (key for key, kept in self._kept.items() if kept.value is None)
        return next(empty, None) or next(iter(self._kept))

    def _finish(self, key: str, task: asyncio.Task[Value]) -> None:
        load = self._loading.get(key)
        if load is not None and load.task is task:
            del self._loading[key]
        if not task.cancelled():
            # Those who waited may have left; asyncio would report the error as never read.
            task.exception()

    def _is_fresh(self, kept: Kept[Value]) -> bool:
        return self._age(kept) < self._fresh_seconds(kept.value)

    def _will_do(self, kept: Kept[Value]) -> bool:
        return self._age(kept) < self._stale_seconds(kept.value)

    def _age(self, kept: Kept[Value]) -> float:
        return self._clock.monotonic() - kept.at
