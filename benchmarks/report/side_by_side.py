"""The section that holds our front against other servers in the same run."""

import math
from collections.abc import Sequence
from typing import Final

from benchmarks.report.drawing import axis, caption, figure, label, names_axis
from benchmarks.report.runs import Group, Run
from benchmarks.report.section import Chart, Missing, Section, Spec, Table
from benchmarks.report.told import Values, skipped_notes, why_missing
from benchmarks.report.words import first_upper, number, percent, rate

BAR_PX: Final = 34
NARROW_NAME_MAX: Final = 26


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
    labels = [_cost_label(row, at, ours, own=own[at]) for at, row in enumerate(rows)]
    upright = [_name_label(name, at) for at, name in enumerate(names)] if narrow else []
    heading = caption(
        (f"{title}<br>" if title else "")
        + "CPU µs per request: server, then <span style='color:$redis'>Redis</span>"
    )
    bar_px = 50 if narrow else BAR_PX
    return figure(
        traces,
        height=bar_px * len(rows) + (88 if title else 70),
        margin=(6 if narrow else _room(names), 8, 62 if title else 44, 20),
        barmode="stack",
        bargap=0.62 if narrow else 0.36,
        annotations=[heading, *labels, *upright],
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


def _cost_label(row: Values, at: int, ours: Values, *, own: bool) -> Spec:
    """What it costs, Redis behind it, and how many times ours."""
    front, behind = _front_us(row) or 0.0, float(row.get("redis_us") or 0.0)
    text = f"<b>{number(front)}</b>" + (f" + {number(behind)}" if behind else "")
    if row is not ours:
        text += f"   {_times(front, _front_us(ours) or math.nan)}"
    color = "$ink" if own else "$ink-2"
    return label(text, color=color, x=front + behind, y=at, xanchor="left", xshift=8)


def _name_label(name: str, at: int) -> Spec:
    """The name above its bar, where there is no room beside it."""
    return label(_cut(name), x=0, xref="x", y=at, xanchor="left", yanchor="bottom", yshift=10)


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
