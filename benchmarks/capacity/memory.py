"""What is kept in memory: Redis per reservation, a front with idle connections, a worker.

python -m benchmarks.capacity.memory [--quick] [--folder RUN]
"""

import asyncio
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.capacity.alone import run_alone
from benchmarks.capacity.load import Offer
from benchmarks.capacity.openloop import OPENING_MAX, raise_open_files_limit
from benchmarks.capacity.stand import BUYERS, BUYERS_QUICK, Stand, database, open_engine, stand
from benchmarks.capacity.step import MIB, intact, run_step
from benchmarks.capacity.usage import resident_bytes
from benchmarks.figures import Figure
from engine.core import Engine

IDLE: Final = (0, 1_000, 5_000)
IDLE_QUICK: Final = (0, 100)
PER_ADDRESS: Final = 2_000  # A front takes 4096 connections from one address: several are used.
RESERVATIONS: Final = 30_000
RESERVATIONS_QUICK: Final = 500
RATE: Final = 5_000.0
RATE_QUICK: Final = 1_000.0
SETTLE_SECONDS: Final = 0.3  # The front takes in what the kernel has accepted.

Writers = list[asyncio.StreamWriter]


def measure(folder: Path, *, quick: bool = False) -> dict[str, Any]:  # noqa: ARG001  # all groups alike
    raise_open_files_limit()
    buyers = BUYERS_QUICK if quick else BUYERS
    with database() as postgres, stand(postgres, buyers=buyers) as under_test:
        return uvloop.run(memory(under_test, quick=quick))


async def memory(under_test: Stand, *, quick: bool) -> dict[str, Any]:
    engine = await open_engine(under_test)
    try:
        fresh = {hop: rss(under_test, hop) for hop in ("front", "worker")}
        idle = await idle_connections(under_test, IDLE_QUICK if quick else IDLE)
        redis = await redis_per_reservation(under_test, engine, quick=quick)
    finally:
        await engine.close()
    figures = [
        Figure("Redis, stored", redis["redis_bytes_per_reservation"], "bytes / reservation"),
        *[Figure(f"front, {i['connections']:,} idle", i["rss_mib"], "MiB") for i in idle],
        intact([redis]),
    ]
    return {
        "durability": under_test.settings.durability.value,
        "front_idle": idle,
        "front_fresh_mib": fresh["front"],
        "worker_fresh_mib": fresh["worker"],
        "worker_after_mib": rss(under_test, "worker"),
        "front_after_mib": rss(under_test, "front"),
        **redis,
        "figures": [figure.as_dict() for figure in figures],
    }


def rss(under_test: Stand, hop: str) -> float:
    return round(sum(resident_bytes(pid) for pid in under_test.hops[hop]) / MIB, 1)


async def idle_connections(under_test: Stand, counts: tuple[int, ...]) -> list[dict[str, float]]:
    """The front's memory with so many connections that have asked once and wait."""
    writers: Writers = []
    found = []
    try:
        for count in counts:
            while len(writers) < count:
                size = min(OPENING_MAX, count - len(writers))
                opening = (open_idle(under_test, len(writers) + n) for n in range(size))
                writers += await asyncio.gather(*opening)
            await asyncio.sleep(SETTLE_SECONDS)
            found.append({"connections": count, "rss_mib": rss(under_test, "front")})
    finally:
        for writer in writers:
            writer.transport.abort()
    return found


async def open_idle(under_test: Stand, number: int) -> asyncio.StreamWriter:
    """A connection on which one request was answered."""
    local = (f"127.0.0.{2 + number // PER_ADDRESS}", 0)
    host, port = under_test.settings.host, under_test.port
    reader, writer = await asyncio.open_connection(host, port, local_addr=local)
    writer.write(f"GET /v1/sales/nowhere HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    return writer


async def redis_per_reservation(
    under_test: Stand, engine: Engine, *, quick: bool
) -> dict[str, Any]:
    """Bytes of Redis per drained reservation: buyers' records and counters."""
    rate, count = (RATE_QUICK, RESERVATIONS_QUICK) if quick else (RATE, RESERVATIONS)
    offer = Offer(rate=rate, seconds=count / rate, warm_seconds=0)
    step = await run_step(under_test, engine, offer)
    bytes_each = await held_by_sale(engine, step["sale_id"]) / max(1, step["accepted"])
    return {
        "redis_bytes_per_reservation": round(bytes_each, 1),
        "reservations": step["accepted"],
        "invariants": step["invariants"],
    }


async def held_by_sale(engine: Engine, sale_id: str) -> int:
    """Bytes of all keys of a sale, every field counted."""
    keys = [key async for key in engine.redis.scan_iter(match=f"sale:{{{sale_id}.*", count=1000)]
    return sum([int(await engine.redis.memory_usage(key, samples=0) or 0) for key in keys])


if __name__ == "__main__":
    run_alone("memory", measure)
