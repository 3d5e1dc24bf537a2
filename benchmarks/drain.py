"""How fast one worker stores a backlog of reservations as orders, and whether its memory stays flat.

    python -m benchmarks.drain [--reservations 300000] [--entry 128] [--connections N]

Fills the stream of a sale through reserve.lua, then lets a Drainer in a process of its own store it:
strict durability, synchronous commit, one outbox row per order. Then reserves once at a time, and
measures how long after its answer a lone reservation is an order. Prints one JSON object.
"""

import argparse
import asyncio
import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec
import uvloop

from benchmarks import rig
from engine import drainer as drainer_module
from engine.clock import SystemClock
from engine.config import Settings
from engine.connections import connect_redis, connect_redis_blocking
from engine.drainer import CONNECTIONS_MAX, Drainer
from engine.inventory import Inventory
from engine.sales import SaleDirectory
from engine.store.database import connect, open_pool
from engine.store.orders import store_orders

RSS_EVERY_SECONDS: Final = 0.2
SINGLES: Final = 200  # Lone reservations, one after the other.


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--reservations", type=int, default=300_000)
    parser.add_argument("--entry", type=int, default=128, help="reservations per stream entry")
    parser.add_argument("--connections", type=int, default=CONNECTIONS_MAX)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        settings = msgspec.json.decode(options.worker, type=Settings)
        measured = drain(settings, options.reservations, options.connections)
        print(json.dumps(uvloop.run(measured)))
        return
    with rig.servers() as settings:
        uvloop.run(fill(settings, options.reservations, options.entry))
        command = [sys.executable, "-m", "benchmarks.drain", "--reservations"]
        command += [str(options.reservations), "--connections", str(options.connections)]
        command += ["--worker", msgspec.json.encode(settings).decode()]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        result = json.loads(done.stdout) | {
            "entry": options.entry,
            "durability": settings.durability.value,
            **uvloop.run(audit(settings)),
            **rig.machine(),
        }
    print(json.dumps(result))


async def fill(settings: Settings, count: int, entry: int) -> None:
    """The backlog: `count` reservations, `entry` to a stream entry."""
    sale = await rig.put_up_sale(settings)
    assert settings.redis_url is not None
    redis = connect_redis(settings.redis_url, 30)
    inventory = Inventory(redis, SystemClock(), batch_max=512, queue_max=1)
    for first in range(0, count, entry):
        size = min(entry, count - first)
        await inventory.reserve_batch(sale.ref, rig.make_requests(sale.sale_id, first, size))
    await redis.aclose()


async def drain(settings: Settings, count: int, connections: int) -> dict[str, object]:
    """Stores everything; what it took."""
    assert settings.redis_url is not None
    assert settings.postgres_url is not None
    url = settings.postgres_url
    redis, clock = connect_redis_blocking(settings.redis_url), SystemClock()
    stopwatch = Stopwatch()
    drainer_module.store_orders = stopwatch.store_orders  # type: ignore[assignment]
    async with await open_pool(url, 2) as pool:
        drainer = Drainer(
            redis,
            lambda: connect(url),
            SaleDirectory(pool, clock),
            clock,
            consumer="benchmark",
            batch_max=settings.drain_batch_max,
            attempts_max=settings.drain_attempts_max,
            claim_idle_seconds=settings.claim_idle_seconds,
            connections_max=connections,
        )
        memory = Memory()
        sampling = asyncio.create_task(memory.sample())
        postmaster = await postmaster_pid(url)
        postgres_s = cpu_seconds(postmaster)
        began_s, cpu_s = time.perf_counter(), time.process_time()
        while await drainer.drain_once(block_ms=1):
            pass
        seconds, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
        postgres_s = cpu_seconds(postmaster) - postgres_s
        orders = await stored(url)
        sampling.cancel()
        singles = await time_singles(settings, drainer)
        await drainer.close()
    await redis.aclose()
    assert orders == count, f"{orders} of {count} stored"
    return {
        "orders": orders,
        "seconds": round(seconds, 3),
        "orders_per_second": round(orders / seconds),
        "worker_us_per_order": round(cpu_s / orders * 1e6, 2),
        "postgres_us_per_order": round(postgres_s / orders * 1e6, 2),
        "connections": connections,
        "worst_batch_ms": round(stopwatch.worst_s * 1000),
        "single_ms_p50": round(singles[len(singles) // 2] * 1000, 2),
        "single_ms_max": round(singles[-1] * 1000, 2),
        **memory.as_dict(),
    }


async def time_singles(settings: Settings, drainer: Drainer) -> list[float]:
    """Seconds from a lone reservation's answer to its order, in ascending order."""
    assert settings.redis_url is not None
    redis, clock = connect_redis(settings.redis_url, 30), SystemClock()
    inventory = Inventory(redis, clock, batch_max=512, queue_max=1)
    connection = await asyncpg.connect(settings.postgres_url)
    running = asyncio.create_task(drainer.run())
    seconds = []
    async with await open_pool(str(settings.postgres_url), 2) as pool:
        sale = await SaleDirectory(pool, clock).get("bench")
    assert sale is not None
    for number in range(SINGLES):
        [request] = rig.make_requests("lone", number, 1)
        await inventory.reserve_batch(sale.ref, [request])
        answered_s = time.perf_counter()
        while not await connection.fetchval(
            "SELECT count(*) FROM orders WHERE (sale_id, reservation_id) = ('bench', $1)",
            request.reservation_id,
        ):
            assert time.perf_counter() - answered_s < 10, "a reservation was not stored"
        seconds.append(time.perf_counter() - answered_s)
    drainer.stop()
    await running
    await connection.close()
    await redis.aclose()
    return sorted(seconds)


class Stopwatch:
    """Stores orders, and keeps the longest time that took."""

    def __init__(self) -> None:
        self.worst_s = 0.0

    async def store_orders(self, *arguments: Any) -> int:
        began_s = time.perf_counter()
        try:
            return await store_orders(*arguments)
        finally:
            self.worst_s = max(self.worst_s, time.perf_counter() - began_s)


class Memory:
    """Resident memory of this process over time."""

    def __init__(self) -> None:
        self.mib: list[float] = []

    async def sample(self) -> None:
        while True:
            self.mib.append(resident_mib())
            await asyncio.sleep(RSS_EVERY_SECONDS)

    def as_dict(self) -> dict[str, float]:
        """At the start, after a quarter (buffers have grown by then), at the end, and the most."""
        return {
            "rss_start_mib": self.mib[0],
            "rss_quarter_mib": self.mib[len(self.mib) // 4],
            "rss_end_mib": resident_mib(),
            "rss_max_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        }


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


async def postmaster_pid(url: str) -> int:
    """The parent of every process of this Postgres."""
    connection = await asyncpg.connect(url)
    pid = await connection.fetchval("SELECT pg_backend_pid()")
    parent, _ = stat_fields(Path(f"/proc/{pid}/stat"))
    await connection.close()
    return parent


def cpu_seconds(postmaster: int) -> float:
    """CPU time of a Postgres with all its processes, those that are gone included."""
    ticks = sum(stat_fields(Path(f"/proc/{postmaster}/stat"))[1])
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            parent, times = stat_fields(path)
            if parent == postmaster:
                ticks += sum(times[:2])
    return ticks / os.sysconf("SC_CLK_TCK")


def stat_fields(path: Path) -> tuple[int, list[int]]:
    """(parent, CPU ticks: user, system, and both of its children that have ended)."""
    fields = path.read_text().rpartition(")")[2].split()
    return int(fields[1]), [int(field) for field in fields[11:15]]


async def stored(url: str) -> int:
    connection = await asyncpg.connect(url)
    count = await connection.fetchval("SELECT count(*) FROM orders")
    await connection.close()
    return int(count)


async def audit(settings: Settings) -> dict[str, object]:
    """A fast store of the wrong thing is worth nothing: units ordered and outbox rows must match."""
    connection = await asyncpg.connect(settings.postgres_url)
    row = await connection.fetchrow(
        """
        SELECT (SELECT count(*) FROM orders) AS orders, (SELECT count(*) FROM outbox) AS outbox,
               (SELECT sum(ordered)::bigint FROM sale_items) AS units,
               (SELECT count(*) FROM dead_letters) AS dead_letters,
               current_setting('synchronous_commit') AS synchronous_commit
        """
    )
    await connection.close()
    assert row["orders"] == row["outbox"] == row["units"], dict(row)
    assert not row["dead_letters"]
    return {"synchronous_commit": row["synchronous_commit"]}


if __name__ == "__main__":
    main()
