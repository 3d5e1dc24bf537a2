"""Foresees how a room will be served, and how many units those who wait will find.

Pure: learns from looks alone. What it means for one place is computed in ext/room.pyx.
"""

import math
from typing import Final, NamedTuple

from engine.admission.room.buying import Average, Buying
from engine.admission.room.future import Outset, Segment, foreseen
from engine.admission.room.settings import RoomSettings
from engine.admission.room.store import RoomLook
from engine.model import SaleState

FAST_SECONDS: Final = 5.0  # What holds for the next moments: the average of so long.
SLOW_SECONDS: Final = 60.0  # What holds later.
NEAR_SECONDS: Final = 10.0  # How far the fast average is believed.
PRIOR_SECONDS: Final = 2.0  # Until so much was measured, the expected pace makes up for it.
LEAVING_SECONDS: Final = 120.0  # Absence shows once per absent_seconds: an average of several.
# As serve.lua passes places that were deserted: …
SKIP_FACTOR: Final = 4.0  # so many times the pace …
SKIP_FREE: Final = 1024.0  # … and so many more per turn.
TURNS_PER_FRONT: Final = 10.0  # Turns per second: every front looks each 100 ms …
TURNS_MAX: Final = 20.0  # … and 50 ms lie between two of them at least.
LEAVING_MAX: Final = 0.05  # Per second: half are gone in 14 s. More is no queue, but a fault.
LOOK_SECONDS_MAX: Final = 5.0  # After a longer gap nothing is concluded from the difference.
FORESEE_SECONDS: Final = 0.5  # Not oftener: running ahead takes half a millisecond.
DOUBT_MIN: Final = 0.05  # Relative: buyers to come need not be as those before.
DOUBT_PEOPLE: Final = 20.0  # What is known of buyers before the first one.


class Outlook(NamedTuple):
    """What a room's front needs to answer a poll. See ext/room.pyx for the formulas."""

    segments: tuple[Segment, ...]  # from the opening or from now on; then nothing is foreseen
    places_per_second: float  # at most, however many of them are deserted
    leaving: float  # of those who wait, per second
    variation: float  # of the people served per second, relative to their mean
    steady_seconds: float  # how long a deviation from the mean lasts
    supply: float  # units that are or come back, on average …
    supply_variance: float  # … and its variance
    take: float  # units per admitted person, on average …
    take_variance: float  # … its variance from one to the next …
    take_doubt: float  # … and the relative standard deviation of the average itself
    undecided: float  # people admitted who have neither reserved nor let it be


class Wobble:
    """How much the people served per second vary, second by second."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._people = 0.0
        self._mean = Average(SLOW_SECONDS)
        self._square = Average(SLOW_SECONDS)

    def add(self, people: float, seconds: float) -> None:
        self._people += people
        self._seconds += seconds
        if self._seconds >= 1:
            rate = self._people / self._seconds
            self._mean.add(rate, 1, 1)
            self._square.add(rate * rate, 1, 1)
            self._people = self._seconds = 0.0

    def value(self) -> float:
        mean = self._mean.value()
        if mean <= 0:
            return 0.0
        return math.sqrt(max(0.0, self._square.value() - mean * mean)) / mean


class Forecast:
    """One room's."""

    def __init__(self) -> None:
        self._last: RoomLook | None = None
        self._expected = 0.0
        self._turns = TURNS_PER_FRONT
        self._fast = Average(FAST_SECONDS)
        self._slow = Average(SLOW_SECONDS)
        self._wobble = Wobble()
        self._left = Average(LEAVING_SECONDS)
        self._buying = Buying()
        self._settings = RoomSettings()
        self._segments: tuple[Segment, ...] = ()
        self._foreseen_ms = 0

    def expect(self, settings: RoomSettings, pace: float, fronts: int = 1) -> None:
        """The room's settings, the people per second it may be served at (inf: unlimited), and by whom."""
        self._settings = settings
        self._turns = min(TURNS_MAX, fronts * TURNS_PER_FRONT)
        pace = min(pace, settings.pace_max or math.inf)
        self._expected = pace if math.isfinite(pace) else 0.0

    def learn(self, look: RoomLook) -> Outlook:
        """What a look adds. An older look than the last one adds nothing, unless the clock was set."""
        last = self._last
        seconds = math.inf if last is None else (look.now_ms - last.now_ms) / 1000
        if last is not None and 0 < seconds <= LOOK_SECONDS_MAX:
            self._learn_between(last, look, seconds)
        if seconds > 0 or seconds < -LOOK_SECONDS_MAX:
            self._buying.keep(look, self._settings.admission_seconds)
            self._last = look
        if abs(look.now_ms - self._foreseen_ms) >= FORESEE_SECONDS * 1000:
            self._foreseen_ms = look.now_ms
            self._segments = self._foresee(look)
        return self._outlook(look)

    def _learn_between(self, last: RoomLook, look: RoomLook, seconds: float) -> None:
        self._buying.learn(last, look, seconds)
        if _was_pacing(last):
            self._fast.add(look.rate * seconds, seconds, seconds)
            self._slow.add(look.rate * seconds, seconds, seconds)
            self._wobble.add(look.rate * seconds, seconds)
        if last.drawn == look.drawn:  # At the draw attendance begins anew.
            came = max(0, look.issued - last.issued)
            served = max(0, look.admitted - last.admitted)
            left = last.waiting + came - served - look.waiting
            self._left.add(left, last.waiting * seconds, seconds)

    def _foresee(self, look: RoomLook) -> tuple[Segment, ...]:
        if look.state not in {SaleState.OPEN, None}:
            return ()
        expected = self._expected or look.rate
        weight = max(0.0, PRIOR_SECONDS - self._slow.over) if expected > 0 else 0.0
        slow = self._slow.value(expected, weight)
        if slow <= 0:
            return ()  # Nothing was served yet, and nobody knows how fast it will be.
        buying, checkout = self._buying, self._buying.checkout
        outset = Outset(
            now_s=look.now_ms / 1000,
            opens_s=look.opens_at_ms / 1000,
            history=tuple(buying.history),
            deciding=buying.deciding,
            admitted=look.admitted,
            used=look.used,
            available=look.available,
            buyers=checkout.share() * checkout.undecided,
            fast=self._fast.value(expected, weight),
            slow=slow,
            buying=checkout.share(),
            checkout_seconds=checkout.seconds,
            units_per_buyer=buying.units_per_buyer(),
            returning=buying.returning(),
            admission_seconds=self._settings.admission_seconds,
            over_admission=self._settings.over_admission,
        )
        return foreseen(outset, NEAR_SECONDS)

    def _outlook(self, look: RoomLook) -> Outlook:
        checkout, units = self._buying.checkout, self._buying.units_per_buyer()
        take = checkout.share() * units
        spread = units * units + units * (units - 1)  # E[x²] of a geometric number of units.
        comeback = self._buying.comeback()
        return Outlook(
            segments=self._segments,
            places_per_second=SKIP_FACTOR * self._slow.value(self._expected, PRIOR_SECONDS)
            + SKIP_FREE * self._turns,
            leaving=min(LEAVING_MAX, max(0.0, self._left.value())),
            variation=self._wobble.value(),
            steady_seconds=FAST_SECONDS,
            supply=look.available + look.reserved * comeback,
            supply_variance=look.reserved * comeback * (1 - comeback) * units,
            take=take,
            take_variance=checkout.share() * spread - take * take,
            take_doubt=DOUBT_MIN + 1 / math.sqrt(checkout.decided() + DOUBT_PEOPLE),
            undecided=checkout.undecided,
        )


def _was_pacing(look: RoomLook) -> bool:
    """Whether people could be served: then the rate says how fast, and 0 that storing lags."""
    opened = look.now_ms >= look.opens_at_ms
    return look.on and opened and look.state is SaleState.OPEN and look.available > 0
