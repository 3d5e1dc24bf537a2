"""What a waiting room costs Redis: the server's time of one call of each script, with a full room.

`pytest benchmarks/test_redis_room.py`: `extra_info` has the server's own time; those that
pytest-benchmark shows are a client's round trips, fsync included.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import pytest

from benchmarks import rig
from engine.admission.room.settings import RoomSettings
from engine.admission.room.store import ENTER_BATCH_MAX, Numbers, RoomStore
from engine.clock import ManualClock, SystemClock
from engine.connections import connect_redis
from engine.inventory import Inventory, SaleRef
from engine.inventory.inventory import Counters, SaleSettings
from engine.model import SaleState

SALE: Final = "room"
WAITING: Final = 1_000_000
ROUNDS: Final = 50
DAY_MS: Final = 86_400_000


class Lobby:
    """A sale with a room of a million numbers, half of whose holders are there."""

    def __init__(self, url: str) -> None:
        self.runner = asyncio.Runner()
        self.redis: Any = connect_redis(url, 5)
        self.clock = ManualClock(SystemClock().now_ms())
        self.store = RoomStore(self.redis, self.clock, our_clock_rules=True)
        self.bits = random.Random(1).randbytes(WAITING // 8)
        self.entered = 0

    async def open(self) -> None:
        now_ms = self.clock.now_ms()
        inventory = Inventory(self.redis, self.clock, batch_max=1, queue_max=1)
        settings = SaleSettings(1, SaleState.OPEN, now_ms - 1000, now_ms + DAY_MS, 2, 900)
        await inventory.launch(SaleRef(SALE, 1), settings, {"phone": Counters(rig.UNITS, 0, 0)})
        room = RoomSettings(revision=1, on=True)
        await self.store.furnish(SALE, room, "5eed", Numbers(issued=WAITING))
        for _ in range(30):  # Until everybody has been judged.
            await self.attend()
        await self.serve()
        await self.enter()

    async def enter(self) -> None:
        names = range(self.entered, self.entered + ENTER_BATCH_MAX)
        self.entered += ENTER_BATCH_MAX
        people = (self.store.enter(SALE, f"user-{n:08d}", holds_ticket=False) for n in names)
        await asyncio.gather(*people)

    async def attend(self) -> None:
        self.clock.advance(seconds=5)
        await self.store.attend(SALE, self.bits, None)

    async def serve(self) -> None:
        self.clock.advance(seconds=0.1)
        await self.store.serve(SALE, 1000)

    async def look(self) -> None:
        await self.store.serve(SALE, 1000)

    async def script_us(self) -> int:
        return int((await self.redis.info("commandstats"))["cmdstat_evalsha"]["usec"])


@pytest.fixture(scope="module")
def lobby() -> Iterator[Lobby]:
    with rig.valkey() as server:
        lobby = Lobby(server.url)
        lobby.runner.run(lobby.open())
        yield lobby
        lobby.runner.run(lobby.redis.aclose())
        lobby.runner.close()


@pytest.mark.benchmark(group="redis: the waiting room")
@pytest.mark.parametrize(
    ("name", "people"), [("enter", ENTER_BATCH_MAX), ("attend", 1), ("serve", 1), ("look", 1)]
)
def test_room(benchmark: Any, lobby: Lobby, name: str, people: int) -> None:
    call: Callable[[], Awaitable[None]] = getattr(lobby, name)
    began_us = lobby.runner.run(lobby.script_us())

    benchmark.pedantic(lambda: lobby.runner.run(call()), rounds=ROUNDS, iterations=1)  # type: ignore[arg-type]

    spent_us = lobby.runner.run(lobby.script_us()) - began_us
    benchmark.extra_info |= {
        "script": name,
        "waiting": WAITING,
        "server_us": spent_us / ROUNDS / people,
        **rig.machine(),
    }
