"""The meter lets through what its rate allows, whatever the rate was before; both forms alike."""

from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ext.meter
import ext.plain.meter
from engine.clock import ManualClock

FORMS: list[Any] = [ext.meter.Meter, ext.plain.meter.Meter]
both = pytest.mark.parametrize("form", FORMS, ids=["compiled", "plain"])


@both
def test_new_meter_lets_everybody_through(form: Any) -> None:
    meter = form(ManualClock())
    assert meter.per_second == inf
    assert {meter.admit() for _ in range(10_000)} == {0.0}


@both
def test_burst_is_let_through_and_the_next_is_told_how_long_to_wait(form: Any) -> None:
    clock = ManualClock()
    meter = form(clock)
    meter.set_rate(10, 5)
    assert [meter.admit() for _ in range(5)] == [0.0] * 5
    assert meter.admit() == pytest.approx(0.1, abs=1e-6)
    clock.advance(seconds=0.1)
    assert meter.admit() == 0.0
    assert meter.admit() > 0


@both
def test_slower_rate_holds_at_once_and_a_faster_one_gives_no_second_burst(form: Any) -> None:
    meter = form(ManualClock())
    meter.set_rate(1000, 100)
    meter.set_rate(1, 1)
    assert [meter.admit(), meter.admit()] == [0.0, pytest.approx(1)]
    meter.set_rate(1000, 100)
    assert meter.admit() == pytest.approx(0.001)


@both
def test_limit_that_is_lifted_and_comes_back_finds_a_full_bucket(form: Any) -> None:
    meter = form(ManualClock())
    meter.set_rate(1, 2)
    while meter.admit() == 0.0:
        pass
    meter.set_rate(inf, inf)
    assert meter.admit() == 0.0
    meter.set_rate(1, 2)
    assert [meter.admit() == 0.0 for _ in range(3)] == [True, True, False]


@both
@pytest.mark.parametrize("rate", [(0, 1), (-1, 1), (nan, 1), (1, 0.5), (1, nan)])
def test_rate_that_would_let_nobody_through_is_refused(
    form: Any, rate: tuple[float, float]
) -> None:
    with pytest.raises(ValueError, match="rate"):
        form(ManualClock()).set_rate(*rate)


rates = st.tuples(st.floats(0.01, 1000) | st.just(inf), st.floats(1, 50))
steps = st.lists(st.one_of(st.floats(0, 2), rates, st.none()), max_size=200)


@given(steps)
def test_both_forms_let_the_same_requests_through(course: list[Any]) -> None:
    clock = ManualClock()
    meters = [form(clock) for form in FORMS]
    for step in course:
        match step:
            case None:
                answers = [meter.admit() for meter in meters]
                assert answers[0] == answers[1]
            case (per_second, burst):
                for meter in meters:
                    meter.set_rate(per_second, burst)
            case seconds:
                clock.advance(seconds=seconds)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_no_window_lets_through_more_than_the_burst_and_the_rate(pauses: list[float]) -> None:
    clock = ManualClock()
    meter = ext.meter.Meter(clock)
    meter.set_rate(4, 3)
    began, admitted = clock.monotonic(), 0
    for pause in pauses:
        clock.advance(seconds=pause)
        admitted += meter.admit() == 0.0
        assert admitted <= 3 + 4 * (clock.monotonic() - began) + 1e-3
