"""Foresees how a room will be served, and how many units those who wait will find.

Pure: learns from looks alone. What it foresees for one place is computed in ext/room.pyx.
"""

import math
from collections import deque
from typing import Final, NamedTuple

from engine.admission.room.settings import RoomSettings
from engine.admission.room.store import RoomLook
from engine.model import SaleState

FAST_SECONDS: Final = 5.0  # What holds for the next moments: the average of so long.
SLOW_SECONDS: Final = 60.0  # What holds later.
NEAR_SECONDS: Final = 10.0  # How far the fast average is believed.
PRIOR_SECONDS: Final = 2.0  # An expected pace weighs as much as so long a measurement.
LEAVING_SECONDS: Final = 120.0  # Absence shows once per absent_seconds: an average of several.
RETURN_SECONDS: Final = 300.0  # Units come back one by one.
LOOK_SECONDS_MAX: Final = 5.0  # After a longer gap nothing is concluded from the difference.
CHECKOUT_SECONDS: Final = 10.0  # Mean time from admission to reservation of those who buy.
BUYING_PRIOR: Final = 0.8  # Share of the admitted who reserve, before it was seen.
COMEBACK_PRIOR: Final = 0.1  # Share of reserved units that come back, before it was seen.
PRIOR_PEOPLE: Final = 20.0  # The weight of what is assumed, in people …
PRIOR_UNITS: Final = 50.0  # … and in units.
DOUBT_MIN: Final = 0.05  # Relative: buyers to come need not be as those before.
HISTORY_MAX: Final = 64  # Moments within admission_seconds that are remembered.

Segment = tuple[float, float]  # for so many seconds, so many people per second


class Outlook(NamedTuple):
    """What a room's front needs to answer a poll. See ext/room.pyx for the formulas."""

    segments: tuple[Segment, ...]  # from now on; after the last nothing is foreseen
    leaving: float  # of those who wait, per second
    variation: float  # of the people served per second, relative to their mean
    steady_seconds: float  # how long a deviation from the mean lasts
    supply: float  # units that are or come back, on average …
    supply_variance: float  # … and its variance
    take: float  # units per admitted person, on average …
    take_variance: float  # … its variance from one to the next …
    take_doubt: float  # … and the relative standard deviation of the average itself
    undecided: float  # people admitted who have neither reserved nor let it be


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


class Forecast:
    """One room's."""

    def __init__(self) -> None:
        self._last: RoomLook | None = None
        self._expected = 0.0
        self._fast = Average(FAST_SECONDS)
        self._slow = Average(SLOW_SECONDS)
        self._wobble = Wobble()
        self._left = Average(LEAVING_SECONDS)
        self._stock = StockMemory()
        self._admission_seconds = RoomSettings().admission_seconds
        self._over_admission = RoomSettings().over_admission

    def expect(self, settings: RoomSettings, pace: float) -> None:
        """The room's settings, and the people per second it may be served at (inf: unlimited)."""
        self._admission_seconds = settings.admission_seconds
        self._over_admission = settings.over_admission
        pace = min(pace, settings.pace_max or math.inf)
        self._expected = pace if math.isfinite(pace) else 0.0

    def learn(self, look: RoomLook) -> Outlook:
        """What a look adds. An older look than the last one adds nothing."""
        last = self._last
        if last is None or look.now_ms > last.now_ms:
            seconds = 0.0 if last is None else (look.now_ms - last.now_ms) / 1000
            if last is not None and seconds <= LOOK_SECONDS_MAX:
                self._learn_between(last, look, seconds)
            self._stock.keep(look, self._admission_seconds)
            self._last = look
        return self._outlook(look)

    def _learn_between(self, last: RoomLook, look: RoomLook, seconds: float) -> None:
        served = max(0, look.admitted - last.admitted)
        self._stock.learn(last, look, seconds)
        if self._was_busy(last, look):
            self._fast.add(served, seconds, seconds)
            self._slow.add(served, seconds, seconds)
            self._wobble.add(served, seconds)
        if last.drawn == look.drawn:  # At the draw attendance begins anew.
            came = max(0, look.issued - last.issued)
            left = last.waiting + came - served - look.waiting
            self._left.add(left, last.waiting * seconds, seconds)

    def _was_busy(self, last: RoomLook, look: RoomLook) -> bool:
        """Whether people were served as fast as the pace allows: not for want of people or units."""
        return (
            last.now_ms >= look.opens_at_ms
            and look.state is SaleState.OPEN
            and look.waiting > 0
            and last.available > 0
            and self._stock.people_allowed(last, self._over_admission) > 0
        )

    def _outlook(self, look: RoomLook) -> Outlook:
        stock = self._stock
        buying, units = stock.buying(), stock.units_per_buyer()
        take = buying * units
        spread = units * units + units * (units - 1)  # of a geometric number of units
        comeback = stock.comeback()
        return Outlook(
            segments=self._segments(look),
            leaving=max(0.0, self._left.value()),
            variation=self._wobble.value(),
            steady_seconds=FAST_SECONDS,
            supply=look.available + look.reserved * comeback,
            supply_variance=look.reserved * comeback * (1 - comeback) * units,
            take=take,
            take_variance=buying * spread - take * take,
            take_doubt=DOUBT_MIN + 1 / math.sqrt(stock.decided() + PRIOR_PEOPLE),
            undecided=stock.undecided,
        )

    def _segments(self, look: RoomLook) -> tuple[Segment, ...]:
        if look.state not in {SaleState.OPEN, None}:
            return ()
        expected = look.rate if 0 < look.rate < math.inf else self._expected
        weight = PRIOR_SECONDS if expected > 0 else 0.0
        slow = self._slow.value(expected, weight)
        fast = self._fast.value(expected, weight)
        returning = self._stock.returning()
        if slow <= 0 and returning <= 0:
            return ()
        found = self._while_stocked(look, max(fast, slow / 4), slow) if slow > 0 else []
        return (*found, (math.inf, returning)) if returning > 0 else tuple(found)

    def _while_stocked(self, look: RoomLook, fast: float, slow: float) -> list[Segment]:
        """At the pace until the stock rule holds people back, then as the admitted give up."""
        stock = self._stock
        take = stock.buying() * stock.units_per_buyer()
        enough = max(0.0, look.available / take - stock.undecided)
        allowed = min(enough, stock.people_allowed(look, self._over_admission))
        near = min(NEAR_SECONDS, allowed / fast)
        segments = [(near, fast), ((allowed - near * fast) / slow, slow)]
        if allowed < enough:
            lapsing = slow * (1 - stock.buying())
            segments += [
                (stock.until_lapse(look, self._admission_seconds, sum(s for s, _ in segments)), 0),
                ((enough - allowed) / lapsing, lapsing),
            ]
        return segments


class Wobble:
    """How much the people served per second vary, second by second."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._served = 0.0
        self._mean = Average(SLOW_SECONDS)
        self._square = Average(SLOW_SECONDS)

    def add(self, served: float, seconds: float) -> None:
        self._served += served
        self._seconds += seconds
        if self._seconds >= 1:
            rate = self._served / self._seconds
            self._mean.add(rate, 1, 1)
            self._square.add(rate * rate, 1, 1)
            self._served = self._seconds = 0.0

    def value(self) -> float:
        mean = self._mean.value()
        if mean <= 0:
            return 0.0
        return math.sqrt(max(0.0, self._square.value() - mean * mean)) / mean


class StockMemory:
    """What became of the admitted and of units, from the differences of looks."""

    def __init__(self) -> None:
        self.undecided = 0.0
        self._admitted = 0.0
        self._used = 0.0
        self._taken = 0.0
        self._returned = 0.0
        self._sold = 0.0
        self._returning = Average(RETURN_SECONDS)
        self._history: deque[tuple[int, int, int]] = deque(maxlen=HISTORY_MAX + 1)
        self._outstanding = 0.0

    def learn(self, last: RoomLook, look: RoomLook, seconds: float) -> None:
        admitted = max(0, look.admitted - last.admitted)
        used = max(0, look.used - last.used)
        restocked = stocked(look) - stocked(last)
        # Within one look some come and some go; what is seen is their difference.
        moved = look.available - last.available - restocked
        self._admitted += admitted
        self._used += used
        self._taken += max(0, -moved)
        self._returned += max(0, moved)
        self._sold += max(0, look.sold - last.sold)
        self._returning.add(max(0, moved), seconds, seconds)
        # Those who buy do so after an exponential time.
        self.undecided = self.undecided * math.exp(-seconds / CHECKOUT_SECONDS) + admitted

    def keep(self, look: RoomLook, admission_seconds: int) -> None:
        """Remembers who was outstanding when: admitted within admission_seconds, not reserved."""
        step_ms = 1000 * admission_seconds // HISTORY_MAX
        if not self._history or look.now_ms - self._history[-1][0] >= step_ms:
            self._history.append((look.now_ms, look.admitted, look.used))
        while len(self._history) > 1 and self._history[1][0] <= look.now_ms - (
            1000 * admission_seconds
        ):
            self._history.popleft()
        _, admitted, used = self._history[0]
        self._outstanding = max(0, look.admitted - admitted - (look.used - used))

    def decided(self) -> float:
        return max(0.0, self._admitted - self.undecided)

    def buying(self) -> float:
        """The share of the admitted who reserve."""
        share = (self._used + BUYING_PRIOR * PRIOR_PEOPLE) / (self.decided() + PRIOR_PEOPLE)
        return min(share, 1.0)

    def units_per_buyer(self) -> float:
        return max(1.0, (self._taken + PRIOR_PEOPLE) / (self._used + PRIOR_PEOPLE))

    def comeback(self) -> float:
        """The share of reserved units that come back."""
        resolved = self._returned + self._sold + PRIOR_UNITS
        return (self._returned + COMEBACK_PRIOR * PRIOR_UNITS) / resolved

    def returning(self) -> float:
        """People per second who can be served from units that come back."""
        return self._returning.value() / (self.buying() * self.units_per_buyer())

    def people_allowed(self, look: RoomLook, over_admission: float) -> float:
        """People served from now until the stock rule holds the next one back (see serve.lua).

        Each one served adds himself to the outstanding, unless he reserves: then he lowers what is
        available instead.
        """
        limit = over_admission * look.available / self.units_per_buyer()
        buying = self.buying()
        return max(0.0, (limit - self._outstanding) / (1 - buying + over_admission * buying))

    def until_lapse(self, look: RoomLook, admission_seconds: int, seconds: float) -> float:
        """Seconds, counted after `seconds`, until the first outstanding admissions lapse."""
        served = next((at for at, admitted, _ in self._history if admitted < look.admitted), None)
        began_ms = look.now_ms if served is None else served
        return max(0.0, (began_ms - look.now_ms) / 1000 + admission_seconds - seconds)


def stocked(look: RoomLook) -> int:
    return look.available + look.reserved + look.sold
