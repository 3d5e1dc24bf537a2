"""What a reservation costs Redis: server time by batch size, and memory.

The times pytest-benchmark shows are a client's round trips, fsync included. `extra_info` has the
server's own: the script's time, and the CPU of the whole process, AOF write and fsync included.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks import rig
from benchmarks.growth import cpu_us
from engine.clock import SystemClock
from engine.connections import connect_redis
from engine.inventory import Inventory, SaleRef
from engine.inventory.inventory import Counters, SaleSettings
from engine.keys import shard_keys
from engine.model import Reserved, SaleState

SALE = SaleRef("bench", 1)
MEMORY_RESERVATIONS = 100_000


class Bench:
    """A sale on a Valkey of our own."""

    def __init__(self, url: str, pid: int) -> None:
        self.pid = pid
        self.runner = asyncio.Runner()
        self.redis: Any = connect_redis(url, 5)
        self.inventory = Inventory(self.redis, SystemClock(), batch_max=512, queue_max=1)
        self.next_buyer = 0

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    async def launch(self) -> None:
        # At once: memory that is given back later would count for what comes next.
        await self.redis.execute_command("FLUSHALL", "SYNC")
        now_ms = SystemClock().now_ms()
        settings = SaleSettings(1, SaleState.OPEN, now_ms - 1000, now_ms + 86_400_000, 2, 3600)
        stock = {sku: Counters(rig.UNITS, 0, 0) for sku in rig.SKUS}
        assert await self.inventory.launch(SALE, settings, stock) == "LAUNCHED"
        await self.reserve(1)  # Loads the script.

    async def reserve(self, batch: int) -> None:
        requests = rig.make_requests(SALE.sale_id, self.next_buyer, batch)
        self.next_buyer += batch
        answers = await self.inventory.reserve_batch(SALE, requests)
        assert all(isinstance(answer, Reserved) for answer in answers)

    async def info(self, section: str) -> Any:
        return await self.redis.info(section)

    async def script_us(self) -> int:
        return int((await self.info("commandstats"))["cmdstat_evalsha"]["usec"])


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with rig.valkey() as server:
        assert server.pid is not None
        bench = Bench(server.url, server.pid)
        yield bench
        bench.run(bench.redis.aclose())
        bench.runner.close()


@pytest.mark.benchmark(group="redis: reserve.lua")
@pytest.mark.parametrize("batch", [1, 8, 64, 128, 256, 512])
def test_reserve(benchmark: Any, bench: Bench, batch: int) -> None:
    bench.run(bench.launch())
    rounds = min(3000, max(500, 200_000 // batch))
    made, began_us = bench.next_buyer, bench.run(bench.script_us())
    began_cpu_us = cpu_us(bench.pid)

    benchmark.pedantic(lambda: bench.run(bench.reserve(batch)), rounds=rounds, iterations=1)

    spent_cpu_us = cpu_us(bench.pid) - began_cpu_us
    spent_us = bench.run(bench.script_us()) - began_us
    benchmark.extra_info |= {
        "server_us_per_reservation": spent_us / (bench.next_buyer - made),
        "process_us_per_reservation": spent_cpu_us / (bench.next_buyer - made),
        "batch": batch,
        "durability": "strict",
        **rig.machine(),
        **rig.server_facts(bench.run(bench.info("server"))),
    }


@pytest.mark.benchmark(group="redis: memory")
def test_memory(benchmark: Any, bench: Bench) -> None:
    bench.run(bench.launch())
    used = [bench.run(bench.info("memory"))["used_memory"]]

    def fill() -> None:
        for _ in range(MEMORY_RESERVATIONS // 125):
            bench.run(bench.reserve(125))

    benchmark.pedantic(fill, rounds=1, iterations=1)
    used.append(bench.run(bench.info("memory"))["used_memory"])
    bench.run(drop_stream(bench))
    used.append(bench.run(bench.info("memory"))["used_memory"])
    benchmark.extra_info |= {
        "bytes_per_reservation": (used[1] - used[0]) / MEMORY_RESERVATIONS,
        "bytes_per_reservation_drained": (used[2] - used[0]) / MEMORY_RESERVATIONS,
        **rig.machine(),
    }


async def drop_stream(bench: Bench) -> None:
    """What the drainer leaves: a stream without entries."""
    await bench.redis.xtrim(shard_keys(SALE.sale_id).orders, maxlen=0)
