"""Counts what one drainer stored and how long Postgres took for it. Judges neither."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from engine.clock import Clock

NEWEST_SHARE: Final = 0.5  # Of the mean: a server that is well again shows after a few statements.
IDLE_SECONDS: Final = 1.0  # Without a statement: what the last ones took says nothing any more.


class Drained:
    """So far, since the start."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.orders = 0  # Those that were there already included.
        self.entries = 0  # Of the streams.
        self._mean_seconds = 0.0  # Of the last few statements …
        self._ended_at = -IDLE_SECONDS  # … of which the newest ended then.
        self._begun: list[float] = []  # When the statements under way were sent.

    def add(self, orders: int, entries: int) -> None:
        self.orders += orders
        self.entries += entries

    @contextmanager
    def statement(self) -> Iterator[None]:
        """Takes the time of what is stored within, be it in vain."""
        if self.is_idle:
            self._mean_seconds = 0.0
        began = self._clock.monotonic()
        self._begun.append(began)
        try:
            yield
        finally:
            self._begun.remove(began)
            self._ended_at = self._clock.monotonic()
            seconds = self._ended_at - began
            share = NEWEST_SHARE if self._mean_seconds else 1.0
            self._mean_seconds += (seconds - self._mean_seconds) * share

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being stored, nor was a moment ago."""
        return not self._begun and self._clock.monotonic() - self._ended_at > IDLE_SECONDS

    @property
    def commit_seconds(self) -> float:
        """A statement with its commit: the mean of the last few; 0 while idle."""
        return 0.0 if self.is_idle else self._mean_seconds

    @property
    def waited_seconds(self) -> float:
        """How long the oldest statement under way has been waited for; 0 if there is none."""
        return self._clock.monotonic() - min(self._begun) if self._begun else 0.0
