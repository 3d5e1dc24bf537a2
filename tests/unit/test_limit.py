"""The adaptive limit, proven in a queueing model in virtual time: it finds the knee, and keeps it."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from random import Random

import pytest

import ext
from engine.admission.limit import AdmissionLimit, Priority
from engine.clock import ManualClock, SystemClock
from engine.config import LimitKind, Settings
from engine.errors import Overloaded
from ext.plain.limit import PAYMENT_MORE, START
from ext.plain.limit import Limit as PlainLimit
from tests.support.queueing import CAPACITY, Simulation, Tally, VirtualClock

PAYMENT, RESERVE, BROWSE = Priority.PAYMENT, Priority.RESERVE, Priority.BROWSE
FLOOR, CEILING = 64, 4096
P99_MAX = 0.05
Rate = Callable[[float], float]


def make_limit(clock: VirtualClock, *, floor: int = FLOOR, adaptive: bool = True) -> ext.Limit:
    return ext.Limit(clock, floor=floor, ceiling=CEILING, adaptive=adaptive)


def simulate(
    load: float | Rate,
    *,
    browse: float = 0.0,
    payment: float = 0.0,
    fronts: int = 1,
    adaptive: bool = True,
    slowness: Rate = lambda _: 1.0,
    pool_slowness: Rate = lambda _: 1.0,
) -> Simulation:
    """Reservations at `load` times the capacity, the others per second."""
    clock = VirtualClock()
    of_reserve = load if callable(load) else lambda _: load

    def rates(seconds: float) -> dict[Priority, float]:
        return {RESERVE: of_reserve(seconds) * CAPACITY, BROWSE: browse, PAYMENT: payment}

    limits = [make_limit(clock, adaptive=adaptive) for _ in range(fronts)]
    return Simulation(limits, clock, rates, slowness=slowness, pool_slowness=pool_slowness)


def goodput(tally: Tally, seconds: float) -> float:
    """In shares of the capacity."""
    return len(tally.latencies) / seconds / CAPACITY


@cache
def peak() -> float:
    """The most the server does: all it is sent, whatever the latency."""
    simulation = simulate(1.5, adaptive=False)
    simulation.run(2)
    return goodput(simulation.run(3)[RESERVE], 3)


@pytest.mark.parametrize("load", [0.5, 0.9])
def test_below_the_knee_nobody_is_shed(load: float) -> None:
    reserved = simulate(load).run(5)[RESERVE]
    assert reserved.shed == 0
    assert reserved.percentile(99) < P99_MAX


@pytest.mark.parametrize("load", [1.2, 3, 10])
def test_beyond_the_knee_the_peak_is_served_and_latency_stays_bounded(load: float) -> None:
    simulation = simulate(load)
    simulation.run(2)  # From a cold start; probes come more often in the beginning.
    reserved = simulation.run(3)[RESERVE]
    assert goodput(reserved, 3) >= 0.9 * peak()
    assert reserved.percentile(99) <= P99_MAX


def test_the_fixed_limit_pays_for_the_same_with_its_buyers_time() -> None:
    simulation = simulate(3, adaptive=False)
    simulation.run(2)
    assert simulation.run(2)[RESERVE].percentile(50) > 4 * P99_MAX


def test_from_a_cold_start_the_first_second_of_a_rush_is_good_already() -> None:
    reserved = simulate(10).run(1)[RESERVE]
    assert goodput(reserved, 1) >= 0.8 * peak()
    assert reserved.percentile(99) <= 1.2 * P99_MAX


def test_it_settles() -> None:
    simulation = simulate(2)
    simulation.run(9)  # The probes of 1, 2, 4 and 8 s are over; the next is a while away.
    simulation.run(5)
    assert max(simulation.limits) < 1.2 * min(simulation.limits)


def test_probing_costs_next_to_no_throughput() -> None:
    simulation = simulate(1.3)
    simulation.run(9)
    reserved = simulation.run(16)[RESERVE]
    assert min(simulation.limits) == FLOOR, "there was a probe"
    assert goodput(reserved, 16) >= 0.98 * peak()


def test_nobody_is_shed_for_a_probe_while_there_is_room() -> None:
    simulation = simulate(0.9)
    simulation.run(10)
    assert min(simulation.limits) >= START


def test_it_recovers_within_seconds_after_the_server_was_ten_times_slower() -> None:
    simulation = simulate(2, slowness=lambda seconds: 10.0 if 5 < seconds < 12 else 1.0)
    simulation.run(8)
    slow = simulation.run(4)[RESERVE]
    # Without load it takes 30 ms now; the limit goes down until what it lets in takes a few times that.
    assert slow.percentile(99) < 0.25
    assert goodput(slow, 4) > 0.05
    simulation.run(2)
    reserved = simulation.run(3)[RESERVE]
    assert goodput(reserved, 3) >= 0.9 * peak()
    assert reserved.percentile(99) <= P99_MAX


def test_a_server_that_stays_slower_is_used_for_what_it_still_does() -> None:
    simulation = simulate(2, slowness=lambda _: 4.0)
    simulation.run(10)
    reserved = simulation.run(10)[RESERVE]
    assert goodput(reserved, 10) >= 0.85 / 4
    assert reserved.percentile(99) < 0.2


def test_payments_get_in_while_reservations_and_browsing_are_shed() -> None:
    simulation = simulate(5, browse=3000, payment=300)
    simulation.run(3)
    tallies = simulation.run(4)
    assert tallies[PAYMENT].shed == 0
    assert tallies[RESERVE].shed > 0.7 * tallies[RESERVE].offered
    assert tallies[BROWSE].shed > 0.3 * tallies[BROWSE].offered
    assert goodput(tallies[RESERVE], 4) >= 0.9 * peak()


def test_a_pool_that_hangs_does_not_cost_reservations_their_places() -> None:
    simulation = simulate(
        0.9,
        browse=1200,
        payment=300,
        pool_slowness=lambda seconds: 50.0 if seconds > 4 else 1.0,
    )
    before = simulation.run(4)[RESERVE]
    during = simulation.run(8)[RESERVE]
    assert goodput(before, 4) > 0.88
    assert goodput(during, 8) > 0.88
    assert during.shed <= 0.01 * during.offered


def test_reservations_at_their_limit_do_not_keep_a_quick_pool_from_browsing() -> None:
    simulation = simulate(3, browse=500)
    simulation.run(4)
    browsed = simulation.run(4)[BROWSE]
    assert browsed.percentile(99) <= P99_MAX


def test_fronts_of_one_server_do_not_talk_each_other_up() -> None:
    simulation = simulate(2, fronts=4)
    simulation.run(9)
    early = simulation.run(2)[RESERVE].percentile(99)
    simulation.run(14)
    late = simulation.run(2)[RESERVE].percentile(99)
    assert late <= max(1.1 * early, P99_MAX)


@pytest.mark.parametrize("slowness", [0.01, 1.0, 30.0])
def test_floor_and_ceiling_hold(slowness: float) -> None:
    clock = VirtualClock()
    limit = ext.Limit(clock, floor=20, ceiling=300, adaptive=True)
    simulation = Simulation(
        [limit], clock, lambda _: {RESERVE: 2 * CAPACITY}, slowness=lambda _: slowness
    )
    for _ in range(50):
        simulation.run(0.1)
        assert 20 <= limit.limit <= 300
        assert limit.in_flight <= 300
    assert (limit.limit == 300) == (slowness <= 1)


def test_a_fixed_limit_is_its_ceiling_always() -> None:
    simulation = simulate(5, adaptive=False)
    simulation.run(3)
    assert set(simulation.limits) == {CEILING}


def test_each_priority_has_its_part_of_the_limit() -> None:
    limit = ext.Limit(ManualClock(), floor=100, ceiling=100, adaptive=True)

    def fill(priority: Priority) -> int:
        while limit.try_enter(priority):
            pass
        return limit.in_flight

    assert fill(BROWSE) == 75
    assert fill(RESERVE) == 100
    assert fill(PAYMENT) == 125 + PAYMENT_MORE
    limit.leave(BROWSE, 0.0, False)
    assert not limit.try_enter(RESERVE)


def test_a_limit_of_one_lets_one_in() -> None:
    for priority in (RESERVE, BROWSE):
        limit = ext.Limit(ManualClock(), floor=1, ceiling=1, adaptive=True)
        assert limit.try_enter(priority) > 0
        assert limit.try_enter(priority) == 0.0


def test_a_burst_on_an_idle_front_finds_room() -> None:
    limit = make_limit(VirtualClock())
    assert all(limit.try_enter(RESERVE) for _ in range(START))


def test_what_is_not_measured_does_not_move_it() -> None:
    clock = VirtualClock()
    limit = make_limit(clock)
    for _ in range(1000):
        entered = limit.try_enter(RESERVE)
        clock.seconds += 1.0
        limit.leave(RESERVE, entered, False)
    assert (limit.limit, limit.noload(RESERVE)) == (START, 0.0)


def test_a_single_outlier_moves_it_little() -> None:
    simulation = simulate(0.9)
    simulation.run(5)
    limit = simulation.fronts[0].limit
    before = limit.limit
    for _ in range(5):
        limit.leave(RESERVE, limit.enter(RESERVE) - 30.0, True)
    simulation.run(1)
    assert limit.limit >= 0.9 * before


def test_a_probe_during_which_everything_hangs_ends() -> None:
    simulation = simulate(3)
    limit = simulation.fronts[0].limit
    while limit.share(RESERVE) != FLOOR:
        simulation.run(0.01)
    simulation.clock.seconds += 3.0  # Nobody leaves meanwhile.
    assert not limit.try_enter(RESERVE)
    assert limit.share(RESERVE) > FLOOR


def test_the_time_of_entering_is_above_zero_on_any_clock() -> None:
    clock = VirtualClock()
    clock.seconds = 0.0
    assert make_limit(clock).try_enter(RESERVE) > 0
    now = SystemClock().monotonic()
    limit = ext.Limit(SystemClock(), floor=1, ceiling=1, adaptive=True)
    assert now <= limit.try_enter(RESERVE) <= SystemClock().monotonic()


def test_kernel_and_plain_form_decide_alike() -> None:
    random = Random(4)
    clock = VirtualClock()
    kernel = ext.Limit(clock, floor=8, ceiling=200, adaptive=True)
    plain = PlainLimit(clock, floor=8, ceiling=200, adaptive=True)
    inside: list[tuple[Priority, float]] = []
    load = 30
    for _ in range(60_000):
        if random.random() < 0.0005:
            load = random.choice((5, 30, 150, 400))
        clock.seconds += random.expovariate(5000)
        if len(inside) < load:
            priority = random.choice(tuple(Priority))
            entered = kernel.try_enter(priority)
            assert entered == plain.try_enter(priority)
            if entered:
                inside.append((priority, entered))
        if inside and random.random() < 0.6:
            priority, entered = inside.pop(random.randrange(len(inside)))
            measured = random.random() < 0.9
            kernel.leave(priority, entered, measured)
            plain.leave(priority, entered, measured)
        assert (kernel.limit, kernel.in_flight) == (plain.limit, plain.in_flight)
    for priority in Priority:
        assert kernel.noload(priority) == pytest.approx(plain.noload(priority))
        assert kernel.share(priority) == plain.share(priority)
    assert kernel.limit != 200


def of(**changes: object) -> AdmissionLimit:
    return AdmissionLimit.of(Settings(**changes), ManualClock())  # type: ignore[arg-type]


def test_settings_say_which_limit_it_is() -> None:
    assert of(limit=LimitKind.FIXED).limit == Settings().in_flight_max
    assert of().limit == START
    assert of(in_flight_max=2).limit == 2
    assert of(in_flight_min=2000).limit == 2000


@contextmanager
def refused() -> Iterator[None]:
    with pytest.raises(Overloaded):
        yield


def test_slots_are_given_back_whatever_happens() -> None:
    limit = of(in_flight_max=2)
    with refused(), limit.slot(RESERVE), limit.slot(RESERVE), limit.slot(RESERVE):
        raise AssertionError("the third was let in")
    assert limit.in_flight == 0


def test_who_steps_out_leaves_room_and_is_told_if_it_is_taken_afterwards() -> None:
    limit = of(in_flight_max=1)
    entered = limit.try_enter(RESERVE)
    with limit.stepped_out(RESERVE):
        assert limit.in_flight == 0
    with refused(), limit.stepped_out(RESERVE):
        assert limit.try_enter(RESERVE)
    assert limit.in_flight == 2
    limit.leave(RESERVE, entered, False)
    limit.leave(RESERVE, entered, False)
    assert limit.in_flight == 0


async def test_who_is_cancelled_while_out_has_his_place_to_leave() -> None:
    limit = of(in_flight_max=1)
    entered = limit.try_enter(RESERVE)
    with pytest.raises(asyncio.CancelledError), limit.stepped_out(RESERVE):
        raise asyncio.CancelledError
    limit.leave(RESERVE, entered, False)
    assert limit.in_flight == 0
