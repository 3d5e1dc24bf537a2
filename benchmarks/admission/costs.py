"""What each check of admission costs, and what a million clients and a million places take in memory.

    python -m benchmarks.admission.costs

Nanoseconds of CPU per call, the Python call included, the best of several rounds: noise only adds.
Memory is that of a fresh process, before and after. What a poll costs over HTTP is measured in `polls`.
"""

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from random import Random
from typing import Any, Final, cast

from benchmarks import rig
from benchmarks.capacity.usage import resident_bytes
from benchmarks.figures import at_most
from engine.admission.access import AccessRules
from engine.admission.addresses import AddressReader
from engine.admission.breaker import Breaker
from engine.admission.limit import Priority
from engine.admission.room.forecast import Forecast
from engine.admission.room.settings import RoomOrder
from engine.admission.room.store import RoomLook
from engine.admission.room.tickets import ticket_key
from engine.clock import SystemClock
from engine.config import Durability, Settings
from engine.connections import connect_redis
from engine.inventory import Inventory
from engine.inventory.inventory import Counters, SaleRef, SaleSettings
from engine.inventory.memory import StockMemory
from engine.model import Outcome, SaleState
from ext import ClientTable, Limit, Meter, Room, Throttle

CALLS: Final = 20_000
ROUNDS: Final = 7
NANOSECONDS_MAX: Final = 1000  # The promise for every hot check.
TICKET_NANOSECONDS_MAX: Final = 4000  # A ticket seen first: the same and an HMAC of 200 bytes.
CLIENTS: Final = 1_000_000
MEMORY_MIB_MAX: Final = 150.0
MIB: Final = 2**20
SALE: Final = "bench"

Call = Callable[[], object]


def nanoseconds(calls: Callable[[int], Iterator[Call]] | Call, *, fresh: bool = False) -> float:
    """CPU time per call. `fresh`: a function that makes so many calls, each of them used once."""
    return min(_round(calls, fresh=fresh) for _ in range(ROUNDS))


def _round(calls: Any, *, fresh: bool) -> float:
    count = CALLS // 10 if fresh else CALLS
    work = list(calls(count)) if fresh else [calls] * count
    began = time.process_time_ns()
    for call in work:
        call()
    return (time.process_time_ns() - began) / count


def checks() -> dict[str, float]:
    """Each by itself, all of them letting the caller in unless the name says otherwise."""
    clock = SystemClock()
    table = ClientTable(2**20)
    users = Throttle(table, "user", clock, per_second=1e9, burst=1_000_000)
    addresses = Throttle(table, "address", clock, per_second=1e9, burst=1_000_000)
    reader = AddressReader.of(Settings(trusted_proxies="10.0.0.0/8"))
    rules = AccessRules(cast("Any", None), clock)
    limit = Limit(clock, floor=64, ceiling=4096, adaptive=True)
    meter = Meter(clock)
    breaker = Breaker("bench", clock, Random(1))

    def enter_and_leave() -> None:
        limit.leave(Priority.RESERVE, limit.try_enter(Priority.RESERVE), True)

    new_names = (f"user-{number}" for number in range(CALLS * ROUNDS))

    def new_users(count: int) -> Iterator[Call]:
        for _ in range(count):
            name = next(new_names)
            yield lambda name=name: users.admit(name)  # type: ignore[misc]

    found = {
        "throttle, user known": nanoseconds(lambda: users.admit("buyer-1")),
        "throttle, user new": nanoseconds(new_users, fresh=True),
        "throttle, address": nanoseconds(lambda: addresses.admit("203.0.113.7")),
        "address behind a proxy, known": nanoseconds(
            lambda: reader.client("10.0.0.1", None, "203.0.113.7")
        ),
        "access rules": nanoseconds(lambda: rules.verdict("buyer-1", "203.0.113.7", SALE)),
        "limit, enter and leave": nanoseconds(enter_and_leave),
        "meter without a limit": nanoseconds(meter.admit),
        "breaker": nanoseconds(breaker.allows),
    }
    meter.set_rate(1e9, 1e6)
    found["meter"] = nanoseconds(meter.admit)
    return found | room_checks()


def room_checks() -> dict[str, float]:
    """A room of a million, its first thousand served."""
    room, now_s = open_room(CLIENTS), time.time()
    waiting, _ = room.issue("buyer-w", 500_000, now_s)
    served, _ = room.issue("buyer-s", 10, now_s)
    key = ticket_key(rig.SECRET)
    numbers = iter(range(2000, CLIENTS))

    def new_tickets(count: int) -> Iterator[Call]:
        for _ in range(count):
            number = next(numbers)
            name = f"buyer-{number}"
            token = key.sign(SALE, name, number, int(now_s), int(now_s) + 300, -1, False)
            yield lambda token=token, name=name: room.check(token, name, now_s)  # type: ignore[misc]

    return {
        "room, a ticket seen before": nanoseconds(lambda: room.check(served, "buyer-s", now_s)),
        "room, a ticket seen first": nanoseconds(new_tickets, fresh=True),
        "room, a poll": nanoseconds(lambda: room.poll(waiting, "buyer-w", now_s)),
    }


def open_room(issued: int) -> Any:
    room = Room(SALE, ticket_key(rig.SECRET), Forecast())
    now_ms = int(time.time() * 1000)
    room.learn(make_look(now_ms, issued))
    return room


def make_look(now_ms: int, issued: int) -> RoomLook:
    return RoomLook(
        now_ms=now_ms, revision=1, on=True, order=RoomOrder.FIFO, issued=issued, serving=1000,
        drawn=None, seed=None, rate=100.0, admitted=1000, used=700, available=9000, reserved=500,
        sold=500, opens_at_ms=now_ms - 60_000, closes_at_ms=now_ms + 3_600_000,
        state=SaleState.OPEN, waiting=issued - 1000, mark=0,
    )  # fmt: skip


class _Sale:
    sale_id, epoch, revision = SALE, 1, 1


async def memory_refusal(redis_url: str) -> float:
    """A refusal from memory, of a sale that is sold out."""
    redis, clock = connect_redis(redis_url, 5), SystemClock()
    inventory = Inventory(redis, clock, batch_max=256, queue_max=1)
    now_ms = clock.now_ms()
    settings = SaleSettings(1, SaleState.OPEN, now_ms - 1000, now_ms + 3_600_000, 2, 900)
    await inventory.launch(SaleRef(SALE, 1), settings, {"phone": Counters(0, 0, 1000)})
    memory = StockMemory(inventory, redis, clock)
    try:
        memory.learnt(_Sale, Outcome.SOLD_OUT)
        while memory.refusal(_Sale, "buyer-1", "phone*1", now_ms) is None:
            await memory.refresh_once()
            await asyncio.sleep(0)
        return nanoseconds(lambda: memory.refusal(_Sale, "buyer-1", "phone*1", now_ms))
    finally:
        await memory.stop()
        await redis.aclose()


# Memory: in processes of their own, where nothing was freed before.


def clients_mib() -> float:
    """Of one table that remembers a million clients, every place of it touched."""
    with _grown() as grown:
        table = ClientTable(2**20)
        throttle = Throttle(table, "user", SystemClock(), per_second=0.01, burst=10)
        for number in range(CLIENTS):
            throttle.admit(f"buyer-{number}")
        return grown()


def places_mib() -> float:
    """Of one front's room with a million tickets issued and polled."""
    now_s = time.time()
    with _grown() as grown:
        room = open_room(CLIENTS)
        for number in range(1, CLIENTS + 1):
            room.issue(f"buyer-{number}", number, now_s)
        room.learn_present(room.take_attendance(), CLIENTS)
        return grown()


@contextmanager
def _grown() -> Iterator[Callable[[], float]]:
    """How many MiB the process has grown by."""
    before = _own_bytes()
    yield lambda: (_own_bytes() - before) / MIB


def _own_bytes() -> int:
    return resident_bytes(os.getpid())


def _in_a_fresh_process(work: Callable[[], float]) -> float:
    context = get_context("spawn")
    mine, its = context.Pipe()
    process = context.Process(target=_tell, args=(work, its))
    process.start()
    its.close()
    try:
        return float(mine.recv())
    finally:
        process.join()


def _tell(work: Callable[[], float], to: Connection) -> None:
    to.send(work())


def measure() -> dict[str, Any]:
    found = checks()
    with rig.valkey(Durability.BALANCED) as server:
        found["refusal from memory"] = asyncio.run(memory_refusal(server.url))
    memory = {
        "a million clients remembered": _in_a_fresh_process(clients_mib),
        "a room with a million places": _in_a_fresh_process(places_mib),
    }
    figures = [
        at_most(
            name, round(ns), "ns", TICKET_NANOSECONDS_MAX if "first" in name else NANOSECONDS_MAX
        )
        for name, ns in found.items()
    ]
    figures += [at_most(name, round(mib, 1), "MiB", MEMORY_MIB_MAX) for name, mib in memory.items()]
    return {
        "nanoseconds": {name: round(ns, 1) for name, ns in found.items()},
        "memory_mib": {name: round(mib, 1) for name, mib in memory.items()},
        "figures": [figure.as_dict() for figure in figures],
    }


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1, ensure_ascii=False))
