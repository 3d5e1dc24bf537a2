"""The sections on the parts: the side-by-side with other servers, kernels, the script, the drain.

Other benchmarks write these groups; what is read here is what they have in common: rows of numbers,
and `figures`, each with a name, a value, a unit and perhaps a target.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from benchmarks.report.drawing import axis, base_axis, caption, figure, label, log_axis, names_axis
from benchmarks.report.runs import Group, Run
from benchmarks.report.section import Chart, Missing, Section, Spec, Table
from benchmarks.report.words import first_upper, number, percent, rate

Values = Mapping[str, Any]
BAR_PX: Final = 34
NARROW_NAME_MAX: Final = 26


def figures_of(group: Group) -> list[Values]:
    """The group's figures: those with a name and a value that is a number."""
    found = group.get("figures", ())
    return [
        each
        for each in found
        if isinstance(each, dict)
        and isinstance(each.get("value"), int | float)
        and each.get("name")
    ]


def why_missing(group: Group, title: str) -> Missing:
    skipped = group.get("skipped")
    if isinstance(skipped, str):
        return Missing(title, skipped)
    if failed := failures(group):
        return Missing(title, f"It failed: {' '.join(map(last_line, failed.values()))}")
    return Missing(title, "It was not measured in this run.")


def failures(group: Group) -> dict[str, str]:
    """What failed in the group, and what was said then."""
    failed = group.get("failed")
    return {str(k): str(v) for k, v in failed.items()} if isinstance(failed, dict) else {}


def last_line(text: str) -> str:
    """Of a traceback, what went wrong."""
    return text.strip().rpartition("\n")[2].strip()


def figures_table(figures: Sequence[Values]) -> Table:
    """Name, value, unit, target and whether it is met."""
    return Table(
        ("", "value", "unit", "target"),
        [
            (
                str(each["name"]),
                number(each["value"]),
                str(each.get("unit", "")),
                f"{each.get('target') or ''}{_MET.get(each.get('ok'), '')}",
            )
            for each in figures
        ],
        words=frozenset({0, 2, 3}),
    )


_MET: Final[dict[object, str]] = {True: ", [down]met[/]", False: ", [up]missed[/]"}


# The side-by-side.


def contenders(group: Group, part: str = "servers") -> list[Values]:
    """The servers, or our front's other loads, the cheapest first: those whose CPU was measured."""
    rows = group.get(part) or {}
    found = list(rows.values()) if isinstance(rows, dict) else rows
    return sorted(
        (row for row in found if isinstance(row, dict) and _front_us(row) is not None),
        key=lambda row: _front_us(row) or 0.0,
    )


def _front_us(row: Values) -> float | None:
    for name in ("front_us", "cpu_us", "front_cpu_us"):
        if isinstance(row.get(name), int | float):
            return float(row[name])
    return None


def _name(row: Values) -> str:
    for name in ("title", "name", "trial", "server"):
        if row.get(name):
            return str(row[name])
    return "?"


def is_ours(row: Values) -> bool:
    words = f"{_name(row)} {row.get('trial', '')} {row.get('name', '')} {row.get('contender', '')}".lower()
    return any(word in words for word in ("gate", "doorbuster", "ours", "our "))


def side_by_side_section(run: Run) -> Section | Missing:
    group = run.group("side_by_side")
    rows, loads = contenders(group), contenders(group, "loads")
    if not rows:
        return why_missing(group, "Side by side")
    charts = [
        Chart(
            lambda narrow: side_by_side_chart(rows, narrow=narrow),
            _side_by_side_numbers(rows),
            "CPU microseconds per request of each server, and of Redis behind it",
        )
    ]
    if loads:
        ours = reference(rows)
        charts.append(
            Chart(
                lambda narrow: side_by_side_chart(
                    loads, narrow=narrow, beside=ours, title=f"{_name(ours)}, asked something else"
                ),
                _side_by_side_numbers(loads, ours),
                "CPU microseconds per request of our front under other loads",
            )
        )
    return Section(
        key="side-by-side",
        title="Side by side",
        shows=(
            "The same requests to other servers on the same core of the same machine, one after the other: "
            "CPU of the server, and of Redis behind it, per request."
        ),
        finding=_side_by_side_finding(rows),
        mode=str(group.get("durability", "strict")),
        charts=charts,
        notes=[
            f"{first_upper(str(group[name]))}." for name in ("method", "cores") if group.get(name)
        ]
        + skipped_notes(group),
    )


def skipped_notes(group: Group) -> list[str]:
    skipped = group.get("skipped", ())
    if isinstance(skipped, dict):
        failed = [f"{name} failed: {last_line(why)}" for name, why in failures(group).items()]
        return [f"{name} was left out: {why}." for name, why in skipped.items()] + failed
    if isinstance(skipped, str):
        return [skipped]
    return [
        str(each.get("why", each)) if isinstance(each, dict) else str(each)
        for each in skipped or ()
    ]


def reference(rows: Sequence[Values]) -> Values:
    """Whom the others are held against: the cheapest of ours that reserves, else the cheapest."""
    ours = [row for row in rows if is_ours(row)]
    return min(ours or rows, key=lambda row: _front_us(row) or math.inf)


def _side_by_side_finding(rows: Sequence[Values]) -> str:
    ours = reference(rows)
    mine = _front_us(ours) or math.nan
    said = first_upper(f"{_name(ours)} takes {number(mine)} µs of CPU per request")
    others = [
        f"{_name(row)} ({_times(_front_us(row) or 0, mine)})" for row in rows if row is not ours
    ]
    if not others:
        return f"{said}."
    return f"{said}. The others, in multiples of it: {', '.join(others)}."


def _times(value: float, of: float) -> str:
    return f"{value / of:.1f}×"


def side_by_side_chart(
    rows: Sequence[Values], *, narrow: bool, beside: Values | None = None, title: str = ""
) -> Spec:
    """Bars of CPU. `beside` is what they are held against, if it is not one of them."""
    ours = beside or reference(rows)
    mine = _front_us(ours) or math.nan
    names = [_name(row) for row in rows]
    fronts = [_front_us(row) or 0.0 for row in rows]
    redis = [float(row.get("redis_us") or 0.0) for row in rows]
    most = max(a + b for a, b in zip(fronts, redis, strict=True))
    own = [beside is not None or is_ours(row) for row in rows]
    colors = ["$front" if mine_too else "$mute" for mine_too in own]
    positions = list(range(len(rows)))
    traces = [
        _stack(positions, fronts, colors, "server"),
        _stack(
            positions, redis, ["$redis" if mine_too else "$redis@0.45" for mine_too in own], "Redis"
        ),
    ]
    annotations = [
        caption(
            (f"{title}<br>" if title else "")
            + "CPU µs per request: server, then <span style='color:$redis'>Redis</span>"
        ),
        *[
            label(
                f"<b>{number(front)}</b>"
                + (f" + {number(behind)}" if behind else "")
                + ("" if row is ours else f"   {_times(front, mine)}"),
                color="$ink" if own[at] else "$ink-2",
                x=front + behind, y=at, xanchor="left", xshift=8,
            )
            for at, (row, front, behind) in enumerate(zip(rows, fronts, redis, strict=True))
        ],
    ]  # fmt: skip
    if narrow:
        annotations += [
            label(
                _cut(name), x=0, xref="x", y=at, xanchor="left", yanchor="bottom", yshift=10,
                color="$ink-2",
            )
            for at, name in enumerate(names)
        ]  # fmt: skip
    bar_px = 50 if narrow else BAR_PX
    return figure(
        traces,
        height=bar_px * len(rows) + (88 if title else 70),
        margin=(6 if narrow else _room(names), 8, 62 if title else 44, 20),
        barmode="stack",
        bargap=0.62 if narrow else 0.36,
        annotations=annotations,
        xaxis=axis(
            range=[0, most * (1.8 if narrow else 1.22)], showticklabels=False, showgrid=False
        ),
        yaxis=names_axis(
            tickvals=positions,
            ticktext=names,
            showticklabels=not narrow,
            range=[len(rows) - 0.5, -0.75 if narrow else -0.5],
        ),
    )


def _room(names: Sequence[str]) -> int:
    """Pixels for the longest name beside the axis."""
    return min(330, 14 + int(7.3 * max(map(len, names), default=0)))


def _cut(name: str) -> str:
    return name if len(name) <= NARROW_NAME_MAX + 12 else f"{name[: NARROW_NAME_MAX + 11]}…"


def _stack(at: Sequence[int], values: Sequence[float], colors: Sequence[str], who: str) -> Spec:
    return {
        "type": "bar",
        "orientation": "h",
        "x": list(values),
        "y": list(at),
        "marker": {"color": list(colors)},
        "hovertemplate": f"{who}: %{{x:.1f}} µs<extra></extra>",
    }


def _side_by_side_numbers(rows: Sequence[Values], beside: Values | None = None) -> Table:
    mine = _front_us(beside or reference(rows)) or math.nan
    return Table(
        ("server", "CPU µs", "× ours", "Redis µs", "requests/s", "p50 ms", "p99 ms", "core busy"),
        [
            (
                _name(row),
                number(_front_us(row)),
                f"{(_front_us(row) or 0) / mine:.2f}",
                number(row.get("redis_us")),
                rate(row.get("requests_per_second", row.get("requests_per_s"))),
                number(row.get("p50_ms")),
                number(row.get("p99_ms")),
                percent(row.get("front_busy")),
            )
            for row in rows
        ],
    )


# Kernels.

_PLAIN: Final = re.compile(r"plain|python", re.IGNORECASE)


class Pair(NamedTuple):
    """A kernel's time and that of its plain form, in `unit`."""

    name: str
    compiled: float
    plain: float
    unit: str

    @property
    def gain(self) -> float:
        return self.plain / self.compiled


def kernel_pairs(group: Group) -> list[Pair]:
    """Of each group of benchmarks that has a plain form: that, and the fastest of the others."""
    groups: dict[str, list[Values]] = {}
    for each in group.get("benchmarks", ()):
        groups.setdefault(str(each.get("group")), []).append(each)
    return [pair for name, members in groups.items() if (pair := _pair(name, members)) is not None]


def _pair(name: str, members: Sequence[Values]) -> Pair | None:
    plain = [each for each in members if _PLAIN.search(each["name"])]
    others = [each for each in members if each not in plain]
    if not plain or not others:
        return None
    unit = "ns / line" if "lines" in plain[0].get("extra_info", {}) else "ns / call"
    return Pair(
        name.removeprefix("kernels:").strip(), min(map(_ns, others)), min(map(_ns, plain)), unit
    )


def _ns(benchmark: Values) -> float:
    lines = benchmark.get("extra_info", {}).get("lines", 1)
    return float(benchmark["stats"]["median"]) / float(lines) * 1e9


def kernels_section(run: Run) -> Section | Missing:
    group = run.group("kernels")
    figures = figures_of(group)
    if not figures:
        return why_missing(group, "Kernels")
    pairs = kernel_pairs(group)
    charts: tuple[Chart, ...] = ()
    if pairs:
        charts = (
            Chart(
                lambda _: kernels_chart(pairs),
                figures_table(figures),
                "Time of each compiled kernel beside its plain form",
            ),
        )
    return Section(
        key="kernels",
        title="Kernels",
        shows="Compiled leaves of the hot path beside the plain Python they replace.",
        finding=_kernels_finding(figures, pairs),
        mode="no server involved",
        charts=charts,
        tables=() if pairs else (figures_table(figures),),
        half=True,
    )


def _kernels_finding(figures: Sequence[Values], pairs: Sequence[Pair]) -> str:
    if not pairs:
        fastest = min(figures, key=lambda each: each["value"])
        return f"The cheapest is {fastest['name']}: {number(fastest['value'])} {fastest.get('unit', '')}."
    best, worst = max(pairs, key=_gain), min(pairs, key=_gain)
    said = f"Gains most: {best.name}, {best.gain:.1f} times faster than plain Python"
    if worst is best:
        return f"{said}."
    verb = "Gains least" if worst.gain >= 1 else "Loses"
    return f"{said}. {verb}: {worst.name}, {worst.gain:.1f} times."


def _gain(pair: Pair) -> float:
    return pair.gain


def kernels_chart(pairs: Sequence[Pair]) -> Spec:
    at = list(range(len(pairs)))
    compiled, plain = [pair.compiled for pair in pairs], [pair.plain for pair in pairs]
    low, high = min(compiled + plain) * 0.6, max(compiled + plain) * 2.6
    joins: list[Spec] = [
        {
            "type": "scatter", "mode": "lines", "hoverinfo": "skip",
            "x": [pair.compiled, pair.plain], "y": [row, row], "line": {"color": "$mute", "width": 3},
        }
        for row, pair in enumerate(pairs)
    ]  # fmt: skip
    annotations = [
        caption(
            "ns: <span style='color:$front'>● compiled</span>  "
            "<span style='color:$ink-3'>● plain</span>"
        ),
        *[
            label(pair.name, x=0, xref="paper", y=row, xanchor="left", yanchor="bottom", yshift=7,
                  color="$ink")
            for row, pair in enumerate(pairs)
        ],
        *[
            label(f"<b>{pair.gain:.1f}×</b>", color="$front",
                  x=math.log10(max(pair.compiled, pair.plain)), y=row, xanchor="left", xshift=10)
            for row, pair in enumerate(pairs)
        ],
    ]  # fmt: skip
    dots = [
        _dots(plain, at, "$ink-3", "plain"),
        _dots(compiled, at, "$front", "compiled"),
    ]
    return figure(
        [*joins, *dots],
        height=46 * len(pairs) + 84,
        margin=(10, 14, 44, 30),
        annotations=annotations,
        xaxis=log_axis(low, high),
        yaxis=axis(range=[len(pairs) - 0.4, -0.8], showticklabels=False, showgrid=False),
    )


def _dots(values: Sequence[float], at: Sequence[int], color: str, who: str) -> Spec:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": list(values),
        "y": list(at),
        "marker": {"size": 11, "color": color},
        "hovertemplate": f"{who}: %{{x:,.3~g}} ns<extra></extra>",
    }


# The script.

_BATCH: Final = re.compile(r"batch\D{0,12}(\d+)")


def batch_points(figures: Sequence[Values]) -> list[tuple[int, float]]:
    """(batch, µs per reservation), by batch. A server's own time wins over other figures."""
    found: dict[int, float] = {}
    for each in figures:
        match = _BATCH.search(str(each["name"]))
        if match and "µs" in str(each.get("unit", "")):
            found.setdefault(int(match[1]), float(each["value"]))
    return sorted(found.items())


def redis_section(run: Run) -> Section | Missing:
    group = run.group("redis")
    figures = figures_of(group)
    if not figures:
        return why_missing(group, "The script in Redis")
    points = batch_points(figures)
    charts: tuple[Chart, ...] = ()
    if len(points) > 1:
        charts = (
            Chart(
                lambda _: batch_chart(points),
                figures_table(figures),
                "Server time per reservation over the size of a batch",
            ),
        )
    return Section(
        key="redis",
        title="The script in Redis",
        shows="Server time per reservation of one call of reserve.lua, by how many it carries.",
        finding=_redis_finding(figures, points),
        mode=str(group.get("durability", "strict")),
        charts=charts,
        tables=() if charts else (figures_table(figures),),
        half=True,
    )


def _redis_finding(figures: Sequence[Values], points: Sequence[tuple[int, float]]) -> str:
    if len(points) < 2:
        first = figures[0]
        return f"{first['name']}: {number(first['value'])} {first.get('unit', '')}."
    (small, dear), (large, cheap) = points[0], points[-1]
    return (
        f"A reservation takes {number(dear)} µs in a batch of {small} and {number(cheap)} µs in one of "
        f"{large}: {dear / cheap:.0f} times less, which is {rate(1e6 / cheap)}/s on one core."
    )


def batch_chart(points: Sequence[tuple[int, float]]) -> Spec:
    batches, values = [batch for batch, _ in points], [value for _, value in points]
    traces: list[Spec] = [
        {
            "type": "scatter", "mode": "lines+markers", "x": batches, "y": values,
            "line": {"color": "$redis", "width": 2.5}, "marker": {"size": 7, "color": "$redis"},
            "hovertemplate": "batch of %{x}: %{y:.2f} µs<extra></extra>",
        }
    ]  # fmt: skip
    annotations = [
        caption("Server µs per reservation"),
        label("reservations in a call", xref="paper", yref="paper", x=1, y=0, yshift=-26,
              xanchor="right", yanchor="top"),
        *[
            label(number(value), color="$redis", x=math.log10(batch), y=math.log10(value),
                  xanchor="left", yanchor="bottom", xshift=3, yshift=4)
            for batch, value in points
        ],
    ]  # fmt: skip
    return figure(
        traces,
        height=320,
        margin=(42, 34, 44, 50),
        annotations=annotations,
        xaxis=base_axis(
            type="log",
            tickvals=batches,
            ticktext=[str(b) for b in batches],
            range=[math.log10(batches[0]) - 0.1, math.log10(batches[-1]) + 0.15],
        ),
        yaxis=log_axis(min(values) * 0.7, max(values) * 1.5),
    )


# What is told as it was measured: drain, growth, a whole rush.


def told_section(run: Run, key: str, title: str, shows: str) -> Section | Missing:
    group = run.group(key)
    figures = figures_of(group) or _plain_figures(group)
    if not figures:
        return why_missing(group, title)
    return Section(
        key=key,
        title=title,
        shows=shows,
        finding=_told_finding(figures),
        mode=str(group.get("durability", "strict")),
        tables=(figures_table(figures),),
        half=True,
        notes=skipped_notes(group),
    )


def _plain_figures(group: Group) -> list[Values]:
    """The numbers of a group that brought no figures along."""
    return [
        {"name": name.replace("_", " "), "value": value, "unit": ""}
        for name, value in group.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]


def _told_finding(figures: Sequence[Values]) -> str:
    judged = [each for each in figures if each.get("ok") is not None]
    first = (judged or list(figures))[0]
    said = f"{first_upper(str(first['name']))}: {number(first['value'])} {first.get('unit', '')}"
    if first.get("ok") is None:
        return f"{said.rstrip()}."
    verdict = "met" if first["ok"] else "missed"
    return f"{said.rstrip()}; the target, {first['target']}, is {verdict}."
