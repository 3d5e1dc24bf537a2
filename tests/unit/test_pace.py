"""The pace against a modelled pipeline on virtual time: it bounds the queue, and gets out of the way."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.admission.pace import (
    NO_LIMIT,
    PACE_MIN,
    HopPace,
    Pace,
    pace_of_steps,
    slowest,
)

TICK = 0.02
MEASURE_TICKS = 10  # 0.2 s, as the pacer does.
LATE = 2  # Measurements until the fronts follow: they ask as often as the pacer writes.


def drain_pace(rate_first: float = 20_000) -> HopPace:
    return HopPace(target_seconds=1.0, rate_first=rate_first, waiting_min=256)


@dataclass
class Pipeline:
    """Demand, admitted at the pace, waits for a hop that does so much per second in steps."""

    hop: HopPace
    demand: Callable[[float], float]
    capacity: Callable[[float], float]
    step_seconds: float = TICK
    knows_step: bool = True  # Whether a step of this length was measured already.
    is_away: bool = False
    now: float = 0.0
    waiting: float = 0.0
    done: float = 0.0
    admitted: float = 0.0
    queue: list[float] = field(default_factory=list)  # What waited, at each measurement.
    paces: list[float] = field(default_factory=list)

    def run(self, seconds: float) -> "Pipeline":
        known = deque([self.hop.pace] * LATE, maxlen=LATE)
        step, due = 0.0, self.now + self.step_seconds
        for tick in range(round(seconds / TICK)):
            self.now += TICK
            arriving = min(self.demand(self.now), known[0]) * TICK
            self.waiting += arriving
            self.admitted += arriving
            step += self.capacity(self.now) * TICK
            if self.now >= due - 1e-9:
                served = min(step, self.waiting)
                self.waiting -= served
                self.done += served
                step, due = 0.0, self.now + self.step_seconds
            if tick % MEASURE_TICKS == 0:
                took = self.step_seconds if self.step_seconds > TICK else 0.0
                begun = self.now - due + took if self.waiting and took else 0.0
                known.append(
                    self.hop.measure(
                        self.now,
                        self.done,
                        self.waiting,
                        took if self.knows_step else 0.0,
                        begun_seconds=begun,
                        is_away=self.is_away,
                    )
                )
                self.paces.append(self.hop.pace)
                self.queue.append(self.waiting)
        return self


def always(value: float) -> Callable[[float], float]:
    return lambda _: value


def late(values: list[float]) -> list[float]:
    """The second half: settled."""
    return values[len(values) // 2 :]


def test_pipeline_that_keeps_up_is_never_limited() -> None:
    run = Pipeline(drain_pace(), always(18_000), always(50_000)).run(30)
    assert set(run.paces) == {inf}


def test_burst_that_is_stored_within_the_target_is_no_overload() -> None:
    run = Pipeline(drain_pace(), always(0), always(50_000))
    run.waiting = 10_000
    run.run(5)
    assert set(run.paces) == {inf}


def test_first_burst_of_a_sale_after_a_trickle_is_no_overload() -> None:
    run = Pipeline(drain_pace(), always(5), always(30_000)).run(60)
    run.waiting += 8_000
    run.demand = always(18_000)
    assert set(run.run(30).paces) == {inf}


def test_burst_long_after_a_fault_is_no_overload() -> None:
    run = Pipeline(drain_pace(), always(400), always(100)).run(20)
    run.capacity = always(30_000)
    run.run(20)
    run.paces.clear()
    run.waiting += 8_000
    assert set(run.run(5).paces) == {inf}


@pytest.mark.parametrize("capacity", [500, 2_000, 8_000])
def test_overload_settles_at_what_is_stored_and_a_second_of_queue(capacity: float) -> None:
    run = Pipeline(drain_pace(), always(18_000), always(capacity)).run(120)
    assert min(late(run.queue)) > 0  # The hop is never idle …
    assert max(late(run.queue)) < 2 * capacity  # … and its queue stays about a second's.
    settled = late(run.paces)
    assert sum(settled) / len(settled) == pytest.approx(capacity, rel=0.1)


def test_overload_is_noticed_within_about_a_second() -> None:
    run = Pipeline(drain_pace(), always(18_000), always(1_000)).run(1.5)
    assert run.paces[-1] < 6_000
    assert run.queue[-1] < 1.25 * 18_000


@pytest.mark.parametrize("step_seconds", [0.5, 1.0, 2.0])
def test_long_steps_do_not_starve_a_hop_that_has_the_capacity(step_seconds: float) -> None:
    run = Pipeline(drain_pace(), always(18_000), always(4_000), step_seconds).run(120)
    stored = run.done / run.now
    assert stored > 0.8 * 4_000
    assert max(late(run.queue)) < 4 * max(1, step_seconds) * 4_000


def test_hop_that_keeps_up_in_long_steps_is_hardly_limited() -> None:
    run = Pipeline(drain_pace(), always(10_000), always(40_000), step_seconds=2).run(60)
    assert run.done / run.now > 0.9 * 10_000


def test_standstill_bounds_what_is_admitted_and_its_end_is_noticed_within_five_seconds() -> None:
    def capacity(now: float) -> float:
        return 0 if 10 <= now < 40 else 20_000

    run = Pipeline(drain_pace(), always(15_000), capacity).run(40)
    assert run.waiting < 60_000  # Of 450,000 who came meanwhile.
    assert run.paces[-1] == pytest.approx(PACE_MIN)
    run.run(5)
    assert run.hop.pace > 15_000


def test_hop_that_stores_in_rare_large_steps_is_never_taken_for_one_that_stands_still() -> None:
    run = Pipeline(drain_pace(), always(15_000), always(13_000), step_seconds=0.1).run(20)
    run.capacity, run.step_seconds, run.knows_step = always(600), 7.0, False
    run.paces.clear()
    run.run(6.9)
    run.knows_step = True
    run.run(21)
    assert min(run.paces) > 5 * PACE_MIN
    run.capacity, run.step_seconds = always(20_000), 0.1
    run.run(5)
    assert run.hop.pace > 15_000


def test_hop_that_stood_still_is_free_again_within_five_seconds() -> None:
    run = Pipeline(drain_pace(), always(15_000), lambda now: 0 if now < 60 else 20_000)
    run.run(60)
    assert run.hop.pace == PACE_MIN
    run.run(5)
    assert run.hop.pace == inf


def payment_pace() -> HopPace:
    return HopPace(target_seconds=300, rate_first=1_000, waiting_min=1_000, floor_share=0.25)


def test_provider_that_is_away_stops_no_sale() -> None:
    run = Pipeline(payment_pace(), always(200), always(1_000)).run(60)
    run.capacity, run.is_away = always(0), True
    run.run(900)
    assert set(run.paces) == {inf}  # All of it can be paid within the target once it is back.
    run.capacity, run.is_away = always(1_000), False
    assert set(run.run(300).paces) == {inf}


def test_provider_that_is_away_slows_gently_what_could_not_be_paid_in_time() -> None:
    run = Pipeline(payment_pace(), always(2_000), always(1_000)).run(20)
    run.capacity, run.is_away = always(0), True
    run.run(2_000)
    assert 250 <= run.paces[-1] < 1_000
    assert run.hop.rate == pytest.approx(1_000, rel=0.01)


def test_payments_that_hang_unnoticed_slow_admission_to_a_share_of_what_was_paid() -> None:
    run = Pipeline(payment_pace(), always(2_000), lambda now: 1_000 if now < 20 else 0)
    run.run(120)
    assert min(run.paces) >= 250


def test_provider_that_comes_back_is_noticed_within_seconds() -> None:
    run = Pipeline(payment_pace(), always(200), lambda now: 0 if now < 200 else 500)
    run.run(200)
    run.run(5)
    assert run.hop.pace > 200


def test_demand_that_pauses_and_comes_back_does_not_overrun_a_slow_hop() -> None:
    run = Pipeline(drain_pace(), always(18_000), always(2_000)).run(60)
    for pause in (0.5, 1, 2, 3):
        run.demand = always(0)
        run.run(pause)
        run.demand = always(18_000)
        run.queue.clear()
        run.run(20)
        assert max(run.queue) < 3 * 2_000


def test_limit_goes_away_once_the_hop_is_well_again() -> None:
    run = Pipeline(drain_pace(), always(15_000), lambda now: 1_000 if now < 20 else 50_000)
    run.run(20)
    assert run.hop.pace < 2_000
    run.run(10)
    assert run.hop.pace == inf


@settings(deadline=None)
@given(
    st.floats(100, 50_000),
    st.lists(st.tuples(st.floats(0.5, 20), st.floats(0, 40_000)), min_size=1, max_size=6),
)
def test_queue_is_bounded_whatever_the_hop_does(
    demand: float, course: list[tuple[float, float]]
) -> None:
    run = Pipeline(drain_pace(), always(demand), always(0))
    for seconds, capacity in course:
        run.capacity = always(capacity)
        run.run(seconds)
        assert run.hop.pace >= PACE_MIN
    # What is admitted before a change shows, and a second of the best that it was seen to do.
    assert max(run.queue) < 2.5 * max(demand, 20_000)


def test_counter_that_begins_anew_does_no_harm() -> None:
    hop = drain_pace()
    hop.measure(0, 1_000_000, 0)
    assert hop.measure(0.2, 0, 0) == inf
    assert hop.rate == 20_000


def test_two_looks_at_the_same_instant_are_one() -> None:
    hop = drain_pace()
    assert [hop.measure(1.0, 0, 90_000), hop.measure(1.0, 0, 90_000)] == [inf, inf]


def test_step_that_is_long_tells_the_most_a_hop_can_take() -> None:
    assert pace_of_steps(0.2, 8000, 0.25) == inf
    assert pace_of_steps(2.0, 8000, 0.25) == 4000
    assert pace_of_steps(1e9, 8000, 0.25) == PACE_MIN


def test_slowest_hop_is_named_and_none_if_nobody_limits() -> None:
    assert slowest({"drain": 300.0, "redis": 200.0, "payment": inf}) == Pace(200.0, "redis")
    assert slowest({"drain": inf, "redis": inf}) == NO_LIMIT
