"""Runs all benchmarks one after the other and prints one table: number, unit, target.

    python -m benchmarks.run [redis] [kernels] [drain] [front] [whole]

Every run is kept as JSON under benchmarks/results/. A missed target is shown and no more: these are
numbers of one machine. A wrong result, such as a broken invariant, fails.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks import rig

RESULTS: Final = Path(__file__).parent / "results"
UNITS_OF_DEMO: Final = 10_000


@dataclass(frozen=True)
class Figure:
    """One number. `holds` is None where nothing was promised."""

    group: str
    name: str
    value: float
    unit: str
    target: str = ""
    holds: bool | None = None


def at_most(group: str, name: str, value: float, unit: str, limit: float) -> Figure:
    return Figure(group, name, value, unit, f"≤ {limit:g}", value <= limit)


def at_least(group: str, name: str, value: float, unit: str, limit: float) -> Figure:
    return Figure(group, name, value, unit, f"≥ {limit:,g}", value >= limit)


def redis() -> list[Figure]:
    found = run_pytest("test_redis.py")
    figures = []
    for extra in found:
        if "batch" in extra:
            name = f"reserve.lua, batch {extra['batch']}"
            per_reservation = extra["server_us_per_reservation"]
            unit = "µs server time / reservation"
            figures.append(
                at_most("redis", name, per_reservation, unit, 4)
                if extra["batch"] == 128
                else Figure("redis", name, per_reservation, unit)
            )
        else:
            unit = "bytes / reservation"
            waiting, drained = (
                extra["bytes_per_reservation"],
                extra["bytes_per_reservation_drained"],
            )
            figures.append(at_most("redis", "memory, with stream entry", waiting, unit, 150))
            figures.append(Figure("redis", "memory, drained", drained, unit))
    return figures


def kernels() -> list[Figure]:
    timings = {
        name.removeprefix("test_"): mean / extra["lines"] * 1e9
        for name, mean, extra in run_pytest_timed("test_kernels.py")
    }
    return [Figure("kernels", name, ns, "ns / line") for name, ns in timings.items()]


def drain() -> list[Figure]:
    result = run_json("drain")
    growth = result["rss_end_mib"] - result["rss_quarter_mib"]
    return [
        at_least("drain", "orders stored", result["orders_per_second"], "orders/s", 50_000),
        Figure("drain", "worker CPU", result["worker_us_per_order"], "µs / order"),
        Figure("drain", "worker memory, most", result["rss_max_mib"], "MiB"),
        at_most("drain", "its growth after the first quarter", growth, "MiB", 10),
    ]


def front() -> list[Figure]:
    text = run_text([sys.executable, str(Path(__file__).parent / "front_cpu.py")])
    cpu = re.search(r"front\s+([\d.]+) µs", text)
    rate = re.search(r"rate\s+(\d+)", text)
    assert cpu is not None, text
    assert rate is not None, text
    others = re.findall(r"(bare|naive)\s+([\d.]+) µs CPU per request, ([\d.]+) × ours", text)
    return [
        at_most("front", "CPU, 256 connections", float(cpu[1]), "µs / accepted reservation", 60),
        Figure("front", "one process", float(rate[1]), "accepted reservations/s"),
        *(
            Figure("front", f"{kind} aiohttp, µs", float(us), f"{x} × ours")
            for kind, us, x in others
        ),
    ]


def whole() -> list[Figure]:
    report = run_json("whole")
    sold, unpaid = report["units"]["sold"], report["orders"]["awaiting_payment"]
    exact = sold == UNITS_OF_DEMO
    name = f"rush of {report['buyers']:,}"
    return [
        Figure("whole", f"{name}: units sold", sold, "units", f"= {UNITS_OF_DEMO:,}", exact),
        Figure("whole", f"{name}: unpaid orders", unpaid, "orders", "= 0", unpaid == 0),
        Figure("whole", "requests answered", report["requests_per_second"], "requests/s"),
        Figure("whole", "busiest second", report["busiest_second"], "requests"),
        Figure("whole", "accepted, p99", report["accepted_ms"]["p99"], "ms after the click"),
        Figure("whole", "all paid", report["paid_seconds"], "s after the last answer"),
    ]


GROUPS: Final[dict[str, Callable[[], list[Figure]]]] = {
    "redis": redis,
    "kernels": kernels,
    "drain": drain,
    "front": front,
    "whole": whole,
}


def main() -> None:
    wanted = sys.argv[1:] or list(GROUPS)
    if unknown := set(wanted) - set(GROUPS):
        sys.exit(f"no such group: {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    console, figures = Console(), list[Figure]()
    for name in wanted:
        with console.status(name):
            figures += GROUPS[name]()
    console.print(as_table(figures))
    console.print(f"Kept in {keep('run', [asdict(figure) for figure in figures])}")


def as_table(figures: list[Figure]) -> Table:
    at = rig.machine()
    title = f"strict durability, {at['cores']} cores, {at['cpu']}"
    table = Table("", "", "value", "unit", "target", "", title=title, title_justify="left")
    table.columns[2].justify = "right"
    for number, figure in enumerate(figures):
        if number and figures[number - 1].group != figure.group:
            table.add_section()
        verdict = {None: "", True: "[green]ok[/]", False: "[red]missed[/]"}[figure.holds]
        whole_number = isinstance(figure.value, int) or figure.value >= 1000
        value = f"{figure.value:,.0f}" if whole_number else f"{figure.value:,.2f}"
        table.add_row(figure.group, escape(figure.name), value, figure.unit, figure.target, verdict)
    return table


def run_pytest(name: str) -> list[dict[str, Any]]:
    return [extra for _, _, extra in run_pytest_timed(name)]


def run_pytest_timed(name: str) -> list[tuple[str, float, dict[str, Any]]]:
    """(name, mean seconds, extra_info) of each benchmark in a file."""
    RESULTS.mkdir(exist_ok=True)
    report = RESULTS / f"{stamp()}-{name.removesuffix('.py')}.json"
    options = ["-q", "--benchmark-quiet", f"--benchmark-json={report}"]
    file = str(Path(__file__).parent / name)
    run_text([sys.executable, "-m", "pytest", file, *options])
    found = json.loads(report.read_text())["benchmarks"]
    return [(each["name"], each["stats"]["mean"], each["extra_info"]) for each in found]


def run_json(module: str) -> dict[str, Any]:
    """The JSON object that a benchmark prints; kept too."""
    result = json.loads(run_text([sys.executable, "-m", f"benchmarks.{module}"]))
    keep(module, result)
    return dict(result)


def run_text(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def keep(name: str, result: object) -> Path:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{stamp()}-{name}.json"
    content = {"machine": rig.machine(), "durability": "strict", "result": result}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False))
    return path


def stamp() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


if __name__ == "__main__":
    main()
