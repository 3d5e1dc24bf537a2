"""Hands in time, so that nothing in the engine asks the machine for it."""

import time
from typing import Protocol


class Clock(Protocol):
    """Where the engine reads the time."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch: business time, may step."""

    def monotonic(self) -> float:
        """Seconds that never go back: for durations only."""


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    monotonic = staticmethod(time.monotonic)


class ManualClock:
    """A clock that moves only when told to. For tests and simulations."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic(self) -> float:
        return self._now_ms / 1000

    def advance(self, *, seconds: float) -> None:
        self._now_ms += int(seconds * 1000)
