"""The compiled kernels against their plain forms (ext/plain). One that does not win is deleted."""

from collections.abc import Callable
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import ext.batch
import ext.ids
import ext.limit
import ext.meter
import ext.records
import ext.throttle
import ext.tokens
from api.answers import PERSONAL, Answer
from api.tokens import Tokens
from api.written import as_bytes, head_of
from benchmarks import rig
from benchmarks.doors import make_straight_path
from benchmarks.test_holders import resident_bytes
from engine.admission.limit import Priority
from engine.clock import SystemClock
from ext.plain import batch as plain_batch
from ext.plain import ids as plain_ids
from ext.plain import limit as plain_limit
from ext.plain import meter as plain_meter
from ext.plain import records as plain_records
from ext.plain import throttle as plain_throttle
from ext.plain import tokens as plain_tokens

LINES = 4000  # One drain statement's worth.
RESERVATIONS = 128  # One script call's worth.
CLIENTS = 1_000_000
CALLS = 1000  # Of what is over in a microsecond.
REQUESTS = rig.make_requests("bench", 0, LINES)
BATCH = "\n".join(
    f"{request.reservation_id} {request.user_id} {request.items_text}" for request in REQUESTS
).encode()
USERS = [request.user_id for request in REQUESTS[:CALLS]]


class Waiter:
    """Takes its reply."""

    def replied(self, until_s: bytes, reply: bytes) -> None:
        """Nothing to do."""


def forms(compiled: ModuleType, plain: ModuleType) -> Any:
    return pytest.mark.parametrize("kernel", [compiled, plain], ids=["compiled", "plain"])


def measure(benchmark: Any, call: Callable[[], object], lines: int) -> None:
    """`lines` is how often one call does what the group's name says."""
    benchmark(call)
    benchmark.extra_info |= {"lines": lines, **rig.machine()}


@pytest.mark.benchmark(group="kernels: split a batch into columns")
@forms(ext.records, plain_records)
def test_split_batch(benchmark: Any, kernel: Any) -> None:
    measure(benchmark, lambda: kernel.split_batch(BATCH, [], [], [], {}), LINES)


@pytest.mark.benchmark(group="kernels: pack a reservation into a call and hand its reply out")
@forms(ext.batch, plain_batch)
def test_reserve_batch(benchmark: Any, kernel: Any) -> None:
    waiter, replies = Waiter(), [b"RESERVED"] * RESERVATIONS

    def call() -> None:
        batch = kernel.ReserveBatch()
        for request in REQUESTS[:RESERVATIONS]:
            batch.add(waiter, request.user_id, request.reservation_id, request.items_text)
        batch.command(b"$7\r\nEVALSHA\r\n", 1)
        batch.reply(b"1800000000", replies)

    measure(benchmark, call, RESERVATIONS)


@pytest.mark.benchmark(group="kernels: verify a token")
@forms(ext.tokens, plain_tokens)
def test_claims(benchmark: Any, kernel: Any) -> None:
    tokens = [Tokens(rig.SECRET, SystemClock()).issue(user).encode() for user in USERS]
    verifier = kernel.TokenVerifier(rig.SECRET.encode(), tokens[0].partition(b".")[0] + b".")

    def call() -> None:
        for token in tokens:
            verifier.claims(token)

    assert verifier.claims(tokens[0])
    measure(benchmark, call, CALLS)


@pytest.mark.benchmark(group="kernels: derive a reservation id")
@forms(ext.ids, plain_ids)
def test_make_reservation_id(benchmark: Any, kernel: Any) -> None:
    def call() -> None:
        for user in USERS:
            kernel.make_reservation_id("bench", user, "click-1")

    measure(benchmark, call, CALLS)


@pytest.mark.benchmark(group="kernels: throttle a client")
@pytest.mark.parametrize(
    ("kernel", "shared"),
    [(ext.throttle, False), (ext.throttle, True), (plain_throttle, False)],
    ids=["compiled", "compiled-shared", "plain"],
)
def test_admit(benchmark: Any, kernel: Any, shared: bool, tmp_path: Path) -> None:
    table = kernel.ClientTable(CLIENTS, str(tmp_path / "clients") if shared else None)
    throttle = kernel.Throttle(table, "user", SystemClock(), per_second=1e6, burst=1e6)

    def call() -> None:
        for user in USERS:
            throttle.admit(user)

    measure(benchmark, call, CALLS)


@pytest.mark.benchmark(group="kernels: throttle one of a million clients")
@forms(ext.throttle, plain_throttle)
def test_admit_a_million(benchmark: Any, kernel: Any) -> None:
    """Each of them once, in a process of its own, so that its memory can be told."""
    with get_context("spawn").Pool(1) as fresh:
        told = benchmark.pedantic(
            fresh.apply, (admit_a_million, (kernel.__name__,)), rounds=1, iterations=1
        )
    assert told["remembered"] > 0.8 * CLIENTS  # The rest met a set that was full.
    benchmark.extra_info |= {"lines": CLIENTS, **told, **rig.machine()}


def admit_a_million(name: str) -> dict[str, float]:
    """How much a process grows that throttles a million clients, and how many it remembers."""
    kernel = import_module(name)
    table = kernel.ClientTable(CLIENTS)
    throttle = kernel.Throttle(table, "user", SystemClock(), per_second=1, burst=2)
    before = resident_bytes()
    for number in range(CLIENTS):
        throttle.admit(f"buyer-{number:07d}")
    grown = resident_bytes() - before
    return {"bytes_per_client": grown / CLIENTS, "remembered": len(table)}


def written_plainly(answer: Answer) -> bytes:
    return as_bytes(answer, "8c1d2e3f4a5b-1")


def written_by_kernel(answer: Answer) -> bytes:
    return STRAIGHT.written(head_of(answer.status, answer.headers), answer.location, answer.body)


STRAIGHT = make_straight_path()


@pytest.mark.benchmark(group="kernels: write an answer")
@pytest.mark.parametrize("write", [written_by_kernel, written_plainly], ids=["compiled", "plain"])
def test_written(benchmark: Any, write: Any) -> None:
    answer = Answer(201, b"x" * 170, PERSONAL, "reserved", "/v1/reservations/bench.AAAA")

    def call() -> None:
        for _ in range(CALLS):
            write(answer)

    measure(benchmark, call, CALLS)


@pytest.mark.benchmark(group="kernels: meter a request")
@forms(ext.meter, plain_meter)
def test_meter(benchmark: Any, kernel: Any) -> None:
    meter = kernel.Meter(SystemClock())
    meter.set_rate(1e9, 1e9)  # A limit that holds nobody up: with none the clock is not read.

    def call() -> None:
        for _ in range(CALLS):
            meter.admit()

    measure(benchmark, call, CALLS)


@pytest.mark.benchmark(group="kernels: let a request into work and out again")
@forms(ext.limit, plain_limit)
def test_limit(benchmark: Any, kernel: Any) -> None:
    limit = kernel.Limit(SystemClock(), floor=64, ceiling=4096, adaptive=True)
    reserve = int(Priority.RESERVE)

    def call() -> None:
        for _ in range(CALLS):
            limit.leave(reserve, limit.try_enter(reserve), True)

    measure(benchmark, call, CALLS)


@pytest.mark.benchmark(group="kernels: shed a request")
@forms(ext.limit, plain_limit)
def test_shed(benchmark: Any, kernel: Any) -> None:
    limit = kernel.Limit(SystemClock(), floor=64, ceiling=64, adaptive=True)
    browse = int(Priority.BROWSE)
    while limit.try_enter(browse):
        pass

    def call() -> None:
        for _ in range(CALLS):
            limit.try_enter(browse)

    measure(benchmark, call, CALLS)
