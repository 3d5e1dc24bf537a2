"""Ten times what the engine can take, and a Postgres that becomes slow: with the adaptive limit and the
pace, and beside that with the fixed limit and no pace, in turns, in the same run.

    python -m benchmarks.admission.overload [--quick] [--folder RUN]

Whole engines as in `benchmarks/capacity`: front, Redis, worker and Postgres on the engine's cores, the
generator on its own. The generator is an open loop and obeys nobody: no Retry-After, no backing off.
A request that finds no connection free is not sent, as a buyer whose connection is not taken; a shed
answer is held back by the front, and its connection is not free until then. Goodput is what was
accepted within a second of being due; p99 is of all that were accepted.
"""

import asyncio
import math
import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
import uvloop

from benchmarks.admission import fault
from benchmarks.capacity.alone import run_alone
from benchmarks.capacity.load import Offer
from benchmarks.capacity.stand import Stand, database, open_engine, stand
from benchmarks.capacity.step import intact, run_step
from benchmarks.capacity.sweep import flood
from benchmarks.figures import Figure, at_least, at_most
from engine.core import Engine

# Without a pace: a delay before storing that never comes.
CONTENDERS: Final[dict[str, dict[str, Any]]] = {
    "adaptive": {"limit": "adaptive"},
    "fixed": {"limit": "fixed", "backlog_seconds_max": 1e6},
}
TIMES: Final = (1.0, 2.0, 5.0, 10.0)
TIMES_QUICK: Final = (1.0, 10.0)
ROUNDS: Final = 2  # of all times: memory that grows from round to round is not flat
SECONDS: Final = 4.0
SECONDS_QUICK: Final = 1.0
WARM_SECONDS: Final = 1.0  # Not measured: the limit learns the new load.
REST_SECONDS: Final = 2.0  # Between two loads: what the last one left behind is over.
CONNECTIONS: Final = 4000  # Below what a front takes from one address.
CONNECTIONS_QUICK: Final = 512
SHARE_TARGET: Final = 0.9
P99_MS_MAX: Final = 50.0
GROWTH_MIB_MAX: Final = 10.0


class Side(NamedTuple):
    """One contender, running."""

    name: str
    stand: Stand
    engine: Engine


def measure(folder: Path, *, quick: bool = False) -> dict[str, Any]:  # noqa: ARG001  # all groups alike
    found: dict[str, Any] = {"steps": _steps_of_all(quick=quick)}
    found["faults"] = fault.measure(CONTENDERS, quick=quick)
    return found | judge(found)


def _steps_of_all(*, quick: bool) -> dict[str, list[dict[str, Any]]]:
    with database() as postgres, ExitStack() as stack:
        stands = {
            name: stack.enter_context(stand(postgres, changes=changes))
            for name, changes in CONTENDERS.items()
        }
        return uvloop.run(_steps(stands, quick=quick))


async def _steps(stands: Mapping[str, Stand], *, quick: bool) -> dict[str, list[dict[str, Any]]]:
    sides = [Side(name, each, await open_engine(each)) for name, each in stands.items()]
    try:
        return await overload(sides, quick=quick)
    finally:
        for side in sides:
            await side.engine.close()


async def overload(sides: Sequence[Side], *, quick: bool) -> dict[str, list[dict[str, Any]]]:
    """Both take turns at every load, so what else the machine does meets both."""
    capacity = [await _capacity(side, quick=quick) for side in sides]
    base = max(capacity)
    steps: dict[str, list[dict[str, Any]]] = {side.name: [] for side in sides}
    for number in range(1 if quick else ROUNDS):
        for times in TIMES_QUICK if quick else TIMES:
            for side in sides:
                step = await _step(side, _offer(base * times, quick=quick))
                steps[side.name].append({"times": times, "round": number} | step)
    return steps


async def _step(side: Side, offer: Offer) -> dict[str, Any]:
    """One load on an engine that has come to rest, and what the front says it refused and why."""
    await asyncio.sleep(REST_SECONDS)
    before = await _told(side.stand)
    step = await run_step(side.stand, side.engine, offer)
    after = await _told(side.stand)
    refused = {
        name.partition('"')[2].rstrip('"}'): round(value - before.get(name, 0.0))
        for name, value in after.items()
        if name.startswith("doorbuster_refused_total")
    }
    levels = {"limit": after.get("doorbuster_limit")}
    return step | {"refused": refused, **levels}


async def _told(under_test: Stand) -> dict[str, float]:
    """The front's metrics."""
    url = f"http://{under_test.settings.host}:{under_test.port}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        lines = (await answer.text()).splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs if math.isfinite(float(value))}


async def _capacity(side: Side, *, quick: bool) -> float:
    """What it accepts from a closed circle of connections that never rest, the second time."""
    await run_step(side.stand, side.engine, flood(quick=quick))
    flooded = await run_step(side.stand, side.engine, flood(quick=quick))
    return float(flooded["accepted_per_s"])


def _offer(rate: float, *, quick: bool) -> Offer:
    return Offer(
        rate=rate,
        seconds=SECONDS_QUICK if quick else SECONDS,
        warm_seconds=WARM_SECONDS,
        connections=CONNECTIONS_QUICK if quick else CONNECTIONS,
        patience_seconds=0.0,
    )


# What it all says.


def judge(found: Mapping[str, Any]) -> dict[str, Any]:
    """The figures, and what the report needs beside the steps."""
    sides = {name: summary(steps) for name, steps in found["steps"].items()}
    ours, other = sides["adaptive"], sides["fixed"]
    all_steps = [step for steps in found["steps"].values() for step in steps]
    figures = [
        Figure("peak goodput", ours["peak_per_s"], "accepted/s", ratio=_beside(other["peak_per_s"])),
        at_least(
            "goodput at 10×, share of its peak", ours["share"], "", SHARE_TARGET, _beside(other["share"])
        ),
        at_most(
            "p99 of the accepted at 10×", ours["p99_ms"], "ms", P99_MS_MAX, _beside(other["p99_ms"])
        ),
        at_most(
            "front's memory, later growth", ours["growth_mib"], "MiB", GROWTH_MIB_MAX,
            _beside(other["growth_mib"]),
        ),
        *fault.figures(found["faults"]),
        intact(all_steps),
    ]  # fmt: skip
    return {"sides": sides, "figures": [figure.as_dict() for figure in figures]}


def summary(steps: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of one contender: medians of the rounds, so that one pause of the machine decides nothing."""
    most = max(step["times"] for step in steps)
    by_times = {
        times: statistics.median(s["goodput_per_s"] for s in steps if s["times"] == times)
        for times in {step["times"] for step in steps}
    }
    last = [step for step in steps if step["times"] == most]
    peak = max(by_times.values())
    first_round = [s["front_rss_max_mib"] for s in steps if s["round"] == 0]
    later = [s["front_rss_max_mib"] for s in steps if s["round"] == steps[-1]["round"]]
    return {
        "peak_per_s": peak,
        "share": round(by_times[most] / peak, 3) if peak else 0.0,
        "p99_ms": statistics.median(s["accepted_latency_ms"]["p99"] for s in last),
        "growth_mib": round(max(later) - max(first_round), 1),
    }


def _beside(value: float) -> str:
    return f"fixed: {value:,.0f}" if value >= 1000 else f"fixed: {value:,.2f}"


if __name__ == "__main__":
    run_alone("admission.overload", measure)
