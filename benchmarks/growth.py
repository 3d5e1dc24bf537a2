"""Whether a reservation costs Redis more in a larger sale: with many buyers, and with many SKUs.

    python -m benchmarks.growth [buyers]

Prints one JSON object. CPU is that of the whole Valkey process, from /proc: script, protocol, AOF
write and fsync (strict durability). What is compared runs on two servers, in short slices by turns:
what others do to the machine meanwhile hits both, and each ratio is of the sums of all slices.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from benchmarks import rig
from engine.clock import SystemClock
from engine.connections import connect_redis
from engine.inventory import Inventory, SaleRef
from engine.inventory.inventory import Counters, SaleSettings, format_record
from engine.inventory.link import RedisLink
from engine.keys import shard_keys
from engine.lua import LuaScript
from engine.model import Reservation, ReservationState, SaleState
from ext import ReserveBatch

FEW: Final = 10_000
BUYERS: Final = (100_000, 500_000, 1_000_000, 2_000_000)
LARGE_SLICES: Final = 4  # To one of the small sale: the large one has far to go.
BATCH: Final = 256
SLICE: Final = 8  # Calls per turn: short beside whatever else the machine does.
TURNS: Final = 50  # 102,400 reservations a side.
SUBSCRIBERS: Final = 4
FILL_PER_CALL: Final = 2_000
QUIET_SECONDS: Final = 0.05  # Between looks at whether Valkey still rewrites its AOF.


class Shelf:
    """A sale on a server of its own, whose buyers come in order, each for one unit."""

    def __init__(self, url: str, pid: int, skus: int = 1, *, zipf: bool = False) -> None:
        self.url = url
        self.keys = shard_keys("growth")
        self.cpu_us = 0.0
        self.reserved = 0
        self._redis: Any = connect_redis(url, 30)
        self._link = RedisLink(self._redis)
        self._pid = pid
        self._sale = SaleRef("growth", 1)
        self._wishes = [f"phone-{number}*1" for number in range(skus)]
        self._weights = list(accumulate(1 / (n + 1) if zipf else 1.0 for n in range(skus)))
        self._random = random.Random(skus)  # The same crowd every time.
        self._script = LuaScript("reserve")
        self.buyers = 0

    async def put_up(self) -> None:
        now_ms = SystemClock().now_ms()
        settings = SaleSettings(1, SaleState.OPEN, now_ms - 1000, now_ms + 86_400_000, 2, 3600)
        stock = {wish.removesuffix("*1"): Counters(rig.UNITS, 0, 0) for wish in self._wishes}
        inventory = Inventory(self._redis, SystemClock(), batch_max=512, queue_max=1)
        await self._redis.flushall()
        self.buyers = 0
        assert await inventory.launch(self._sale, settings, stock) == "LAUNCHED"
        await self._reserve(self._pack(BATCH))  # Loads the script.

    def forget(self) -> None:
        """What was measured so far."""
        self.cpu_us, self.reserved = 0.0, 0

    async def close(self) -> None:
        self._link.close()
        await self._redis.aclose()

    async def fill(self, buyers: int) -> None:
        """Records of so many buyers, as reserve.lua writes them, in few calls."""
        held = ReservationState.RESERVED
        while self.buyers < buyers:
            numbers = range(self.buyers, min(self.buyers + FILL_PER_CALL, buyers))
            records = {
                user_of(n): format_record([Reservation(id_of(n), held, 10**12, "phone-0*1")])
                for n in numbers
            }
            await self._redis.hset(self.keys.buyers, mapping=records)
            self.buyers = numbers.stop
        await self.settle()

    async def settle(self) -> None:
        """Waits for the rewrite of the AOF that filling set off."""
        while await self._rewrites():  # noqa: ASYNC110  # Valkey tells nobody.
            await asyncio.sleep(QUIET_SECONDS)

    async def _rewrites(self) -> bool:
        return bool((await self._redis.info("persistence"))["aof_rewrite_in_progress"])

    async def slice(self, batch: int = BATCH, calls: int = SLICE) -> None:
        """So many calls, whose CPU is added up; the stream is emptied, as the drainer would."""
        packed = [self._pack(batch) for _ in range(calls)]
        began_us = cpu_us(self._pid)
        for one in packed:
            await self._reserve(one)
        self.cpu_us += cpu_us(self._pid) - began_us
        self.reserved += batch * calls
        await self._redis.xtrim(self.keys.orders, maxlen=0, approximate=False)

    def us_per_reservation(self) -> float:
        return self.cpu_us / self.reserved

    def _pack(self, size: int) -> ReserveBatch:
        batch, waiter = ReserveBatch(), object()
        wishes = self._random.choices(self._wishes, cum_weights=self._weights, k=size)
        for number, wish in enumerate(wishes, self.buyers):
            batch.add(waiter, user_of(number), id_of(number), wish)
        self.buyers += size
        return batch

    async def _reserve(self, batch: ReserveBatch) -> None:
        first = [str(self._sale.epoch), str(SystemClock().now_ms())]
        reply = await self._script.run_packed(
            self._redis, self._link.call, [*self.keys.without_room], first, batch.command
        )
        assert len(reply) == 1, reply  # All were reserved.


def user_of(number: int) -> str:
    return f"buyer-{number:07d}"


def id_of(number: int) -> str:
    return f"{number:020d}"


def cpu_us(pid: int) -> float:
    """User and system time of all threads of a process so far, as the scheduler counts it in ns."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e3


@asynccontextmanager
async def shelves(*kinds: dict[str, Any]) -> AsyncIterator[list[Shelf]]:
    """A sale per kind, each on a server of its own."""
    if not kinds:
        yield []
        return
    with rig.valkey() as server:
        assert server.pid is not None
        shelf = Shelf(server.url, server.pid, **kinds[0])
        await shelf.put_up()
        async with shelves(*kinds[1:]) as others:
            yield [shelf, *others]
        await shelf.close()


async def by_turns(all_shelves: Sequence[Shelf], turns: int = TURNS) -> list[float]:
    """µs per reservation of each, measured in slices that take turns."""
    for shelf in all_shelves:
        shelf.forget()
    for turn in range(turns):
        for shelf in all_shelves if turn % 2 else all_shelves[::-1]:
            await shelf.slice()
    return [shelf.us_per_reservation() for shelf in all_shelves]


async def by_buyers(counts: Sequence[int]) -> dict[str, Any]:
    """Doublings that end at each count, beside a small sale that doubles over and over.

    A table's size doubles too, and the move to the new one is paid by those who come meanwhile: a
    short look sees either the whole of it or nothing, a doubling has its fair share.
    """
    found = {}
    async with shelves({}, {}) as (small, large):
        for count in counts:
            await large.fill(count // 2)
            await double(small, large, count)
            few_us, many_us = small.us_per_reservation(), large.us_per_reservation()
            found[str(count)] = compared(few_us, many_us)
    return found


async def double(small: Shelf, large: Shelf, count: int) -> None:
    small.forget()
    large.forget()
    while large.buyers < count:
        if not FEW <= small.buyers < 2 * FEW:
            await small.put_up()
            await small.fill(FEW)
        await small.slice()
        for _ in range(LARGE_SLICES):
            await large.slice()


async def by_skus() -> dict[str, Any]:
    """200 SKUs, wanted alike or as a crowd wants them (the n-th 1/n as often), against one."""
    kinds: list[dict[str, Any]] = [
        {"skus": 1},
        {"skus": 8},
        {"skus": 200, "zipf": True},
        {"skus": 200},
    ]
    async with shelves(*kinds) as all_shelves:
        one_us, *others_us = await by_turns(all_shelves)
    names = ("8", "200 zipf", "200 alike")
    return {name: compared(one_us, us) for name, us in zip(names, others_us, strict=True)}


async def by_subscribers() -> dict[str, float]:
    """What it costs that fronts listen for new holders."""
    async with shelves({}, {}) as (alone, heard):
        listeners = [asyncio.create_task(listen(heard)) for _ in range(SUBSCRIBERS)]
        alone_us, heard_us = await by_turns((alone, heard))
        for listener in listeners:
            listener.cancel()
        await asyncio.gather(*listeners, return_exceptions=True)
    return compared(alone_us, heard_us)


async def listen(shelf: Shelf) -> None:
    """Reads everything and does nothing with it."""
    reader, writer = await asyncio.open_unix_connection(shelf.url.removeprefix("unix://"))
    try:
        writer.write(f"SSUBSCRIBE {shelf.keys.arrivals}\r\n".encode())
        while await reader.read(1 << 20):
            pass
    finally:
        writer.close()


def compared(before_us: float, after_us: float) -> dict[str, float]:
    ratio = after_us / before_us
    return {"cpu_us": round(after_us, 3), "base_us": round(before_us, 3), "ratio": round(ratio, 3)}


async def measure(buyers_max: int = BUYERS[-1]) -> dict[str, Any]:
    began = time.monotonic()
    counts = [count for count in BUYERS if count < buyers_max] + [buyers_max]
    buyers, skus = await by_buyers(counts), await by_skus()
    subscribers = await by_subscribers()
    with rig.valkey() as server:
        redis = connect_redis(server.url, 5)
        facts = rig.server_facts(await redis.info("server"))
        await redis.aclose()
    return {
        "durability": "strict",
        "batch": BATCH,
        **rig.machine(),
        **facts,
        "seconds": round(time.monotonic() - began, 1),
        "cpu_us": buyers[str(buyers_max)]["base_us"],
        "buyers_ratio": buyers[str(buyers_max)]["ratio"],
        "skus_ratio": skus["200 zipf"]["ratio"],
        "skus_alike_ratio": skus["200 alike"]["ratio"],
        "buyers": buyers,
        "skus": skus,
        "subscribers": subscribers,
    }


def main() -> None:
    buyers_max = int(sys.argv[1]) if len(sys.argv) > 1 else BUYERS[-1]
    print(json.dumps(asyncio.run(measure(buyers_max)), indent=1))


if __name__ == "__main__":
    main()
