"""What is left of throughput when 1 to 10 times the knee is offered: goodput, refusals, memory.

    python -m benchmarks.capacity.overload [--quick] [--folder RUN]

Goodput is what was accepted within a second of being due. Four times as many connections as in the
sweep, more than the front works on at once, so that it has to shed; a request that finds none free
is not sent, as a buyer whose connection is not taken. The knee is the sweep's of the same folder;
where there is none, the load the engine saturates at.
"""

import json
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.capacity.alone import run_alone
from benchmarks.capacity.load import Offer
from benchmarks.capacity.stand import BUYERS, BUYERS_QUICK, Stand, database, open_engine, stand
from benchmarks.capacity.step import intact, run_step
from benchmarks.capacity.sweep import flood
from benchmarks.figures import Figure, at_least

TIMES: Final = (1.0, 2.0, 3.0, 5.0, 10.0)
TIMES_QUICK: Final = (1.0, 10.0)
SECONDS: Final = 3.0
SECONDS_QUICK: Final = 0.5
CONNECTIONS: Final = 2048
CONNECTIONS_QUICK: Final = 256
SHARE_TARGET: Final = 0.8


def measure(folder: Path, *, quick: bool = False) -> dict[str, Any]:
    buyers = BUYERS_QUICK if quick else BUYERS
    with database() as postgres, stand(postgres, buyers=buyers) as under_test:
        return uvloop.run(overload(under_test, known_knee(folder), quick=quick))


def known_knee(folder: Path) -> float | None:
    """The knee the sweep of this run found, if there was one."""
    try:
        knee = json.loads((folder / "sweep.json").read_text())["knee"]
        return float(knee["offered_per_s"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


async def overload(under_test: Stand, knee: float | None, *, quick: bool) -> dict[str, Any]:
    engine = await open_engine(under_test)
    try:
        warm = await run_step(under_test, engine, flood(quick=quick))
        base = knee or warm["accepted_per_s"]
        steps = [
            {"times": times}
            | await run_step(
                under_test,
                engine,
                Offer(
                    rate=base * times,
                    seconds=SECONDS_QUICK if quick else SECONDS,
                    connections=CONNECTIONS_QUICK if quick else CONNECTIONS,
                    patience_seconds=0.0,
                ),
            )
            for times in (TIMES_QUICK if quick else TIMES)
        ]
    finally:
        await engine.close()
    peak = max(step["goodput_per_s"] for step in steps)
    share = round(steps[-1]["goodput_per_s"] / peak, 3) if peak else 0.0
    figures = [
        Figure("peak goodput", peak, "accepted/s"),
        at_least(f"goodput at {steps[-1]['times']:g}×, share of its peak", share, "", SHARE_TARGET),
        intact(steps),
    ]
    return {
        "durability": under_test.settings.durability.value,
        "base_per_s": base,
        "base_is": "knee" if knee else "saturation",
        "connections": CONNECTIONS_QUICK if quick else CONNECTIONS,
        "cores": under_test.cores,
        "steps": steps,
        "peak_goodput_per_s": peak,
        "goodput_share_at_most": share,
        "share_target": SHARE_TARGET,
        "figures": [figure.as_dict() for figure in figures],
    }


if __name__ == "__main__":
    run_alone("overload", measure)
