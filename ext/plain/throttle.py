"""Limits each client's rate, in bounded memory, without ever looking at all clients."""

from typing import Final, Protocol

ROUNDING: Final = 1e-6  # Sums of binary fractions: the last of a burst may miss by a few bits.


class _Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds that never go back."""


class Throttle:
    """The generic cell rate algorithm (ITU-T I.371): a bucket of `burst` that refills by itself.

    Per client one number is kept: the time at which its bucket would be full again. Memory is
    bounded by two generations of `clients_max`; a client is forgotten only after that many others
    came, and a forgotten client has a full bucket.
    """

    def __init__(self, clock: _Clock, *, per_second: float, burst: float, clients_max: int) -> None:
        self._clock = clock
        self._began = clock.monotonic()  # Small numbers keep sums of fractions exact enough.
        self._interval = 1 / per_second
        self._tolerance = self._interval * burst
        self._clients_max = clients_max
        self._recent: dict[str, float] = {}
        self._older: dict[str, float] = {}

    def __len__(self) -> int:
        """Clients remembered."""
        return len(self._recent) + len(self._older)

    def admit(self, client: str) -> float:
        """0.0 if admitted, else the seconds after which it will be."""
        now = self._clock.monotonic() - self._began
        full_at = self._recent.get(client) or self._older.get(client, 0.0)
        full_at = max(full_at, now) + self._interval
        excess = full_at - now - self._tolerance
        if excess > self._interval * ROUNDING:
            return excess
        self._recent[client] = full_at
        if len(self._recent) >= self._clients_max:
            self._older, self._recent = self._recent, {}
        return 0.0
