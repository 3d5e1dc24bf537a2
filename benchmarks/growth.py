"""Whether a reservation costs Redis more in a larger sale: CPU by batch, by buyers and by SKUs.

    python -m benchmarks.growth [buyers]

Prints one JSON object. CPU is that of the whole Valkey process, from /proc: script, protocol, AOF
write and fsync (strict durability). Each value is the mean over one slice of a sale; the stream is
emptied between slices, as the drainer would.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from benchmarks import rig
from engine.clock import SystemClock
from engine.connections import connect_redis
from engine.inventory import Inventory, SaleRef
from engine.inventory.inventory import Counters, SaleSettings
from engine.keys import ShardKeys, shard_keys
from engine.lua import LuaScript
from engine.model import SaleState

BUYERS_MAX: Final = 2_000_000
SLICE: Final = 100_000  # Reservations per value: 0.3 s of CPU, read to 10 ms.
BATCH: Final = 256
BATCHES: Final = (64, 128, 256)
SKUS: Final = (1, 8, 50, 200)
SUBSCRIBERS: Final = 4
TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")


class Shelf:
    """A sale whose buyers come in order, each for one unit."""

    def __init__(self, redis: Redis, pid: int, sale_id: str, skus: int) -> None:
        self.keys: ShardKeys = shard_keys(sale_id)
        self._redis: Any = redis
        self._pid = pid
        self._sale = SaleRef(sale_id, 1)
        self._skus = [f"phone-{number}" for number in range(skus)]
        self._script = LuaScript("reserve")
        self.buyers = 0

    async def put_up(self) -> None:
        now_ms = SystemClock().now_ms()
        settings = SaleSettings(1, SaleState.OPEN, now_ms - 1000, now_ms + 86_400_000, 2, 3600)
        stock = {sku: Counters(rig.UNITS, 0, 0) for sku in self._skus}
        inventory = Inventory(self._redis, SystemClock(), batch_max=512, queue_max=1)
        assert await inventory.launch(self._sale, settings, stock) == "LAUNCHED"
        await self.reserve(1)  # Loads the script.

    async def reserve(self, batch: int) -> None:
        args: list[str | int] = [self._sale.epoch, SystemClock().now_ms()]
        for number in range(self.buyers, self.buyers + batch):
            sku = self._skus[number % len(self._skus)]
            args += (f"buyer-{number:07d}", f"{number:020d}", f"{sku}*1")
        self.buyers += batch
        replies = await self._script.run(self._redis, [*self.keys], args)
        assert replies.count(b"RESERVED") == batch

    async def slice(self, batch: int, count: int = SLICE) -> dict[str, float]:
        """CPU and script time per reservation over the next `count`."""
        cpu, script = cpu_us(self._pid), await self._script_us()
        for _ in range(count // batch):
            await self.reserve(batch)
        done = count // batch * batch
        cpu, script = cpu_us(self._pid) - cpu, await self._script_us() - script
        await self._redis.xtrim(self.keys.orders, maxlen=0, approximate=False)
        return {"cpu_us": round(cpu / done, 3), "script_us": round(script / done, 3)}

    async def _script_us(self) -> int:
        return int((await self._redis.info("commandstats"))["cmdstat_evalsha"]["usec"])


def cpu_us(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND * 1e6


async def by_batch(redis: Redis, pid: int) -> dict[str, Any]:
    found = {}
    for batch in BATCHES:
        shelf = Shelf(redis, pid, f"batch-{batch}", skus=8)
        await shelf.put_up()
        await shelf.slice(batch, SLICE // 10)
        found[str(batch)] = await shelf.slice(batch)
    return found


async def by_skus(redis: Redis, pid: int) -> dict[str, Any]:
    found = {}
    for skus in SKUS:
        shelf = Shelf(redis, pid, f"skus-{skus}", skus=skus)
        await shelf.put_up()
        await shelf.slice(BATCH, SLICE // 10)
        found[str(skus)] = await shelf.slice(BATCH)
    return found


async def by_buyers(redis: Redis, pid: int, buyers_max: int) -> dict[str, Any]:
    """Slices in a row; each is named by the buyers who were there when it began."""
    shelf = Shelf(redis, pid, "buyers", skus=8)
    await shelf.put_up()
    await shelf.slice(BATCH, SLICE // 10)
    found = {}
    while shelf.buyers < buyers_max:
        found[str(shelf.buyers)] = await shelf.slice(BATCH)
    return found


async def by_subscribers(redis: Redis, pid: int, url: str) -> dict[str, Any]:
    """What it costs that fronts listen for new holders."""
    found = {}
    for count in (0, SUBSCRIBERS):
        shelf = Shelf(redis, pid, f"subscribers-{count}", skus=8)
        await shelf.put_up()
        async with listening(url, shelf.keys, count):
            await shelf.slice(BATCH, SLICE // 10)
            found[str(count)] = await shelf.slice(BATCH)
    return found


@asynccontextmanager
async def listening(url: str, keys: ShardKeys, count: int) -> AsyncIterator[None]:
    """So many subscribers who read everything and do nothing with it."""
    listeners = [asyncio.create_task(listen(url, keys)) for _ in range(count)]
    yield
    for listener in listeners:
        listener.cancel()
    await asyncio.gather(*listeners, return_exceptions=True)


async def listen(url: str, keys: ShardKeys) -> None:
    reader, writer = await asyncio.open_unix_connection(url.removeprefix("unix://"))
    try:
        writer.write(f"SSUBSCRIBE {keys.arrivals}\r\n".encode())
        while await reader.read(1 << 20):
            pass
    finally:
        writer.close()


async def measure(buyers_max: int = BUYERS_MAX) -> dict[str, Any]:
    began = time.monotonic()
    with rig.valkey() as server:
        assert server.pid is not None
        redis = connect_redis(server.url, 30)
        found = {
            "batch": await by_batch(redis, server.pid),
            "skus": await by_skus(redis, server.pid),
            "subscribers": await by_subscribers(redis, server.pid, server.url),
            "buyers": await by_buyers(redis, server.pid, buyers_max),
        }
        facts = rig.server_facts(await redis.info("server"))
        await redis.aclose()
    seconds = round(time.monotonic() - began, 1)
    return {"durability": "strict", **rig.machine(), **facts, "seconds": seconds, **found}


def main() -> None:
    buyers_max = int(sys.argv[1]) if len(sys.argv) > 1 else BUYERS_MAX
    print(json.dumps(asyncio.run(measure(buyers_max)), indent=1))


if __name__ == "__main__":
    main()
