"""The capacity measurements: an open loop that hides no stall, the knee, the scalability law."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from benchmarks.capacity import openloop, sweep
from benchmarks.capacity.load import Offer, Target, as_figures, send
from benchmarks.capacity.openloop import UNSENT, Connection, Plan, Result, build_requests, generate
from benchmarks.capacity.pacing import due_times
from benchmarks.capacity.usl import fit, law
from benchmarks.report import read_run, write_report
from engine.servers import EmbeddedValkey
from tests.support.front import Served, serve
from tests.support.waiting import WAIT_SECONDS_MAX

ANSWER = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}"


class StallingServer:
    """Answers nothing until it has read `first` requests, or `stall_s` after the first; then all."""

    def __init__(self, first: int, stall_s: float | None = None, *, hangs_up: bool = False) -> None:
        self._missing = first
        self._hangs_up = hangs_up
        self._open: set[ServerSide] = set()
        self._empty = asyncio.Event()
        self._stall_s = stall_s
        self._waiting: list[asyncio.Transport] = []
        self.port = 0

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: ServerSide(self), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield
            async with asyncio.timeout(WAIT_SECONDS_MAX):
                await self._empty.wait()

    def opened(self, side: "ServerSide") -> None:
        self._open.add(side)
        self._empty.clear()

    def closed(self, side: "ServerSide") -> None:
        self._open.discard(side)
        if not self._open:
            self._empty.set()

    def asked(self, transport: asyncio.Transport) -> None:
        if self._hangs_up:
            transport.abort()
            return
        self._waiting.append(transport)
        self._missing -= 1
        if self._missing <= 0:
            self._answer()
        elif self._stall_s is not None:
            asyncio.get_running_loop().call_later(self._stall_s, self._wake)
            self._stall_s = None

    def _wake(self) -> None:
        self._missing = 0
        self._answer()

    def _answer(self) -> None:
        while self._waiting:
            self._waiting.pop().write(ANSWER)


class ServerSide(asyncio.Protocol):
    """One connection of the stalling server. Requests are small: each comes in one piece."""

    def __init__(self, server: StallingServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.closed(self)

    def data_received(self, data: bytes) -> None:
        self._server.asked(self._transport)


def make_plan(port: int, **changes: Any) -> Plan:
    values: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port,
        "path": "/",
        "body": "{}",
        "tokens_file": "",
        "key": "k",
        "rate": 1000.0,
        "seconds": 0.1,
        "warm_seconds": 0.0,
        "arrivals": "constant",
        "connections": 100,
        "patience_seconds": 10.0,
        "good_seconds": 10.0,
        "seed": 1,
        "core": None,
    }
    return Plan(**values | changes)


async def run_plan(plan: Plan) -> Result:
    due = due_times(plan.arrivals, plan.rate, plan.warm_seconds + plan.seconds, plan.seed)
    requests = build_requests(plan, ["token"] * len(due), len(due))
    return await generate(plan, requests, due, time.monotonic() + 0.05)


async def test_stall_is_charged_to_every_request_due_meanwhile() -> None:
    server = StallingServer(first=100)
    async with server.run():
        result = await run_plan(make_plan(server.port))

    figures = as_figures([result], 0.1)
    assert result.outcomes == {"201": 100}
    assert result.late == 0
    # The last of 100 was due 99 ms after the first, and nobody was answered before it came. A
    # generator that waits for answers would have sent one request and seen one slow answer.
    assert figures["latency_ms"]["max"] >= 98
    assert figures["latency_ms"]["p50"] >= 48
    assert figures["latency_ms"]["p90"] >= 88


async def test_request_that_waits_for_a_connection_is_charged_for_the_wait() -> None:
    server = StallingServer(first=1000, stall_s=0.06)
    async with server.run():
        result = await run_plan(make_plan(server.port, connections=5, seconds=0.05))

    # The last of 50 was due 49 ms after the first, and nobody was answered in the first 60.
    figures = as_figures([result], 0.05)
    assert result.outcomes == {"201": 50}
    assert result.late >= 40
    assert figures["latency_ms"]["p50"] >= 34


async def test_request_without_a_free_connection_is_said_to_be_unsent() -> None:
    server = StallingServer(first=10)
    async with server.run():
        plan = make_plan(server.port, connections=10, patience_seconds=0.0, rate=100_000.0)
        result = await run_plan(plan)

    assert result.outcomes[UNSENT] > 0
    assert result.sent + result.outcomes[UNSENT] == result.due == 10_000
    assert result.outcomes["201"] == result.sent


async def test_connection_that_breaks_is_counted_and_replaced() -> None:
    server = StallingServer(first=1, hangs_up=True)
    async with server.run():
        result = await run_plan(make_plan(server.port, connections=4, seconds=0.05))

    assert result.outcomes == {openloop.LOST: 50}


class Answers:
    """Takes what a connection reports."""

    def __init__(self) -> None:
        self.statuses: list[str] = []

    def answered(self, connection: Connection, status: str, due_at: float) -> None:
        self.statuses.append(status)


def test_answer_that_comes_byte_by_byte_is_one_answer() -> None:
    answers = Answers()
    connection = Connection(answers)  # type: ignore[arg-type]
    for _ in range(2):
        connection.due_at = 0.0
        for at in range(len(ANSWER)):
            connection.data_received(ANSWER[at : at + 1])
    assert answers.statuses == ["201", "201"]


def test_poisson_arrivals_keep_the_rate_but_no_rhythm() -> None:
    due = due_times("poisson", 2000.0, 5.0, seed=3)
    gaps = [later - earlier for earlier, later in pairwise(due)]
    mean = sum(gaps) / len(gaps)
    spread = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert len(due) == pytest.approx(10_000, rel=0.05)
    assert spread == pytest.approx(mean, rel=0.05)  # As an exponential distribution has it.
    assert due == due_times("poisson", 2000.0, 5.0, seed=3)


def test_each_request_is_another_reservation() -> None:
    requests = build_requests(make_plan(1), ["ann", "bob"], 10)
    heads = {
        (request.split(b"Bearer ")[1][:3], request.split(b"Key: ")[1].split(b"\r")[0])
        for request in requests
    }
    assert len(heads) == len(requests) == 10


def step(offered: float, p99: float, accepted: float | None = None) -> dict[str, Any]:
    return {
        "offered_per_s": offered,
        "accepted_per_s": offered if accepted is None else accepted,
        "latency_ms": {"p99": p99},
    }


def test_knee_is_the_highest_load_answered_fast_and_in_full() -> None:
    steps = [step(1000, 1), step(2000, 2), step(3000, 4.9), step(4000, 9), step(5000, 800, 3500)]
    assert sweep.find_knee(steps) == steps[2]


def test_knee_is_not_hidden_by_one_noisy_step_below_it() -> None:
    steps = [step(1000, 1), step(2000, 40), step(3000, 3), step(4000, 90)]
    assert sweep.find_knee(steps) == steps[2]


def test_step_that_refuses_is_past_the_knee_however_fast_it_answers() -> None:
    steps = [step(1000, 1), step(2000, 1, accepted=1900)]
    assert sweep.find_knee(steps) == steps[0]


def test_there_is_no_knee_where_every_load_is_slow() -> None:
    assert sweep.find_knee([step(1000, 6), step(2000, 60)]) is None


@pytest.mark.parametrize(
    ("lambda_", "sigma", "kappa"),
    [(1000, 0.05, 0.002), (24_000, 0.3, 0.0), (9.5, 0.0, 0.01), (40_000, 0.02, 0.0005)],
)
def test_law_is_recovered_from_what_it_predicts(lambda_: float, sigma: float, kappa: float) -> None:
    found = fit([(n, law(n, lambda_, sigma, kappa)) for n in (1, 2, 4, 8, 16, 32)])
    assert found.lambda_ == pytest.approx(lambda_, rel=1e-3)
    assert found.sigma == pytest.approx(sigma, abs=1e-3)
    assert found.kappa == pytest.approx(kappa, abs=1e-4)
    assert found.relative_rms < 1e-3


def test_error_of_the_fit_is_that_of_the_points() -> None:
    noise = (1.03, 0.97, 1.02, 0.98, 1.03, 0.97, 1.02)
    points = [
        (n, law(n, 1000, 0.05, 0.002) * off)
        for n, off in zip((1, 2, 4, 8, 12, 16, 32), noise, strict=True)
    ]
    found = fit(points)
    residuals = [x - found.throughput(n) for n, x in points]
    assert found.rms == pytest.approx((sum(r * r for r in residuals) / len(points)) ** 0.5)
    assert 0.005 < found.relative_rms < 0.03
    assert found.throughput(4) == pytest.approx(law(4, 1000, 0.05, 0.002), rel=0.05)


def test_law_says_how_many_processes_carry_most() -> None:
    found = fit([(n, law(n, 1000, 0.1, 0.01)) for n in (1, 2, 4, 8, 16, 32)])
    assert found.peak_n == pytest.approx((0.9 / 0.01) ** 0.5, rel=0.01)


def test_fit_of_few_points_says_that_it_proves_nothing() -> None:
    assert "not tested" in fit([(1, 100.0), (2, 180.0), (4, 250.0)]).trust
    one = fit([(1, 100.0)])
    assert (one.lambda_, one.sigma, one.kappa) == (pytest.approx(100), 0, 0)


def test_fit_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="needs points"):
        fit([])


@pytest.fixture
async def served(valkey: EmbeddedValkey, redis: Redis, postgres_url: str) -> AsyncIterator[Served]:
    async with serve(valkey.url, postgres_url) as served:
        yield served


async def offer_to(served: Served, folder: Path, offer: Offer) -> list[Result]:
    """What a generator in a process of its own says."""
    await served.sell("demo", stock={"phone-black": 1_000_000}, per_user_max=100)
    tokens = folder / "tokens"
    tokens.write_text("\n".join(served.tokens.issue(f"buyer-{n}") for n in range(100)))
    body = '{"items":[{"sku":"phone-black","quantity":1}]}'
    path = "/v1/sales/demo/reservations"
    cores = os.sched_getaffinity(0)
    target = Target("127.0.0.1", served.port, path, body, tokens, "k", (min(cores),))
    return await send(target, offer, lambda: None, lambda: None)


async def test_every_accepted_answer_is_a_reservation(
    served: Served, redis: Redis, tmp_path: Path
) -> None:
    offer = Offer(rate=300, seconds=0.5, warm_seconds=0.1, connections=64, patience_seconds=30)
    [result] = await offer_to(served, tmp_path, offer)

    assert set(result.outcomes) == {"201"}
    assert result.due == result.sent == result.outcomes["201"] > 0
    reserved = await redis.hget("sale:{demo.0}:stock", "phone-black:reserved")
    assert int(reserved or 0) == result.accepted_total > result.outcomes["201"]
    figures = as_figures([result], 0.5)
    assert figures["latency_ms"]["p50"] <= figures["latency_ms"]["p999"]


async def test_refusals_are_no_goodput(
    valkey: EmbeddedValkey, redis: Redis, postgres_url: str, tmp_path: Path
) -> None:
    async with serve(valkey.url, postgres_url, throttle_per_second=1, throttle_burst=1) as served:
        offer = Offer(rate=1000, seconds=0.5, warm_seconds=0, connections=64, good_seconds=30)
        [result] = await offer_to(served, tmp_path, offer)

    assert result.outcomes["429"] > 0
    assert result.good == result.outcomes["201"] < result.due


def test_quick_sweep_of_a_whole_engine_ends_in_a_report(tmp_path: Path) -> None:
    cores = os.sched_getaffinity(0)

    found = sweep.measure(tmp_path, quick=True)

    assert os.sched_getaffinity(0) == cores
    assert len(found["steps"]) == len(sweep.SHARES_QUICK)
    for measured in (found["saturated"], *found["steps"]):
        assert measured["invariants"] == {"checked": 11, "hold": 11, "broken": []}
        assert measured["outcomes"]["201"] > 0
        assert measured["stored_after_s"] is not None
        assert set(measured["cpu_us"]) == {"front", "redis", "worker", "postgres"}
        assert measured["front_rss_max_mib"] > 0
    (tmp_path / "sweep.json").write_text(json.dumps(found))
    write_report(read_run(tmp_path), None, tmp_path / "report.html")
    assert "all invariants held after 3 steps" in (tmp_path / "report.html").read_text("utf-8")
