"""Lets requests through at a rate that may change at any moment. Does not know whose they are."""

from math import inf
from typing import Final, Protocol

ROUNDING: Final = 1e-6  # Sums of binary fractions: who waited as told may miss by a few bits.


class _Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds that never go back."""


class Meter:
    """A token bucket for all comers together. It begins without a limit, which costs nothing.

    The bucket holds at most `burst` and refills at `per_second`; each request takes one. A new rate
    leaves in the bucket what is in it; the first rate after none finds it full.
    """

    def __init__(self, clock: _Clock) -> None:
        self._clock = clock
        self.per_second = inf
        self._burst = inf
        self._level = inf
        self._at = clock.monotonic()

    def set_rate(self, per_second: float, burst: float) -> None:
        """Requests per second and at most at once; infinity is no limit. Raises ValueError."""
        if not (per_second > 0 and burst >= 1):
            raise ValueError("a rate is above 0, and a burst is 1 or more")
        self._refill()
        self.per_second = per_second
        self._burst = burst
        self._level = min(self._level, burst)

    def admit(self) -> float:
        """0.0 if let through, else the seconds after which one more will be."""
        if self.per_second == inf:
            return 0.0
        self._refill()
        if self._level < 1 - ROUNDING:
            return (1 - self._level) / self.per_second
        self._level -= 1
        return 0.0

    def _refill(self) -> None:
        now = self._clock.monotonic()
        if self.per_second == inf:
            self._level = inf
        elif now > self._at:
            self._level = min(self._burst, self._level + (now - self._at) * self.per_second)
        self._at = now
