"""The sections on the parts: compiled kernels, the script in Redis."""

import math
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from benchmarks.report.drawing import axis, axis_name, base_axis, caption, figure, label, log_axis
from benchmarks.report.runs import Group, Run
from benchmarks.report.section import Chart, Missing, Section, Spec
from benchmarks.report.told import Values, figures_of, figures_table, why_missing
from benchmarks.report.words import number, rate

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
        axis_name("reservations in a call"),
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
