"""Runs all benchmarks one after the other and prints one table: number, unit, target, ratio.

    python -m benchmarks.run [GROUP…]

One run is one folder under benchmarks/results/, with one JSON file per group, written as soon as the
group is done. A missed target is shown and no more: these are numbers of one machine. A benchmark
that fails, because an answer was wrong for instance, prints why; the others run, and the exit
status is 1.
"""

import json
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from benchmarks import environment, rig, side_by_side
from benchmarks.admission import group
from benchmarks.figures import (
    Figure,
    as_table,
    at_least,
    at_most,
    exactly,
    figures_of,
    make_console,
)
from benchmarks.shop import group as shop_group

RESULTS: Final = Path(__file__).parent / "results"
UNITS_OF_DEMO: Final = 10_000
INTERRUPTED: Final = 130  # The shell's status of a program that Ctrl-C ended.

Say = Callable[[str], None]
Result = dict[str, Any]
Group = Callable[[Path, Say], Result]


class GroupFailed(Exception):
    """What a benchmark that failed printed."""


class GroupSkipped(Exception):
    """Why a group cannot run here, in one sentence."""


def redis(folder: Path, say: Say) -> Result:
    report = run_pytest(folder, "redis", say)
    figures = []
    for extra in (each["extra_info"] for each in report["benchmarks"]):
        if "batch" in extra:
            name, value = (
                f"reserve.lua, server time, batch {extra['batch']}",
                extra["server_us_per_reservation"],
            )
            unit = "µs / reservation"
            figure = at_most(name, value, unit, 4) if extra["batch"] == 128 else None
            figures.append(figure or Figure(name, value, unit))
        elif "bytes_per_reservation" in extra:
            waiting, drained = (
                extra["bytes_per_reservation"],
                extra["bytes_per_reservation_drained"],
            )
            unit = "bytes"
            figures.append(at_most("memory of a reservation, waiting", waiting, unit, 150))
            figures.append(Figure("memory of a reservation, drained", drained, unit))
    return report | {"durability": "strict"} | with_figures(figures)


def kernels(folder: Path, say: Say) -> Result:
    """A compiled kernel earns its place by being faster than its plain form, in the same group."""
    report = run_pytest(folder, "kernels", say, "gate", "holders")
    return report | with_figures(kernel_figures(report["benchmarks"]))


def kernel_figures(benchmarks: Sequence[dict[str, Any]]) -> list[Figure]:
    return [_kernel_figure(each, benchmarks) for each in benchmarks]


def _kernel_figure(each: dict[str, Any], benchmarks: Sequence[dict[str, Any]]) -> Figure:
    name, value, unit = each["name"].removeprefix("test_"), _median_ns(each), "ns each"
    plain = [
        other
        for other in benchmarks
        if other["group"] == each["group"] and other is not each and "plain" in other["name"]
    ]
    if not plain or "plain" in each["name"]:
        return Figure(name, value, unit)
    times = _median_ns(plain[0]) / value
    return Figure(name, value, unit, "< plain", times > 1, f"plain: {times:.1f} ×")


def _median_ns(each: dict[str, Any]) -> float:
    """The median, of one item where a call handles many: one pause of the machine spoils a mean."""
    return float(each["stats"]["median"]) / float(each["extra_info"].get("lines", 1)) * 1e9


def drain(_: Path, say: Say) -> Result:
    result = run_json("drain", say)
    growth = result["rss_end_mib"] - result["rss_quarter_mib"]
    return result | with_figures(
        [
            at_least(
                "orders stored by one worker", result["orders_per_second"], "orders/s", 80_000
            ),
            Figure("worker CPU", result["worker_us_per_order"], "µs / order"),
            Figure("worker memory, most", result["rss_max_mib"], "MiB"),
            at_most("its growth after the first quarter", growth, "MiB", 10),
        ]
    )


def growth(_: Path, say: Say) -> Result:
    result = run_json("growth", say)
    unit = "× the CPU per reservation"
    return result | with_figures(
        [
            at_most("2,000,000 buyers against 10,000", result["buyers_ratio"], unit, 1.15),
            at_most("200 SKUs against 1", result["skus_ratio"], unit, 1.15),
        ]
    )


def whole(_: Path, say: Say) -> Result:
    report = run_json("whole", say)
    sold, unpaid = report["units"]["sold"], report["orders"]["awaiting_payment"]
    name = f"rush of {report['buyers']:,}"
    return report | with_figures(
        [
            exactly(f"{name}: units sold", sold, "units", UNITS_OF_DEMO),
            exactly(f"{name}: unpaid orders", unpaid, "orders", 0),
            Figure("requests answered", report["requests_per_second"], "requests/s"),
            Figure("busiest second", report["busiest_second"], "requests"),
            Figure("accepted, p99 from the click", report["accepted_ms"]["p99"], "ms"),
            Figure("all paid, after the last answer", report["paid_seconds"], "s"),
            *stored_figures(report["large"]),
        ]
    )


def stored_figures(report: dict[str, Any]) -> list[Figure]:
    """Of a rush on a sale with more units than buyers: generator and all on this machine."""
    name = f"rush of {report['buyers']:,} on plenty"
    return [
        Figure(f"{name}: accepted", report["accepted_per_second"], "orders/s"),
        at_least(f"{name}: and stored", report["stored_per_second"], "orders/s", 15_000),
        Figure("its generator", report["generator_cpu_us"], "µs CPU / request"),
    ]


def beside(folder: Path, say: Say) -> Result:
    try:
        result = side_by_side.measure(folder, say)
    except side_by_side.NothingToMeasure as nothing:
        raise GroupSkipped(str(nothing)) from nothing
    side_by_side.show(result, make_console())
    return result


def capacity(name: str) -> Group:
    """A group of benchmarks/capacity/: the whole engine over HTTP, by an open loop."""

    def run(folder: Path, say: Say) -> Result:
        say(name)
        module = f"benchmarks.capacity.{name}"
        if find_spec(module) is None:
            raise GroupSkipped(f"there is no {module}")
        return dict(import_module(module).measure(folder))

    return run


def admission(folder: Path, say: Say) -> Result:
    return group.measure(folder, say)


def shop(folder: Path, say: Say) -> Result:
    return shop_group.measure(folder, say)


def surroundings(folder: Path, say: Say) -> Result:
    say("environment")
    return environment.describe(folder.name)


ENVIRONMENT: Final = "environment"  # Of every run, whatever was asked for.
# Groups of benchmarks/capacity/.
CAPACITY: Final = ("sweep", "overload", "scaling", "durability", "memory")
GROUPS: Final[dict[str, Group]] = {
    "kernels": kernels,
    "redis": redis,
    "drain": drain,
    "growth": growth,
    "side_by_side": beside,
    "whole": whole,
    "admission": admission,
    "shop": shop,
    **{name: capacity(name) for name in CAPACITY},
}


@dataclass
class Run:
    """One run: its folder, and what came out so far."""

    folder: Path
    console: Console
    figures: list[tuple[str, Figure]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failed: bool = False

    def do(self, name: str, group: Group) -> Result:
        """Runs a group, keeps its result, takes its figures. Failures are told, not raised."""
        try:
            with self.console.status(name) as status:
                result = group(self.folder, status.update)
        except GroupSkipped as why:
            result = {"skipped": f"{first_upper(str(why))}."}
        except GroupFailed as failure:
            result = self._fail(name, str(failure))
        except Exception:
            result = self._fail(name, traceback.format_exc())
        except KeyboardInterrupt:
            self._take_part(name)
            raise
        self._take(name, result)
        return result

    def _take_part(self, name: str) -> None:
        """What a group that was interrupted had kept by then."""
        path = self.folder / f"{name}.json"
        if path.exists():
            self._take(name, json.loads(path.read_text()))

    def _fail(self, name: str, text: str) -> Result:
        self.failed = True
        self.console.print(f"[red]{name} failed:[/]")
        self.console.print(text, markup=False, highlight=False)
        return {"failed": {"all of it": text}}

    def _take(self, name: str, result: Result) -> None:
        text = json.dumps(result, indent=1, ensure_ascii=False)
        (self.folder / f"{name}.json").write_text(text)
        self.figures += [(name, figure) for figure in figures_of(result)]
        self.notes += notes_of(name, result)
        self.failed = self.failed or bool(result.get("failed"))


def notes_of(name: str, result: Result) -> list[str]:
    """What of a group was skipped, and what failed, in a line each."""
    skipped, failed = result.get("skipped", {}), result.get("failed", {})
    if isinstance(skipped, str):
        return [f"{name} was skipped: {skipped}"]
    notes = [f"{name}: {part} was skipped: {why}." for part, why in skipped.items()]
    return notes + [f"{name}: {part} FAILED: {last_line(why)}" for part, why in failed.items()]


def first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it says nothing"])[-1]


def main() -> None:
    wanted = sys.argv[1:] or list(GROUPS)
    if unknown := set(wanted) - set(GROUPS) - {ENVIRONMENT}:
        sys.exit(f"no such group: {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    run = Run(make_folder(), make_console())
    interrupted = False
    try:
        if warning := run.do(ENVIRONMENT, surroundings).get("warning"):
            run.console.print(f"[yellow]{warning}[/]")
        for name in wanted:
            if name in GROUPS:
                run.do(name, GROUPS[name])
    except KeyboardInterrupt:
        interrupted = True
    title = f"strict durability, {rig.machine()['cores']} cores, {rig.machine()['cpu']}"
    run.console.print(as_table(run.figures, title))
    if interrupted:
        run.notes.append("Interrupted: this is what was measured until then.")
    for note in (*run.notes, f"Kept in {run.folder}"):
        run.console.print(note, markup=False, highlight=False)
    sys.exit(INTERRUPTED if interrupted else int(run.failed))


def make_folder() -> Path:
    folder = RESULTS / datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def run_pytest(folder: Path, name: str, say: Say, *more: str) -> Result:
    """The report of test_<name>.py as pytest-benchmark writes it, machine info included. `more`
    files go into the same report."""
    say(name)
    report = folder / f"{name}.json"
    options = ["-q", "--benchmark-quiet", f"--benchmark-json={report}"]
    files = [str(Path(__file__).parent / f"test_{each}.py") for each in (name, *more)]
    run_text([sys.executable, "-m", "pytest", *files, *options])
    return dict(json.loads(report.read_text()))


def run_json(module: str, say: Say) -> Result:
    """The JSON object that a benchmark prints."""
    say(module)
    return dict(json.loads(run_text([sys.executable, "-m", f"benchmarks.{module}"])))


def run_text(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise GroupFailed(
            f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
    return done.stdout


def with_figures(figures: Sequence[Figure]) -> Result:
    return {"figures": [figure.as_dict() for figure in figures]}


if __name__ == "__main__":
    main()
