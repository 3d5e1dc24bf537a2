"""What the drainer knows of its own work: sales that rest, and how long Postgres takes."""

import pytest

from engine.clock import ManualClock
from engine.drained import Drained
from engine.rests import REST_SECONDS_MAX, Rests


def fail_and_rest(clock: ManualClock, rests: Rests, times: int) -> float:
    """The seconds that the last of so many rests took."""
    seconds = 0.0
    for _ in range(times):
        rests.begin("demo")
        seconds = 0.0
        while rests.is_on("demo"):
            clock.advance(seconds=0.5)
            seconds += 0.5
            rests.end_overdue()
    return seconds


def wait_in_vain(clock: ManualClock, drained: Drained) -> None:
    with drained.statement():
        clock.advance(seconds=100)
        raise TimeoutError


def test_sale_rests_longer_each_time_up_to_a_bound() -> None:
    clock = ManualClock()
    rests = Rests(clock)
    assert [fail_and_rest(clock, rests, 1) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_batches_that_fail_together_make_one_rest() -> None:
    clock = ManualClock()
    rests = Rests(clock)
    rests.begin("demo")
    rests.begin("demo")
    clock.advance(seconds=1)
    assert rests.end_overdue()
    assert not rests.end_overdue()
    assert not rests.is_on("demo")


def test_sale_is_hopeless_after_about_a_minute_and_until_it_succeeds() -> None:
    clock = ManualClock()
    rests = Rests(clock)
    began = clock.monotonic()
    while not rests.is_hopeless("demo"):
        fail_and_rest(clock, rests, 1)
    assert 30 < clock.monotonic() - began < 120
    assert not rests.is_hopeless("another")
    rests.succeeded("demo")
    assert not rests.is_hopeless("demo")
    assert fail_and_rest(clock, rests, 1) == 1


def test_success_beside_a_failure_ends_no_rest() -> None:
    rests = Rests(ManualClock())
    rests.begin("demo")
    rests.succeeded("demo")
    assert rests.is_on("demo")


def test_longest_rest_is_the_one_that_tells_hopeless() -> None:
    clock = ManualClock()
    rests = Rests(clock)
    assert fail_and_rest(clock, rests, 6) == REST_SECONDS_MAX
    assert rests.is_hopeless("demo")


def test_statements_are_timed_be_they_in_vain_or_under_way() -> None:
    clock = ManualClock()
    drained = Drained(clock)
    with drained.statement():
        clock.advance(seconds=1)
        with drained.statement():
            clock.advance(seconds=1)
        assert drained.waited_seconds == 2  # Of the older one.
    assert drained.waited_seconds == 0
    before = drained.commit_seconds
    with pytest.raises(TimeoutError):
        wait_in_vain(clock, drained)
    assert drained.commit_seconds > before > 0
