"""Limits each client's rate, in bounded memory, without ever looking at all clients.

What ext/throttle.pyx does, for one process: plain Python cannot share memory exactly.
"""

from dataclasses import dataclass, field
from typing import Final, Protocol

WAYS: Final = 8
NS: Final = 1_000_000_000
HORIZON: Final = 86_400 * NS  # No bucket takes so long to fill: the clock began anew since.


class _Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds that never go back."""


@dataclass
class _ClientSet:
    marks: list[int | None] = field(default_factory=lambda: [None] * WAYS)
    full_at: list[int] = field(default_factory=lambda: [0] * WAYS)


class ClientTable:
    """Some numbers per client: for `clients_max` of them, and never more memory.

    Where a set of eight is full a newcomer takes the place of the client whose bucket is full
    soonest. A `path` is refused with ValueError.
    """

    shared = False

    def __init__(self, clients_max: int, path: str | None = None) -> None:
        if clients_max < 1:
            raise ValueError(f"no table has room for {clients_max} clients")
        if path is not None:
            raise ValueError("the kernels are not compiled")
        self._last_set = (1 << (-(-clients_max // WAYS) - 1).bit_length()) - 1
        self._sets: dict[int, _ClientSet] = {}

    def __len__(self) -> int:
        """Clients remembered. It looks at all of them."""
        return sum(mark is not None for home in self._sets.values() for mark in home.marks)

    def charge(self, mark: int, now: int, interval: int, tolerance: int) -> int:
        """0 if charged, else the time after which it can be."""
        home = self._sets.setdefault(mark >> 8 & self._last_set, _ClientSet())
        place = home.marks.index(mark) if mark in home.marks else None
        full_at = now
        if place is not None:
            full_at = max(full_at, home.full_at[place])
            if full_at > now + tolerance:  # The clock stepped back: at worst the bucket is empty.
                full_at = home.full_at[place] = now + tolerance
        full_at += interval
        if full_at > now + tolerance:
            return full_at - now - tolerance
        if place is None:
            weights = [at if at <= now + HORIZON else 0 for at in home.full_at]
            place = weights.index(min(weights))
            home.marks[place] = mark
        home.full_at[place] = full_at
        return 0

    def full_at(self, mark: int) -> int:
        """0 for somebody unknown."""
        home = self._sets.get(mark >> 8 & self._last_set)
        return home.full_at[home.marks.index(mark)] if home and mark in home.marks else 0


class Throttle:
    """The generic cell rate algorithm (ITU-T I.371): a bucket of `burst` that refills by itself.

    Per client one number is kept: the time at which its bucket is full again. Throttles of
    different `kind` may share a table. Times are whole nanoseconds of a clock read to the
    microsecond, so sums are exact.
    """

    def __init__(
        self, table: ClientTable, kind: str, clock: _Clock, *, per_second: float, burst: float
    ) -> None:
        if not per_second > 0 or not burst >= 1:
            raise ValueError(f"{burst:g} at once, {per_second:g} per second: nobody could pass")
        self._table = table
        self._kind = kind
        self._clock = clock
        self._interval = max(round(NS / per_second), 1)
        self._tolerance = round(self._interval * burst)

    def admit(self, client: str) -> float:
        """0.0 if admitted, else the seconds after which it will be."""
        mark = self._mark(client)
        return self._table.charge(mark, self._now(), self._interval, self._tolerance) / NS

    def state(self, client: str) -> tuple[int, float]:
        """How many requests would be admitted now, and in how many seconds the bucket is full."""
        missing = self._table.full_at(self._mark(client)) - self._now()
        missing = min(max(missing, 0), self._tolerance)
        return (self._tolerance - missing) // self._interval, missing / NS

    def _mark(self, client: str) -> int:
        return hash((self._kind, client))

    def _now(self) -> int:
        return round(self._clock.monotonic() * 1e6) * 1000
