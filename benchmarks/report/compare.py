"""Holds a run against an earlier one: every figure both have, its change, and whether it is noise."""

from dataclasses import dataclass
from typing import Final

from benchmarks.report.runs import Run
from benchmarks.report.section import Missing, Section, Table
from benchmarks.report.sweep import HOPS, total_us
from benchmarks.report.told import figures_of
from benchmarks.report.words import number, plural, rate

NOISE_SHARE: Final = 0.10  # Runs of an unchanged engine differ by as much on a shared machine.
LOWER_UNITS: Final = ("µs", "ns", "ms", "bytes", "MiB", "KiB", "s after")
TITLE: Final = "Compared with an earlier run"


@dataclass(frozen=True)
class Measure:
    """One figure of a run. `lower_is_better` is None where neither is."""

    group: str
    name: str
    value: float
    unit: str
    lower_is_better: bool | None


@dataclass(frozen=True)
class Change:
    """One figure in both runs."""

    now: Measure
    before: float

    @property
    def share(self) -> float:
        return (self.now.value - self.before) / abs(self.before)

    @property
    def is_noise(self) -> bool:
        return abs(self.share) < NOISE_SHARE

    @property
    def is_better(self) -> bool | None:
        """None: within noise, or neither better nor worse."""
        if self.is_noise or self.now.lower_is_better is None:
            return None
        return (self.share < 0) == self.now.lower_is_better


def measures(run: Run) -> list[Measure]:
    """All figures of a run that can be compared."""
    return [*_capacity(run), *_told(run)]


def changes(run: Run, against: Run) -> list[Change]:
    """What both runs measured, in the order of the newer."""
    before = {(each.group, each.name, each.unit): each.value for each in measures(against)}
    return [
        Change(each, before[key])
        for each in measures(run)
        if before.get(key := (each.group, each.name, each.unit))
    ]


def compare_section(run: Run, against: Run | None) -> Section | Missing:
    if against is None:
        return Missing(TITLE, "There is no earlier run to compare with.")
    found = changes(run, against)
    if not found:
        return Missing(TITLE, f"{against.name} measured none of the same figures.")
    loud = [change for change in found if not change.is_noise]
    quiet = [change for change in found if change.is_noise]
    return Section(
        key="compare",
        title=TITLE,
        shows=f"Every figure that run {against.name} has too; a change below {NOISE_SHARE:.0%} is noise.",
        finding=_finding(found, against),
        mode=_modes(run, against),
        tables=(_table(loud),) if loud else (),
        folded=((f"{len(found) - len(loud)} within noise", _table(quiet)),) if quiet else (),
    )


def _finding(found: list[Change], against: Run) -> str:
    better = [change for change in found if change.is_better]
    worse = [change for change in found if change.is_better is False]
    quiet = sum(change.is_noise for change in found)
    said = (
        f"Against {against.name}, {len(better)} of {plural(len(found), 'figure')} got better, {len(worse)} "
        f"got worse and {quiet} {'is' if quiet == 1 else 'are'} within noise."
    )
    if not worse:
        return said
    worst = max(worse, key=lambda change: abs(change.share))
    return f"{said} The largest loss: {worst.now.name} ({worst.now.group}), {worst.share:+.0%}."


def _modes(run: Run, against: Run) -> str:
    now, before = (each.group("environment").get("durability", "strict") for each in (run, against))
    return str(now) if now == before else f"{now}, was {before}"


def _table(found: list[Change]) -> Table:
    return Table(
        ("", "change", "before", "now", "unit", "measured in"),
        [
            (
                change.now.name,
                _verdict(change),
                _number(change.before, change.now.unit),
                _number(change.now.value, change.now.unit),
                change.now.unit,
                change.now.group.replace("_", " "),
            )
            for change in found
        ],
        words=frozenset({0, 4, 5}),
    )


def _number(value: float, unit: str) -> str:
    return rate(value) if "/s" in unit else number(value)


def _verdict(change: Change) -> str:
    if change.is_noise:
        return f"[same]{change.share:+.1%}[/]"
    word = {True: "down", False: "up", None: "plain"}[change.is_better]
    return f"[{word}]{change.share:+.0%}[/]"


def _capacity(run: Run) -> list[Measure]:
    found: list[Measure] = []

    def add(group: str, name: str, value: object, unit: str, *, lower: bool) -> None:
        if isinstance(value, int | float):
            found.append(Measure(group, name, float(value), unit, lower))

    sweep = run.group("sweep")
    if knee := sweep.get("knee"):
        add("sweep", "load at the knee", knee["offered_per_s"], "requests/s", lower=False)
    if steps := sweep.get("steps"):
        most = max(steps, key=lambda step: step["accepted_per_s"])
        add("sweep", "most accepted", most["accepted_per_s"], "reservations/s", lower=False)
        for hop, value in most["cpu_us"].items():
            add(
                "sweep", f"CPU of {HOPS.get(hop, hop)} there", value, "µs / reservation", lower=True
            )
        add("sweep", "CPU of all there", total_us(most), "µs / reservation", lower=True)
    overload = run.group("overload")
    add(
        "overload",
        "peak goodput",
        overload.get("peak_goodput_per_s"),
        "reservations/s",
        lower=False,
    )
    add(
        "overload",
        "goodput at most load",
        overload.get("goodput_share_at_most"),
        "of peak",
        lower=False,
    )
    for step in run.group("scaling").get("steps", ()):
        name = plural(step["fronts"], "front process", "front processes")
        add("scaling", name, step["accepted_per_s"], "reservations/s", lower=False)
    for mode in run.group("durability").get("modes", ()):
        rate_ = mode["saturated"]["accepted_per_s"]
        add("durability", mode["mode"], rate_, "reservations/s", lower=False)
    memory = run.group("memory")
    per = memory.get("redis_bytes_per_reservation")
    add("memory", "Redis, stored", per, "bytes / reservation", lower=True)
    for idle in memory.get("front_idle", ()):
        add("memory", f"front, {idle['connections']:,} idle", idle["rss_mib"], "MiB", lower=True)
    return found


def _told(run: Run) -> list[Measure]:
    return [
        Measure(
            group, str(each["name"]), float(each["value"]), str(each.get("unit", "")), _lower(each)
        )
        for group in ("side_by_side", "kernels", "redis", "drain", "growth", "whole")
        for each in figures_of(run.group(group))
    ]


def _lower(figure: object) -> bool | None:
    assert isinstance(figure, dict)
    target, unit = str(figure.get("target") or ""), str(figure.get("unit", ""))
    if target[:1] in {"≤", "≥"}:
        return target.startswith("≤")
    if "/s" in unit:
        return False
    return True if unit.startswith(LOWER_UNITS) else None
