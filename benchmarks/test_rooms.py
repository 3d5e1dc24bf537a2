"""What the waiting room costs a front: per poll, per check, per ticket; the draw; memory per place."""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

from benchmarks import rig
from engine.admission.room.forecast import Forecast
from engine.admission.room.settings import RoomOrder, RoomSettings
from engine.admission.room.store import RoomLook
from engine.model import SaleState

NOW = 1_700_000_000.0
CALLS = 1000  # Of what is over in microseconds.
MILLION = 1_000_000
KEY = b"a key of thirty-two bytes or so."
LOOK = RoomLook(
    now_ms=int(NOW * 1000),
    revision=1,
    on=True,
    order=RoomOrder.FIFO,
    issued=MILLION,
    serving=2000,
    drawn=None,
    seed=None,
    rate=1000.0,
    admitted=2000,
    used=1500,
    available=8000,
    reserved=1500,
    sold=500,
    opens_at_ms=int(NOW * 1000) - 2000,
    closes_at_ms=int(NOW * 1000) + 3_600_000,
    state=SaleState.OPEN,
    waiting=MILLION - 2000,
    mark=MILLION,
)
forms = pytest.mark.parametrize("form", ["ext", "ext.plain"], ids=["compiled", "plain"])


def measure(benchmark: Any, call: Callable[[], object], lines: int) -> None:
    """`lines` is how often one call does what the group's name says."""
    benchmark(call)
    benchmark.extra_info |= {"lines": lines, **rig.machine()}


def make_room(form: str) -> tuple[Any, Any]:
    """A room of a million people, every third absent, and its key."""
    key = import_module(f"{form}.tickets").TicketKey(KEY)
    forecast = Forecast()
    forecast.expect(RoomSettings(on=True), 1000.0)
    room = import_module(f"{form}.room").Room("double-11", key, forecast)
    room.learn(LOOK)
    room.learn_present(b"\x6d\xb6\xdb" * (MILLION // 24), MILLION)
    return room, key


def tickets_of(key: Any, first: int, seconds: int = 295) -> list[tuple[bytes, str]]:
    """Waiting tickets of a thousand people all over the room, good for so long."""
    return [
        (
            key.sign("double-11", f"user-{n}", n, int(NOW) - 5, int(NOW) + seconds, 60, False),
            f"user-{n}",
        )
        for n in range(first, first + CALLS * 500, 500)
    ]


@pytest.mark.benchmark(group="rooms: answer a poll")
@forms
def test_poll(benchmark: Any, form: str) -> None:
    room, key = make_room(form)
    tickets = tickets_of(key, 3000)

    def call() -> None:
        for token, user in tickets:
            room.poll(token, user, NOW)

    assert room.poll(*tickets[0], NOW)
    measure(benchmark, call, CALLS)


@pytest.mark.benchmark(group="rooms: answer the first poll of a ticket")
@forms
def test_first_poll(benchmark: Any, form: str) -> None:
    room, key = make_room(form)
    tickets, others = tickets_of(key, 3000), tickets_of(key, 3000, seconds=294)

    def call() -> None:
        # Of each place the ticket verified last is known: these two take turns.
        for token, user in tickets:
            room.poll(token, user, NOW)
        for token, user in others:
            room.poll(token, user, NOW)

    measure(benchmark, call, 2 * CALLS)


@pytest.mark.benchmark(group="rooms: check an admitted ticket")
@forms
def test_check(benchmark: Any, form: str) -> None:
    room, key = make_room(form)
    tickets = [
        (key.sign("double-11", f"user-{n}", n, int(NOW) - 5, int(NOW) + 295, 60, True), f"user-{n}")
        for n in range(1, 1 + CALLS)
    ]

    def call() -> None:
        for token, user in tickets:
            room.check(token, user, NOW)

    assert room.check(*tickets[0], NOW) == 1
    measure(benchmark, call, CALLS)


@pytest.mark.benchmark(group="rooms: sign a ticket")
@forms
def test_sign(benchmark: Any, form: str) -> None:
    key = import_module(f"{form}.tickets").TicketKey(KEY)
    measure(benchmark, lambda: tickets_of(key, 1), CALLS)


@pytest.mark.benchmark(group="rooms: read a ticket")
@forms
def test_read(benchmark: Any, form: str) -> None:
    key = import_module(f"{form}.tickets").TicketKey(KEY)
    tickets = tickets_of(key, 1)

    def call() -> None:
        for token, _ in tickets:
            key.read(token)

    assert key.read(tickets[0][0])
    measure(benchmark, call, CALLS)


@pytest.mark.benchmark(group="rooms: learn a look and foresee")
def test_learn(benchmark: Any) -> None:
    room, _ = make_room("ext")
    looks = [LOOK._replace(now_ms=LOOK.now_ms + 1000 * n) for n in range(1, 101)]

    def call() -> None:
        for look in looks:
            room.learn(look)

    measure(benchmark, call, len(looks))


@pytest.mark.benchmark(group="rooms: learn who of a million is present")
def test_learn_present(benchmark: Any) -> None:
    room, _ = make_room("ext")
    bitmap = b"\x6d\xb6\xdb" * (MILLION // 24)
    measure(benchmark, lambda: room.learn_present(bitmap, MILLION), 1)


@pytest.mark.benchmark(group="rooms: draw a million places")
@forms
def test_draw(benchmark: Any, form: str) -> None:
    draw = import_module(f"{form}.draw").draw
    benchmark.pedantic(lambda: draw(bytes(32), MILLION), rounds=3)
    benchmark.extra_info |= {"lines": 1, **rig.machine()}


@pytest.mark.benchmark(group="rooms: memory of a room with a million drawn places")
def test_memory(benchmark: Any) -> None:
    """Resident bytes that a room adds when a million tickets were polled, in bytes per place."""
    draw = import_module("ext.draw").draw
    key = import_module("ext.tickets").TicketKey(KEY)

    def fill() -> int:
        before = resident_bytes()
        room = import_module("ext.room").Room("double-11", key, Forecast())
        room.learn(LOOK._replace(order=RoomOrder.DRAW, drawn=MILLION, seed="00" * 32))
        room.learn_draw(draw(bytes(32), MILLION))
        room.learn_present(b"\xff" * (MILLION // 8), MILLION)
        for number in range(1, MILLION + 1):
            room.issue("somebody", number, NOW)
        room.take_attendance()
        return resident_bytes() - before

    grown = benchmark.pedantic(fill, rounds=1)
    assert grown < 50 * MILLION
    benchmark.extra_info |= {"lines": MILLION, "bytes_per_place": grown / MILLION, **rig.machine()}
    print(f"\n{grown / MILLION:.1f} bytes per place", file=sys.stderr)


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096
