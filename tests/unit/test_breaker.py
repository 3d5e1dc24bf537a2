"""A circuit breaker opens on a server that fails, knocks once in a while, and closes when it is back."""

import asyncio
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from engine.admission.breaker import (
    CALLS_MIN,
    IN_A_ROW_MAX,
    JITTER,
    PAUSE_SECONDS,
    PAUSE_SECONDS_MAX,
    PROBE_SECONDS_MAX,
    WINDOW_SECONDS,
    Breaker,
    BreakerState,
)
from engine.clock import ManualClock
from engine.errors import CircuitOpen, RedisUnavailable, StoreUnavailable

CLOSED, HALF_OPEN, OPEN = BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN
PAUSE_MAX = PAUSE_SECONDS * (1 + JITTER)


class Server:
    """A breaker, and the clock it goes by."""

    def __init__(self, seed: int = 1) -> None:
        self.clock = ManualClock()
        self.breaker = Breaker("server", self.clock, Random(seed))

    @property
    def state(self) -> BreakerState:
        return self.breaker.state

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            with pytest.raises(StoreUnavailable), self.breaker.guarding():
                raise StoreUnavailable("away")

    def answer(self, times: int = 1) -> None:
        for _ in range(times):
            with self.breaker.guarding():
                pass

    def open(self) -> None:
        self.fail(IN_A_ROW_MAX)
        assert self.state is OPEN

    def lose_patience_after(self, seconds: float) -> None:
        with self.breaker.guarding():
            self.clock.advance(seconds=seconds)
            raise asyncio.CancelledError

    def pause(self) -> None:
        """Until the next probe may be made."""
        while self.state is OPEN:
            self.clock.advance(seconds=0.01)


def shown() -> float | None:
    return REGISTRY.get_sample_value("doorbuster_breaker", {"server": "server"})


def test_failures_in_a_row_open_it_and_nobody_asks_then() -> None:
    server = Server()
    server.fail(IN_A_ROW_MAX - 1)
    server.answer()
    server.fail(IN_A_ROW_MAX - 1)
    assert server.state is CLOSED
    server.fail()
    assert server.state is OPEN
    with pytest.raises(CircuitOpen), server.breaker.guarding():
        raise AssertionError("the server was asked")


def test_half_of_many_calls_failing_opens_it_however_they_alternate() -> None:
    server = Server()
    for _ in range(CALLS_MIN // 2 - 1):
        server.answer()
        server.fail()
    server.answer()
    assert server.state is CLOSED
    server.fail()
    assert server.state is OPEN


def test_failures_of_long_ago_are_forgotten() -> None:
    server = Server()
    for _ in range(CALLS_MIN // 2 - 1):
        server.answer()
        server.fail()
    server.clock.advance(seconds=WINDOW_SECONDS + 0.01)
    for _ in range(CALLS_MIN // 2 - 1):
        server.answer()
        server.fail()
    assert server.state is CLOSED


def test_one_probe_at_a_time_and_its_success_closes() -> None:
    server = Server()
    server.open()
    server.pause()
    assert server.state is HALF_OPEN
    with server.breaker.guarding():
        assert not server.breaker.allows()
        assert shown() == HALF_OPEN
    assert server.state is CLOSED
    server.fail(IN_A_ROW_MAX - 1)
    assert server.state is CLOSED, "what was before it opened does not count any more"


def test_pauses_double_up_to_their_maximum_and_begin_anew_once_it_closed() -> None:
    server, pauses = Server(), []
    server.open()
    for _ in range(8):
        began = server.clock.monotonic()
        server.pause()
        pauses.append(server.clock.monotonic() - began)
        server.fail()
    wanted = [min(PAUSE_SECONDS * 2**n, PAUSE_SECONDS_MAX) for n in range(8)]
    assert pauses == pytest.approx(wanted, rel=JITTER + 0.03)
    server.pause()
    server.answer()
    server.open()
    server.clock.advance(seconds=PAUSE_MAX)
    assert server.state is HALF_OPEN


def test_processes_do_not_knock_all_at_once() -> None:
    moments = set()
    for seed in range(10):
        server = Server(seed)
        server.open()
        server.pause()
        moments.add(server.clock.monotonic())
    assert len(moments) > 5


def test_calls_begun_before_it_opened_decide_nothing_after() -> None:
    server = Server()
    with server.breaker.guarding():
        server.open()
        server.pause()
        assert server.breaker.allows()
    assert server.state is HALF_OPEN, "an old success is no probe's"
    server.breaker.succeeded()
    assert server.state is CLOSED
    old = server.breaker.guarding()
    old.__enter__()
    server.open()
    server.pause()
    failure = StoreUnavailable("an old one")
    assert not old.__exit__(StoreUnavailable, failure, None)
    assert server.state is HALF_OPEN


def test_what_is_no_failure_of_the_server_counts_as_its_answer() -> None:
    server = Server()
    for _ in range(2):
        server.fail(IN_A_ROW_MAX - 1)
        with pytest.raises(KeyError), server.breaker.guarding():
            raise KeyError("no such row")
    assert server.state is CLOSED
    server.open()
    server.pause()
    with pytest.raises(KeyError), server.breaker.guarding():
        raise KeyError("no such row")
    assert server.state is CLOSED


def test_only_the_failures_named_count() -> None:
    server = Server()
    for _ in range(2 * IN_A_ROW_MAX):
        with pytest.raises(RedisUnavailable), server.breaker.guarding((StoreUnavailable,)):
            raise RedisUnavailable("another server")
    assert server.state is CLOSED


def test_another_breaker_that_is_open_says_nothing_of_this_server() -> None:
    server = Server()
    server.open()
    server.pause()
    for _ in range(IN_A_ROW_MAX):
        with pytest.raises(CircuitOpen), server.breaker.guarding():
            raise CircuitOpen("another server's")
    assert server.state is HALF_OPEN
    server.answer()
    assert server.state is CLOSED


@pytest.mark.parametrize(("seconds", "state"), [(0.05, CLOSED), (2.0, OPEN)])
def test_calls_that_outlast_their_callers_patience_are_failures(
    seconds: float, state: BreakerState
) -> None:
    server = Server()
    for _ in range(IN_A_ROW_MAX):
        with pytest.raises(asyncio.CancelledError):
            server.lose_patience_after(seconds)
    assert server.state is state


def test_a_probe_that_was_cut_short_gives_its_turn_to_the_next() -> None:
    server = Server()
    server.open()
    server.pause()
    with pytest.raises(asyncio.CancelledError), server.breaker.guarding():
        raise asyncio.CancelledError
    server.answer()
    assert server.state is CLOSED


def test_a_probe_that_is_never_heard_of_does_not_keep_it_shut() -> None:
    server = Server()
    server.open()
    server.pause()
    assert server.breaker.allows()
    assert not server.breaker.allows()
    server.clock.advance(seconds=PROBE_SECONDS_MAX)
    server.answer()
    assert server.state is CLOSED


def test_metric_shows_its_state() -> None:
    server = Server()
    assert shown() == CLOSED
    server.open()
    assert shown() == OPEN
    server.pause()
    server.answer()
    assert shown() == CLOSED


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 4)), max_size=200), st.integers())
def test_it_always_asks_again_and_closes_at_the_first_answer(
    calls: list[tuple[bool, float]], seed: int
) -> None:
    server = Server(seed)
    for fails, seconds in calls:
        server.clock.advance(seconds=seconds)
        if server.breaker.allows():
            (server.breaker.failed if fails else server.breaker.succeeded)()
    server.clock.advance(seconds=PAUSE_SECONDS_MAX * (1 + JITTER))
    server.answer()
    assert server.state is CLOSED
