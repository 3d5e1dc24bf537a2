"""Learns from looks what became of the admitted, and of the units: who buys, how soon, how much, what comes back."""

import math
from collections import deque
from typing import Final, NamedTuple

from engine.admission.room.store import RoomLook

BUYING_PRIOR: Final = 0.8  # Share of the admitted who reserve, before it was seen.
COMEBACK_PRIOR: Final = 0.1  # Share of reserved units that come back, before it was seen.
PRIOR_PEOPLE: Final = 20.0  # The weight of what is assumed, in people …
PRIOR_UNITS: Final = 50.0  # … and in units.
CHECKOUT_SECONDS: Final = (8.0, 1.0, 2.0, 4.0, 16.0, 32.0)  # Tried, the likeliest first.
BETTER: Final = 0.7  # Of the squared error; the first seconds are mostly chance.
BIN_SECONDS: Final = 1.0  # Each is judged by what it foretold of so long.
FORGET_SECONDS: Final = 60.0
RETURN_SECONDS: Final = 120.0  # Units come back one by one.
HISTORY_PARTS: Final = 16  # Into which serve.lua cuts the time to reserve.
PATIENCE_PARTS: Final = 5  # Of that time: its patience with those who were admitted.


class Average:
    """An exponentially forgetting average of amounts over some measure, mostly time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.amount = 0.0
        self.over = 0.0

    def add(self, amount: float, over: float, seconds: float) -> None:
        kept = math.exp(-seconds / self._seconds)
        self.amount = self.amount * kept + amount
        self.over = self.over * kept + over

    def value(self, prior: float = 0.0, weight: float = 0.0) -> float:
        total = self.over + weight
        return (self.amount + prior * weight) / total if total > 0 else 0.0


class Standing(NamedTuple):
    """How many had been admitted, and how many of them had reserved, at a moment."""

    at_s: float
    admitted: float
    used: float


class Checkout:
    """The buyers, if the time from admission to reservation is exponential with this mean."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.undecided = 0.0  # Admitted, neither reserved nor known to let it be.
        self._admitted = 0.0
        self._used = 0.0
        self._error = Average(FORGET_SECONDS)

    def learn(self, admitted: float, used: float, seconds: float) -> None:
        foretold = self.share() * self.undecided * -math.expm1(-seconds / self.seconds)
        self._error.add((used - foretold) ** 2, 1, seconds)
        self._admitted += admitted
        self._used += used
        self.undecided = self.undecided * math.exp(-seconds / self.seconds) + admitted

    def share(self) -> float:
        """Of the admitted, who reserve."""
        decided = self.decided() + PRIOR_PEOPLE
        return min(1.0, (self._used + BUYING_PRIOR * PRIOR_PEOPLE) / decided)

    def decided(self) -> float:
        return max(0.0, self._admitted - self.undecided)

    def error(self) -> float:
        return self._error.value()


class Buying:
    """What one room's looks say of buyers and of units."""

    def __init__(self) -> None:
        self._checkouts = [Checkout(seconds) for seconds in CHECKOUT_SECONDS]
        self._admitted = self._used = self._seconds = 0.0  # of the bin
        self._buyers = self._taken = self._returned = self._sold = 0.0
        self._returning = Average(RETURN_SECONDS)
        self.history: deque[Standing] = deque()
        self.deciding = 0.0  # Weight of all who were admitted: less, the longer ago.
        self._kept: Standing | None = None

    @property
    def checkout(self) -> Checkout:
        """The one that foretold best: another than the likeliest only if it is clearly better."""
        likely, best = self._checkouts[0], min(self._checkouts, key=Checkout.error)
        return best if best.error() < BETTER * likely.error() else likely

    def learn(self, last: RoomLook, look: RoomLook, seconds: float) -> None:
        """The difference that two looks make."""
        used = max(0, look.used - last.used)
        # Within one look some units come and some go; what is seen is their difference.
        moved = look.available - last.available - (stocked(look) - stocked(last))
        self._buyers += used
        self._taken += max(0, -moved)
        self._returned += max(0, moved)
        self._sold += max(0, look.sold - last.sold)
        self._returning.add(max(0, moved), seconds, seconds)
        self._admitted += max(0, look.admitted - last.admitted)
        self._used += used
        self._seconds += seconds
        if self._seconds >= BIN_SECONDS:
            for checkout in self._checkouts:
                checkout.learn(self._admitted, self._used, self._seconds)
            self._admitted = self._used = self._seconds = 0.0

    def keep(self, look: RoomLook, admission_seconds: float) -> None:
        """Remembers what serve.lua does of the admitted: it goes by who may still reserve."""
        standing = Standing(look.now_ms / 1000, look.admitted, look.used)
        self._weigh(standing, admission_seconds / PATIENCE_PARTS)
        while self.history and self.history[-1].at_s > standing.at_s:
            self.history.pop()  # The clock was set back.
        remember(self.history, standing, admission_seconds)

    def _weigh(self, standing: Standing, patience_seconds: float) -> None:
        last, self._kept = self._kept, standing
        if last is not None:
            seconds = max(0.0, standing.at_s - last.at_s)
            self.deciding *= math.exp(-seconds / patience_seconds)
            self.deciding += max(0.0, standing.admitted - last.admitted)

    def units_per_buyer(self) -> float:
        return max(1.0, (self._taken + PRIOR_PEOPLE) / (self._buyers + PRIOR_PEOPLE))

    def comeback(self) -> float:
        """The share of reserved units that come back."""
        resolved = self._returned + self._sold + PRIOR_UNITS
        return (self._returned + COMEBACK_PRIOR * PRIOR_UNITS) / resolved

    def returning(self) -> float:
        """Units per second that come back."""
        return self._returning.value()


def remember(history: deque[Standing], standing: Standing, admission_seconds: float) -> None:
    """Keeps what was true at the beginnings of the last parts of the time to reserve, oldest first."""
    while len(history) > 1 and history[1].at_s <= standing.at_s - admission_seconds:
        history.popleft()
    if not history or standing.at_s - history[-1].at_s >= admission_seconds / HISTORY_PARTS:
        history.append(standing)


def stocked(look: RoomLook) -> int:
    """Units put up in all."""
    return look.available + look.reserved + look.sold
