"""A Postgres that becomes slow while an engine sells, and what the engine does: seconds before, during
and after, sampled. Beside it the same without a pace.

What waits to be stored is counted in reservations: those that Redis acknowledged less those that
Postgres has, asked past the slow wire.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import asyncpg
import uvloop

from benchmarks.admission.wire import SlowWire
from benchmarks.capacity.load import Offer, as_figures, send
from benchmarks.capacity.stand import Stand, database, open_engine, stand
from benchmarks.capacity.step import SKU, make_document, prove, target, until_stored
from benchmarks.figures import Figure, at_most
from benchmarks.rig import temporary_folder
from engine.core import Engine
from engine.keys import shard_keys

DELAY_SECONDS: Final = (
    0.1  # of each piece, each way: a statement of several round trips takes over a second
)
BEFORE, DURING, AFTER = 5.0, 10.0, 10.0  # seconds
QUICK_SHARE: Final = 0.4  # of these seconds
RATE: Final = 12_000.0  # offered: within what the engine stores when all is well
RATE_QUICK: Final = 2_000.0
CONNECTIONS: Final = 1000
SAMPLE_SECONDS: Final = 0.1
RATE_SECONDS: Final = 1.0  # An accepted rate is that of so long a window.
RECOVERED_SHARE: Final = 0.9  # of the rate before
RECOVERY_SECONDS_MAX: Final = 5.0

Sample = dict[str, float]


def measure(contenders: Mapping[str, Mapping[str, Any]], *, quick: bool) -> dict[str, Any]:
    """One after the other: an engine that stores late would take the other's cores."""
    return {
        name: uvloop.run(_measure_one(dict(changes), quick=quick))
        for name, changes in contenders.items()
    }


async def _measure_one(changes: Mapping[str, Any], *, quick: bool) -> dict[str, Any]:
    with temporary_folder() as folder, database() as postgres:
        wire = SlowWire(folder)
        wire.url(postgres.url)
        async with wire.open():
            # Started in a thread: what the engine asks at its start goes through this loop.
            context = stand(postgres, changes=changes, wire=wire.url)
            under_test = await asyncio.to_thread(context.__enter__)
            try:
                engine = await open_engine(under_test)
                try:
                    return await run_fault(under_test, engine, wire, quick=quick)
                finally:
                    await engine.close()
            finally:
                await asyncio.to_thread(context.__exit__, None, None, None)


async def run_fault(
    under_test: Stand, engine: Engine, wire: SlowWire, *, quick: bool
) -> dict[str, Any]:
    share = QUICK_SHARE if quick else 1.0
    before, during, after = (seconds * share for seconds in (BEFORE, DURING, AFTER))
    await engine.sales.create(make_document("fault"), "benchmark")
    offer = Offer(
        rate=RATE_QUICK if quick else RATE,
        seconds=before + during + after,
        connections=CONNECTIONS,
        patience_seconds=0.0,
    )
    samples: list[Sample] = []
    background: list[asyncio.Task[None]] = []

    def started() -> None:
        began = time.monotonic()
        background.append(asyncio.create_task(_sample(under_test, engine, began, samples)))
        background.append(asyncio.create_task(_slow(wire, before, during)))

    try:
        results = await send(target(under_test, "fault"), offer, started, lambda: None)
    finally:
        wire.delay_s = 0.0
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
    stored_after_s = await until_stored(engine, "fault")
    return {
        **as_figures(results, offer.seconds),
        "fault_s": [before, before + during],
        "delay_s": DELAY_SECONDS,
        "samples": samples,
        "stored_after_s": stored_after_s,
        "invariants": await prove(engine, ["fault"]),
        **judge(samples, before, before + during),
    }


async def _slow(wire: SlowWire, before: float, during: float) -> None:
    await asyncio.sleep(before)
    wire.delay_s = DELAY_SECONDS
    await asyncio.sleep(during)
    wire.delay_s = 0.0


async def _sample(under_test: Stand, engine: Engine, began: float, into: list[Sample]) -> None:
    """Counts, ten times a second."""
    keys = shard_keys("fault")
    connection = await asyncpg.connect(under_test.postgres_url)
    try:
        while True:
            reserved: Any = await engine.redis.hget(keys.stock, f"{SKU}:reserved")  # type: ignore[misc]
            ordered = await connection.fetchval(
                "SELECT ordered FROM sale_items WHERE sale_id = 'fault'"
            )
            pace: Any = await engine.redis.hget("doorbuster:pace", "per_second")  # type: ignore[misc]
            into.append(
                {
                    "s": round(time.monotonic() - began, 2),
                    "accepted": int(reserved or 0),
                    "behind": max(0, int(reserved or 0) - int(ordered)),
                    "entries": await engine.redis.xlen(keys.orders),
                    "pace": float(pace) if pace and float(pace) < 1e9 else -1.0,  # −1: no limit
                }
            )
            await asyncio.sleep(SAMPLE_SECONDS)
    finally:
        await connection.close()


def judge(samples: Sequence[Sample], begins: float, ends: float) -> dict[str, Any]:
    """Rates before and during, the most that waited, and how long the recovery took."""
    rates = accepted_rates(samples)
    usual = _mean([rate for s, rate in rates if RATE_SECONDS <= s < begins])
    slow = _mean([rate for s, rate in rates if begins + 2 * RATE_SECONDS <= s < ends])
    back = [s for s, rate in rates if s > ends and rate >= RECOVERED_SHARE * usual]
    return {
        "rates": [(s, round(rate)) for s, rate in rates],
        "usual_per_s": round(usual),
        "slow_per_s": round(slow),
        "behind_max": max(sample["behind"] for sample in samples),
        "behind_at_end": samples[-1]["behind"],
        "recovery_s": round(min(back) - ends, 2) if back else None,
    }


def accepted_rates(samples: Sequence[Sample]) -> list[tuple[float, float]]:
    """(second, accepted per second over the window that ends there)."""
    rates, first = [], 0
    for sample in samples:
        while sample["s"] - samples[first]["s"] > RATE_SECONDS:
            first += 1
        span = sample["s"] - samples[first]["s"]
        if span > RATE_SECONDS / 2:
            rates.append((sample["s"], (sample["accepted"] - samples[first]["accepted"]) / span))
    return rates


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def figures(faults: Mapping[str, Any]) -> list[Figure]:
    ours, other = faults["adaptive"], faults["fixed"]
    recovery, beside = ours["recovery_s"], other["recovery_s"]
    return [
        Figure("slow Postgres: accepted", ours["slow_per_s"], "/s",
               ratio=f"before: {ours['usual_per_s']:,}; fixed: {other['slow_per_s']:,}"),
        at_most("slow Postgres: most that waited to be stored", ours["behind_max"], "reservations",
                other["behind_max"] / 2, f"fixed: {other['behind_max']:,}"),
        at_most("recovery after the fault's end", 1e3 if recovery is None else recovery, "s",
                RECOVERY_SECONDS_MAX, "fixed: never" if beside is None else f"fixed: {beside}"),
    ]  # fmt: skip
