"""All of admission as one group of `make bench`: costs, polls, two simulated days, the overload run.

A part that fails leaves the others alone; each is kept as soon as it is done.
"""

import json
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.admission import costs, overload, polls, simulation
from benchmarks.admission.crowd import CrowdPlan
from benchmarks.admission.shop import ShopPlan

FILE: Final = "admission.json"
# The draw's day is a smaller one: it differs in the order alone.
DRAW_VISITORS, DRAW_UNITS, DRAW_PACE = 200_000, 2_000, 20
DRAWN: Final = simulation.Plan(
    CrowdPlan(visitors=DRAW_VISITORS),
    ShopPlan(units=DRAW_UNITS, order="draw", pace_max=DRAW_PACE),
)

Part = Callable[[], dict[str, Any]]


def measure(folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    parts: dict[str, Part] = {
        "costs": costs.measure,
        "polls": lambda: polls.measure(folder),
        "simulation": lambda: simulation.run(simulation.Plan()),
        "draw": lambda: simulation.run(DRAWN),
        "overload": lambda: overload.measure(folder),
    }
    found: dict[str, Any] = {"durability": "strict", "figures": [], "skipped": {}, "failed": {}}
    for name, part in parts.items():
        say(f"admission: {name}")
        _do(found, name, part)
        (folder / FILE).write_text(json.dumps(found, indent=1, ensure_ascii=False))
    return found


def _do(found: dict[str, Any], name: str, part: Part) -> None:
    try:
        result = part()
    except polls.Skipped as why:
        found["skipped"][name] = str(why)
    except Exception:
        found["failed"][name] = traceback.format_exc()
    else:
        figures = result.pop("figures")
        found["figures"] += [figure | {"name": f"{name}: {figure['name']}"} for figure in figures]
        found[name] = msgspec.to_builtins(result)
