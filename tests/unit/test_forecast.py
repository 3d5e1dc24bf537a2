"""What is foreseen of a room follows from what was seen of it."""

import math
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.admission.room.buying import BUYING_PRIOR, COMEBACK_PRIOR, Average, Buying, Standing
from engine.admission.room.forecast import LEAVING_MAX, Forecast, Outlook
from engine.admission.room.future import SEGMENTS_MAX, Outset, foreseen
from engine.admission.room.settings import RoomOrder, RoomSettings
from engine.admission.room.store import RoomLook
from engine.model import SaleState

OPENS_MS = 1_700_000_000_000
STEP_MS = 100
SETTINGS = RoomSettings(on=True, admission_seconds=60, over_admission=1.2)


def look(at_s: float = 0.0, **changes: Any) -> RoomLook:
    """So many seconds after the opening."""
    usual = RoomLook(
        now_ms=OPENS_MS + round(at_s * 1000),
        revision=1,
        on=True,
        order=RoomOrder.FIFO,
        issued=100_000,
        serving=0,
        drawn=None,
        seed=None,
        rate=0.0,
        admitted=0,
        used=0,
        available=1_000_000,
        reserved=0,
        sold=0,
        opens_at_ms=OPENS_MS,
        closes_at_ms=OPENS_MS + 3_600_000,
        state=SaleState.OPEN,
        waiting=100_000,
        mark=0,
    )
    return usual._replace(**changes)


class Rush:
    """A room that is served at a pace: some of the admitted buy after a while, some units come back."""

    def __init__(
        self,
        pace: float,
        *,
        share: float = 0.7,
        checkout_seconds: float = 4.0,
        units_each: int = 1,
        comeback: float = 0.0,
        leaving: float = 0.0,
    ) -> None:
        self.random = Random(11)
        self.pace, self.share, self.units_each = pace, share, units_each
        self.checkout_seconds, self.comeback, self.leaving = checkout_seconds, comeback, leaving
        self.now = look(rate=pace)
        self.buyers = 0.0
        self.waiting = float(self.now.waiting)

    def looks(self, seconds: float) -> Iterator[RoomLook]:
        for _ in range(round(seconds * 1000 / STEP_MS)):
            self.now = self.step(STEP_MS / 1000)
            yield self.now

    def step(self, seconds: float) -> RoomLook:
        now = self.now
        served = int(self.pace * seconds + self.random.random())
        buying = sum(self.random.random() < self.share for _ in range(served))
        hurry = 1 - math.exp(-seconds / self.checkout_seconds)
        used = sum(self.random.random() < hurry for _ in range(int(self.buyers)))
        self.buyers += buying - used
        resolved = min(now.reserved, int(now.reserved * seconds / 5 + self.random.random()))
        back = sum(self.random.random() < self.comeback for _ in range(resolved))
        self.waiting = self.waiting * math.exp(-self.leaving * seconds) - served
        units = used * self.units_each
        return now._replace(
            now_ms=now.now_ms + STEP_MS,
            admitted=now.admitted + served,
            serving=now.serving + served,
            used=now.used + used,
            available=now.available - units + back,
            reserved=now.reserved + units - resolved,
            sold=now.sold + resolved - back,
            waiting=round(self.waiting),
        )


def after(rush: Rush, seconds: float) -> Outlook:
    forecast = Forecast()
    forecast.expect(SETTINGS, math.inf)
    outlook = forecast.learn(rush.now)
    for seen in rush.looks(seconds):
        outlook = forecast.learn(seen)
    return outlook


def bought(rush: Rush, seconds: float) -> Buying:
    buying, last = Buying(), rush.now
    for seen in rush.looks(seconds):
        buying.learn(last, seen, STEP_MS / 1000)
        last = seen
    return buying


# How fast people are served.


def test_before_the_opening_the_expected_pace_is_foreseen() -> None:
    forecast = Forecast()
    forecast.expect(SETTINGS, 40.0)
    assert forecast.learn(look(-600)).segments[0][1] == pytest.approx(40)


def test_a_sales_own_ceiling_bounds_what_is_expected() -> None:
    forecast = Forecast()
    forecast.expect(RoomSettings(on=True, pace_max=25), 40.0)
    assert forecast.learn(look(-600)).segments[0][1] == pytest.approx(25)


def test_a_pace_nobody_knows_promises_nothing() -> None:
    forecast = Forecast()
    forecast.expect(SETTINGS, math.inf)
    assert forecast.learn(look(-600)).segments == ()


@pytest.mark.parametrize("state", [SaleState.PAUSED, SaleState.CLOSED, SaleState.DRAINING])
def test_while_nobody_may_buy_nothing_is_promised(state: SaleState) -> None:
    forecast = Forecast()
    forecast.expect(SETTINGS, 40.0)
    assert forecast.learn(look(10, state=state)).segments == ()


def test_a_pace_that_fell_is_believed_for_the_moment_and_later_ones_are_the_average() -> None:
    forecast = Forecast()
    forecast.expect(SETTINGS, math.inf)
    for tenth in range(600):
        forecast.learn(look(tenth / 10, rate=100.0))
    for tenth in range(600, 650):
        outlook = forecast.learn(look(tenth / 10, rate=50.0))
    near, far = outlook.segments[0][1], outlook.segments[-1][1]
    assert 50 < near < 75
    assert 90 < far < 100
    assert outlook.variation > 0.05


def test_a_steady_pace_does_not_vary() -> None:
    assert after(Rush(50), 30).variation < 0.01


def test_a_gap_in_the_looks_and_a_clock_set_back_teach_nothing() -> None:
    forecast = Forecast()
    forecast.expect(SETTINGS, math.inf)
    for tenth in range(100):
        kept = forecast.learn(look(tenth / 10, rate=100.0))
    for odd in (look(2000, rate=1.0), look(-5000, rate=1.0), look(5, rate=1.0)):
        assert forecast.learn(odd).segments[0][1] == pytest.approx(kept.segments[0][1], rel=0.01)


def test_who_leaves_is_foreseen() -> None:
    assert after(Rush(50, leaving=0.002), 120).leaving == pytest.approx(0.002, rel=0.1)
    assert after(Rush(50), 120).leaving < 0.0001


def test_after_the_clock_was_set_back_learning_goes_on() -> None:
    forecast = Forecast()
    forecast.expect(SETTINGS, math.inf)
    for tenth in range(100):
        forecast.learn(look(4000 + tenth / 10, rate=100.0))
    for tenth in range(600):
        outlook = forecast.learn(look(400 + tenth / 10, rate=10.0))
    assert outlook.segments[0][1] == pytest.approx(10, rel=0.01)


def test_everybody_gone_at_once_is_still_a_number() -> None:
    forecast = Forecast()
    forecast.expect(SETTINGS, 40.0)
    forecast.learn(look(10))
    assert forecast.learn(look(10.1, waiting=0)).leaving == LEAVING_MAX


def test_places_are_passed_as_fast_as_the_turns_allow() -> None:
    forecast = Forecast()
    forecast.expect(SETTINGS, 100.0)
    assert forecast.learn(look(-600)).places_per_second == pytest.approx(4 * 100 + 1024 * 10)
    forecast.expect(SETTINGS, 100.0, fronts=8)
    assert forecast.learn(look(-600)).places_per_second == pytest.approx(4 * 100 + 1024 * 20)


# Who buys.


@pytest.mark.parametrize("seconds", [2.0, 8.0, 16.0])
def test_how_long_buyers_take_is_learned(seconds: float) -> None:
    checkout = bought(Rush(100, checkout_seconds=seconds), 120).checkout
    assert checkout.seconds == seconds
    assert checkout.share() == pytest.approx(0.7, abs=0.03)


def test_what_was_not_seen_is_assumed() -> None:
    buying = Buying()
    assert buying.checkout.share() == BUYING_PRIOR
    assert buying.comeback() == COMEBACK_PRIOR
    assert buying.units_per_buyer() == 1
    assert buying.returning() == 0


def test_units_per_buyer_and_units_that_come_back_are_learned() -> None:
    buying = bought(Rush(100, units_each=3), 120)
    assert buying.units_per_buyer() == pytest.approx(3, rel=0.05)
    assert after(Rush(100, units_each=3), 60).take == pytest.approx(2.1, rel=0.1)


def test_a_comeback_is_seen_when_nothing_else_moves() -> None:
    buying, last = Buying(), look(reserved=1000, available=0)
    for second in range(1, 101):
        seen = last._replace(
            available=last.available + 3, reserved=last.reserved - 10, sold=last.sold + 7
        )
        buying.learn(last, seen._replace(now_ms=OPENS_MS + second * 1000), 1.0)
        last = seen
    assert buying.comeback() == pytest.approx(0.3, abs=0.02)
    assert buying.returning() == pytest.approx(3, rel=0.01)


def test_a_restock_is_no_comeback() -> None:
    buying = Buying()
    buying.learn(look(), look(1, available=1_000_500), 1.0)
    assert buying.returning() == 0
    assert buying.comeback() == COMEBACK_PRIOR


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=50))
def test_an_average_of_equal_spans_lies_between_its_values(values: list[float]) -> None:
    average = Average(10.0)
    for value in values:
        average.add(value, 1, 1)
    assert min(values) - 1e-6 <= average.value() <= max(values) + 1e-6


# The stock rule, run ahead.


def outset(**changes: Any) -> Outset:
    usual = Outset(
        now_s=1000.0,
        opens_s=1000.0,
        history=(),
        deciding=0.0,
        admitted=0.0,
        used=0.0,
        available=1000.0,
        buyers=0.0,
        fast=10.0,
        slow=10.0,
        buying=1.0,
        checkout_seconds=5.0,
        units_per_buyer=1.0,
        returning=0.0,
        admission_seconds=60.0,
        over_admission=1.2,
    )
    return usual._replace(**changes)


def people_in(segments: tuple[tuple[float, float], ...]) -> float:
    return sum(seconds * rate for seconds, rate in segments)


def test_if_everybody_buys_the_pace_holds_until_the_units_end() -> None:
    segments = foreseen(outset(), 10)
    assert segments[0] == (pytest.approx(100, abs=6), 10)
    assert 1000 <= people_in(segments) <= 1200  # Over-admission: the last of them come too late.


def test_if_half_buy_serving_slows_to_what_the_patience_with_the_others_frees() -> None:
    segments = foreseen(outset(buying=0.5, fast=50.0, slow=50.0), 10)
    (seconds, pace), *rest = segments
    rates = [rate for _, rate in segments]
    assert pace == 50
    # From when 50/s x 12 s x (1 - exp(-t / 12 s)) are weighed against 1.2 x (1000 - 25/s x (t - 5 s)).
    assert seconds == pytest.approx(27, abs=3)
    assert rates == sorted(rates, reverse=True)
    assert all(rate > 0 for _, rate in rest)  # Slower and slower, but nobody stands still.
    assert people_in(segments) == pytest.approx(2000, rel=0.1)


def test_those_undecided_now_are_waited_for_as_long_as_the_patience_lasts() -> None:
    standing = (Standing(995.0, 0.0, 0.0), Standing(1000.0, 1200.0, 0.0))
    start = outset(history=standing, admitted=1200.0, fast=500.0, slow=500.0)
    fresh, stale = (foreseen(start._replace(deciding=weight), 10) for weight in (1200.0, 120.0))
    # A twelfth of their weight wanes per second; some of those who follow buy at once.
    assert fresh[0][1] == pytest.approx(1200 / 12, rel=0.2)
    assert stale[0][1] == 500


def test_who_was_admitted_weighs_less_from_look_to_look() -> None:
    buying = Buying()
    for second, admitted in ((0, 0), (1, 100), (13, 100), (12, 100), (24, 130)):
        buying.keep(look(second, admitted=admitted), admission_seconds=60)
    # A patience of 12 s: once over to 13, and again from 12, where the clock was set back to.
    assert buying.deciding == pytest.approx(100 * math.exp(-2) + 30)


def test_units_that_come_back_are_sold_again() -> None:
    segments = foreseen(outset(available=0.0, returning=2.0), 10)
    assert people_in(segments) == pytest.approx(2 * sum(s for s, _ in segments), rel=0.05)


@given(
    st.builds(
        outset,
        available=st.floats(0, 1e6),
        buyers=st.floats(0, 1e4),
        fast=st.floats(0.1, 1e6),
        slow=st.floats(0.1, 1e6),
        buying=st.floats(0.01, 1),
        checkout_seconds=st.sampled_from((1.0, 8.0, 32.0)),
        units_per_buyer=st.floats(1, 20),
        returning=st.floats(0, 100),
        admission_seconds=st.integers(10, 3600).map(float),
        over_admission=st.floats(1, 10),
        deciding=st.floats(0, 1e5),
    )
)
def test_whatever_is_foreseen_is_bounded_and_never_faster_than_the_pace(start: Outset) -> None:
    segments = foreseen(start, 10)
    assert 0 < len(segments) <= SEGMENTS_MAX
    assert all(
        seconds > 0 and 0 <= rate <= max(start.fast, start.slow) * (1 + 1e-9)
        for seconds, rate in segments
    )


# What those who wait will find.


def test_supply_is_what_is_left_and_what_may_come_back() -> None:
    forecast = Forecast()
    forecast.expect(SETTINGS, 40.0)
    outlook = forecast.learn(look(10, available=100, reserved=50))
    assert outlook.supply == pytest.approx(100 + 50 * COMEBACK_PRIOR)
    assert outlook.supply_variance == pytest.approx(50 * 0.1 * 0.9)
    assert outlook.take == BUYING_PRIOR


def test_doubt_shrinks_with_the_buyers_seen_but_never_to_nothing() -> None:
    first, later = after(Rush(100), 2), after(Rush(100), 60)
    assert first.take_doubt > later.take_doubt > 0.05


def test_the_draw_does_not_look_as_if_people_had_left() -> None:
    forecast = Forecast()
    forecast.expect(SETTINGS, 40.0)
    forecast.learn(look(0, waiting=1000, order=RoomOrder.DRAW))
    outlook = forecast.learn(look(1, waiting=100_000, order=RoomOrder.DRAW, drawn=100_000))
    assert outlook.leaving == 0
    gone = forecast.learn(look(2, waiting=90_000, order=RoomOrder.DRAW, drawn=100_000))
    assert gone.leaving > 0.01
