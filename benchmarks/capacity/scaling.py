"""Throughput at saturation with 1, 2 and 4 front processes, and the scalability law fitted to it.

    python -m benchmarks.capacity.scaling [--quick] [--folder RUN]

Here the engine may use every core, the generator's too: with few cores the processes share them,
and the figures say how many there were.
"""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.capacity.alone import run_alone
from benchmarks.capacity.stand import BUYERS, BUYERS_QUICK, Stand, database, open_engine, stand
from benchmarks.capacity.step import intact, run_step
from benchmarks.capacity.sweep import flood
from benchmarks.capacity.usl import fit
from benchmarks.figures import Figure
from engine.servers import EmbeddedPostgres

FRONTS: Final = (1, 2, 4)
FRONTS_QUICK: Final = (1, 2)
REPEATS: Final = 2  # The better one counts: noise only ever takes away.
SECONDS: Final = 2.0


def measure(folder: Path, *, quick: bool = False) -> dict[str, Any]:  # noqa: ARG001  # all groups alike
    counts = FRONTS_QUICK if quick else FRONTS
    with database(shared=True) as postgres:
        steps = [measure_fronts(postgres, fronts, quick=quick) for fronts in counts]
    found = fit([(step["fronts"], step["accepted_per_s"]) for step in steps])
    figures = [
        Figure(f"front processes: {step['fronts']}", step["accepted_per_s"], "accepted/s")
        for step in steps
    ]
    return {
        "durability": "strict",
        "cores": len(os.sched_getaffinity(0)),
        "shared_with_generator": True,
        "steps": steps,
        "figures": [figure.as_dict() for figure in (*figures, intact(steps))],
        "usl": asdict(found) | {"peak_n": found.peak_n, "trust": found.trust},
    }


def measure_fronts(postgres: EmbeddedPostgres, fronts: int, *, quick: bool) -> dict[str, Any]:
    buyers = BUYERS_QUICK if quick else BUYERS
    with stand(postgres, fronts=fronts, buyers=buyers, shared=True) as under_test:
        return {"fronts": fronts} | uvloop.run(best_of(under_test, quick=quick))


async def best_of(under_test: Stand, *, quick: bool) -> dict[str, Any]:
    engine = await open_engine(under_test)
    try:
        await run_step(under_test, engine, flood(quick=quick))
        steps = [
            await run_step(
                under_test, engine, flood(quick=quick, seconds=None if quick else SECONDS)
            )
            for _ in range(1 if quick else REPEATS)
        ]
    finally:
        await engine.close()
    return max(steps, key=lambda step: step["accepted_per_s"])


if __name__ == "__main__":
    run_alone("scaling", measure)
