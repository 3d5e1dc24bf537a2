"""Counts what one drainer stored and how long Postgres took for it. Judges neither."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from engine.clock import Clock

NEWEST_SHARE: Final = 0.3  # Of the mean: a change shows after three statements or so.


class Drained:
    """So far, since the start."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.orders = 0  # Those that were there already included.
        self.entries = 0  # Of the streams.
        self.commit_seconds = 0.0  # A statement with its commit: the mean of the last few.
        self._begun: list[float] = []  # When the statements under way were sent.

    def add(self, orders: int, entries: int) -> None:
        self.orders += orders
        self.entries += entries

    @contextmanager
    def statement(self) -> Iterator[None]:
        """Takes the time of what is stored within, be it in vain."""
        began = self._clock.monotonic()
        self._begun.append(began)
        try:
            yield
        finally:
            self._begun.remove(began)
            seconds = self._clock.monotonic() - began
            self.commit_seconds += (seconds - self.commit_seconds) * NEWEST_SHARE

    @property
    def waited_seconds(self) -> float:
        """How long the oldest statement under way has been waited for; 0 if there is none."""
        return self._clock.monotonic() - min(self._begun) if self._begun else 0.0
