"""What each durability mode costs: throughput at saturation, p99 at half of it, CPU of Redis.

    python -m benchmarks.capacity.durability [--quick] [--folder RUN]

`replicated` runs a primary and a replica on this machine, over TCP; the others use a Unix socket.
"""

from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.capacity.alone import run_alone
from benchmarks.capacity.load import Offer
from benchmarks.capacity.stand import BUYERS, BUYERS_QUICK, Stand, database, open_engine, stand
from benchmarks.capacity.step import intact, run_step
from benchmarks.capacity.sweep import flood
from benchmarks.figures import Figure, at_least
from engine.config import Durability
from engine.errors import DoorbusterError
from engine.servers import EmbeddedPostgres

SECONDS: Final = 2.0
SECONDS_QUICK: Final = 0.5
STRICT_SHARE_MIN: Final = 0.8


def measure(folder: Path, *, quick: bool = False) -> dict[str, Any]:  # noqa: ARG001  # all groups alike
    modes: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    with database() as postgres:
        for mode in Durability:
            try:
                modes.append(measure_mode(postgres, mode, quick=quick))
            except (OSError, RuntimeError, DoorbusterError) as error:
                # A replica may not be had here; a mode of one server has no excuse.
                if mode is not Durability.REPLICATED:
                    raise
                skipped[mode.value] = str(error)
    figures = [figure.as_dict() for figure in make_figures(modes)]
    return {"modes": modes, "skipped": skipped, "figures": figures}


def make_figures(modes: list[dict[str, Any]]) -> list[Figure]:
    """What the table of all benchmarks shows of the modes."""
    rates = {mode["mode"]: mode["saturated"]["accepted_per_s"] for mode in modes}
    figures = [Figure(mode, rate, "accepted/s") for mode, rate in rates.items()]
    if rates.get("strict") and rates.get("balanced"):
        share = rates["strict"] / rates["balanced"]
        figures.append(at_least("strict, share of balanced", share, "", STRICT_SHARE_MIN))
    return [*figures, intact([mode[part] for mode in modes for part in ("saturated", "half")])]


def measure_mode(postgres: EmbeddedPostgres, mode: Durability, *, quick: bool) -> dict[str, Any]:
    buyers = BUYERS_QUICK if quick else BUYERS
    with stand(postgres, durability=mode, buyers=buyers) as under_test:
        return {"mode": mode.value} | uvloop.run(compare(under_test, quick=quick))


async def compare(under_test: Stand, *, quick: bool) -> dict[str, Any]:
    seconds = SECONDS_QUICK if quick else SECONDS
    engine = await open_engine(under_test)
    try:
        await run_step(under_test, engine, flood(quick=quick, seconds=seconds))
        saturated = await run_step(under_test, engine, flood(quick=quick, seconds=seconds))
        half = Offer(rate=max(1.0, saturated["accepted_per_s"] / 2), seconds=seconds)
        return {"saturated": saturated, "half": await run_step(under_test, engine, half)}
    finally:
        await engine.close()


if __name__ == "__main__":
    run_alone("durability", measure)
