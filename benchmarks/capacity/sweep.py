"""From low load to beyond saturation: throughput against latency, CPU by hop, and the knee.

    python -m benchmarks.capacity.sweep [--quick] [--folder RUN]

The knee is the highest load offered at which p99, counted from the time requests were due, is at
most 5 ms and at least 98 % of what was offered is accepted.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.capacity.alone import run_alone
from benchmarks.capacity.load import Offer
from benchmarks.capacity.stand import BUYERS, BUYERS_QUICK, Stand, database, open_engine, stand
from benchmarks.capacity.step import intact, run_step
from benchmarks.figures import Figure, at_most

P99_MS_MAX: Final = 5.0
ACCEPTED_SHARE_MIN: Final = 0.98
KNEE_METHOD: Final = "the highest load with p99 ≤ 5 ms and at least 98 % of it accepted"

SHARES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.15, 1.3)
SHARES_QUICK: Final = (0.3, 1.3)
SECONDS: Final = 3.0
SECONDS_QUICK: Final = 0.5
FLOOD_RATE: Final = 60_000.0  # Above what a generator process can send: it never rests.
FLOOD_RATE_QUICK: Final = 4_000.0
FLOOD_CONNECTIONS: Final = 256


def measure(folder: Path, *, quick: bool = False) -> dict[str, Any]:  # noqa: ARG001  # all groups alike
    buyers = BUYERS_QUICK if quick else BUYERS
    with database() as postgres, stand(postgres, buyers=buyers) as under_test:
        return uvloop.run(sweep(under_test, quick=quick))


async def sweep(under_test: Stand, *, quick: bool) -> dict[str, Any]:
    engine = await open_engine(under_test)
    try:
        await run_step(under_test, engine, flood(quick=quick))  # Warms everything; not counted.
        saturated = await run_step(under_test, engine, flood(quick=quick))
        ceiling = saturated["accepted_per_s"]
        seconds = SECONDS_QUICK if quick else SECONDS
        steps = [
            await run_step(under_test, engine, Offer(rate=ceiling * share, seconds=seconds))
            for share in (SHARES_QUICK if quick else SHARES)
        ]
    finally:
        await engine.close()
    return {
        "durability": under_test.settings.durability.value,
        "arrivals": "poisson",
        "connections": Offer.connections,
        "fronts": len(under_test.hops["front"]),
        "cores": under_test.cores,
        "knee_method": KNEE_METHOD,
        "knee": find_knee(steps),
        "saturated": saturated,
        "steps": steps,
        "figures": [figure.as_dict() for figure in make_figures(steps)],
    }


def make_figures(steps: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """What the table of all benchmarks shows of the sweep."""
    most = max(steps, key=lambda step: step["accepted_per_s"])
    half = half_load(steps)
    knee = find_knee(steps)
    return [
        *([Figure("load at the knee", knee["offered_per_s"], "requests/s")] if knee else []),
        Figure("most accepted", most["accepted_per_s"], "accepted/s"),
        at_most("p99 at half of the most accepted", half["latency_ms"]["p99"], "ms", P99_MS_MAX),
        intact(steps),
    ]


def half_load(steps: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The step nearest to half of what the engine takes at most."""
    half = max(step["accepted_per_s"] for step in steps) / 2
    return min(steps, key=lambda step: abs(step["offered_per_s"] - half))


def flood(*, quick: bool, seconds: float | None = None) -> Offer:
    """As much as the engine takes: no request waits for a connection, so the queue stays short."""
    return Offer(
        rate=FLOOD_RATE_QUICK if quick else FLOOD_RATE,
        seconds=seconds or (SECONDS_QUICK if quick else 2.0),
        connections=FLOOD_CONNECTIONS,
        patience_seconds=0.0,
    )


def find_knee(steps: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The step at the knee, see KNEE_METHOD; None if no step is good enough."""
    good = [step for step in steps if is_good(step)]
    return max(good, key=lambda step: step["offered_per_s"], default=None)


def is_good(step: Mapping[str, Any]) -> bool:
    return bool(
        step["latency_ms"]["p99"] <= P99_MS_MAX
        and step["accepted_per_s"] >= ACCEPTED_SHARE_MIN * step["offered_per_s"]
    )


if __name__ == "__main__":
    run_alone("sweep", measure)
