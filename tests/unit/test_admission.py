"""The throttle and the in-flight limit let in what they promise, in bounded memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.admission import InFlightLimit, Throttle
from engine.clock import ManualClock
from engine.errors import Overloaded


def test_a_burst_is_admitted_and_the_next_is_told_how_long_to_wait() -> None:
    throttle = Throttle(ManualClock(), per_second=10, burst=5)
    assert [throttle.admit("u1") for _ in range(5)] == [0.0] * 5
    assert throttle.admit("u1") == pytest.approx(0.1, abs=1e-6)


def test_waiting_as_told_is_enough() -> None:
    clock = ManualClock()
    throttle = Throttle(clock, per_second=10, burst=2)
    throttle.admit("u1"), throttle.admit("u1")
    clock.advance(seconds=throttle.admit("u1") + 0.001)
    assert throttle.admit("u1") == 0.0


def test_clients_do_not_throttle_each_other() -> None:
    throttle = Throttle(ManualClock(), per_second=1, burst=1)
    assert throttle.admit("u1") == 0.0
    assert throttle.admit("u2") == 0.0
    assert throttle.admit("u1") > 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_no_window_admits_more_than_the_burst_and_the_rate(pauses: list[float]) -> None:
    clock = ManualClock()
    throttle = Throttle(clock, per_second=4, burst=3)
    began = clock.monotonic()
    admitted = 0
    for pause in pauses:
        clock.advance(seconds=pause)
        admitted += throttle.admit("u1") == 0.0
        assert admitted <= 3 + 4 * (clock.monotonic() - began) + 1e-6


def test_memory_is_bounded_and_recent_clients_are_remembered() -> None:
    throttle = Throttle(ManualClock(), per_second=1, burst=1, clients_max=100)
    for number in range(10_000):
        throttle.admit(f"u{number}")
    assert throttle.admit("u9999") > 0
    assert len(throttle) <= 200


def test_the_limit_holds_and_a_place_left_is_free_again() -> None:
    limit = InFlightLimit(2)
    assert [limit.try_enter() for _ in range(3)] == [True, True, False]
    limit.leave()
    with limit.slot(), pytest.raises(Overloaded), limit.slot():
        raise AssertionError("the third was let in")
    assert limit.in_flight == 1
