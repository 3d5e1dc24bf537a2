"""A simulated day: a million visitors for ten thousand units, on a virtual clock.

    python -m benchmarks.admission.simulation [--visitors N] [--units N] [--seed N]
        [--order fifo|draw] [--json FILE]

Visitors and the store behind the front are models (`crowd`, `pipeline`); all that decides is the
engine's own code on a real Redis (`shop`). The seed repeats the day. Prints its figures; the
file keeps it second by second.
"""

import argparse
import gc
import json
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop
from redis.asyncio import Redis

from benchmarks import rig
from benchmarks.admission.crowd import NEVER, TICKS_PER_SECOND, Crowd, CrowdPlan
from benchmarks.admission.day import Day
from benchmarks.admission.pipeline import Store, StorePlan
from benchmarks.admission.shop import Shop, ShopPlan
from benchmarks.capacity.alone import print_figures
from benchmarks.figures import Figure, at_most, exactly
from engine.clock import ManualClock
from engine.config import Durability

START_MS: Final = 1_800_000_000_000  # Any moment does.
ETA_ERROR_MAX: Final = 0.20
LOOK_SECONDS: Final = 0.2  # Two fronts' looks: what is true in Redis is told so much later.
ETA_ERROR: Final = "|promised − actual| / max(actual, poll interval)"


class Plan(msgspec.Struct, frozen=True):
    """All of a day."""

    crowd: CrowdPlan = CrowdPlan()
    shop: ShopPlan = ShopPlan()
    store: StorePlan = StorePlan()
    seed: int = 20261111


async def simulate(plan: Plan, redis_url: str) -> dict[str, Any]:
    """The day's figures and time series, ready for JSON."""
    began, cpu_s = time.monotonic(), time.process_time()
    redis = Redis.from_url(redis_url)
    crowd = Crowd(plan.crowd, plan.seed)
    shop = Shop(redis, plan.shop, ManualClock(START_MS), plan.crowd.prequeue_seconds)
    t0_tick = int(plan.crowd.prequeue_seconds * TICKS_PER_SECOND)
    day = Day(crowd, shop, Store(plan.store, t0_tick, plan.seed + 1))
    await shop.open()
    gc.collect()
    gc.freeze()
    gc.disable()  # A million visitors make no cycles, and a collection walks over all of them.
    try:
        await day.run()
    finally:
        gc.enable()
        gc.unfreeze()
        await redis.aclose()
    took = {"seconds": time.monotonic() - began, "cpu_seconds": time.process_time() - cpu_s}
    return tell(plan, day, shop, took)


def tell(plan: Plan, day: Day, shop: Shop, took: dict[str, float]) -> dict[str, Any]:
    record, look = day.record, shop.last_look
    found = {
        "plan": msgspec.to_builtins(plan),
        "took": {name: round(value, 1) for name, value in took.items()},
        "counts": dict(record.counts),
        "units": dict(record.units),
        "sold": look.sold,
        "served": look.serving,
        "issued": look.issued,
        "bots": sum(day.crowd.is_bot),
        "first_sold_out_s": day.first_sold_out_s,
        "gone_s": None if record.gone_at == NEVER else day.seconds_after_t0(record.gone_at),
        "gone_wait_s": round(record.gone_wait_s, 1),
        "gone_beyond_interval_s": round(max(0.0, record.gone_beyond_s), 1),
        "backlog_max": day.store.backlog_max,
        "redis_calls": shop.calls,
        "eta": record.eta(),
        "eta_error_is": ETA_ERROR,
        "chances": record.chances(),
        "seconds": record.seconds,
    }
    return found | {"figures": [figure.as_dict() for figure in figures(plan, found)]}


def figures(plan: Plan, found: dict[str, Any]) -> list[Figure]:
    """What the table of all benchmarks shows."""
    counts, units = found["counts"], found["units"]
    sold = max(1, sum(units.values()))
    after = found["eta"].get("after_opening", {})
    bots = found["bots"] / plan.crowd.visitors
    return [
        Figure("visitors", plan.crowd.visitors, "", ratio=f"bots: {bots:.0%}; {plan.shop.order}"),
        exactly("present and passed over", counts.get("passed_over", 0), "people", 0),
        exactly("numbers out of order, or two for one", two_numbers(counts), "", 0),
        exactly("served and then refused", counts.get("outcome TICKET_REQUIRED", 0), "people", 0),
        at_most(
            "ETA error, p90", found["eta"].get("error_p90", 1e3), "", ETA_ERROR_MAX,
            f"of {found['eta']['promises']:,} promises",
        ),
        Figure("of promises made after the opening", after.get("error_p90", 0.0), ""),
        exactly("units sold", found["sold"], "units", plan.shop.units),
        Figure("first time that none was available", found["first_sold_out_s"] or -1, "s after T0"),
        Figure("all units sold", found["gone_s"] or -1, "s after T0"),
        at_most(
            "told that all is gone, beyond a poll interval", found["gone_beyond_interval_s"], "s",
            LOOK_SECONDS, f"{counts.get('told_gone', 0):,} told",
        ),
        exactly("told so too early", counts.get("told_gone_too_early", 0), "people", 0),
        Figure("bots' share of the units", units.get("bots", 0) / sold * 100, "%"),
        exactly("Redis calls in polls", counts.get("redis_calls_in_polls", 0), "calls", 0),
        at_most("a simulated day", found["took"]["seconds"], "s", 120),
    ]  # fmt: skip


def two_numbers(counts: dict[str, int]) -> int:
    return counts.get("out_of_order", 0) + counts.get("second_numbers", 0)


def run(plan: Plan) -> dict[str, Any]:
    """On a Redis of its own, gone afterwards. Balanced: nothing is to survive a simulation."""
    with rig.valkey(Durability.BALANCED) as server:
        return uvloop.run(simulate(plan, server.url))


def main() -> None:
    usual = Plan()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.admission.simulation")
    parser.add_argument("--visitors", type=int, default=usual.crowd.visitors)
    parser.add_argument("--units", type=int, default=usual.shop.units)
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--order", choices=("fifo", "draw"), default="fifo")
    parser.add_argument("--json", type=Path, help="a file for everything, second by second")
    asked = parser.parse_args()
    plan = Plan(
        CrowdPlan(visitors=asked.visitors),
        ShopPlan(units=asked.units, order=asked.order),
        seed=asked.seed,
    )
    found = run(plan)
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, ensure_ascii=False))
    print_figures(found, "simulated day")


if __name__ == "__main__":
    main()
