"""The sections on what admission costs, on ten times the load, and on a Postgres that becomes slow."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.report.drawing import (
    axis,
    axis_name,
    base_axis,
    caption,
    end_labels,
    figure,
    label,
    line,
    log_axis,
    nice_top,
)
from benchmarks.report.runs import Run
from benchmarks.report.section import Chart, Missing, Section, Spec, Table
from benchmarks.report.told import figures_of, figures_table, why_missing
from benchmarks.report.words import number, percent, rate, short

Values = Mapping[str, Any]

SIDES: Final = {
    "adaptive": ("adaptive limit, pace", "$front"),
    "fixed": ("fixed limit, no pace", "$redis"),
}
P99_MS_MAX: Final = 50.0
OVERLOAD: Final = "Ten times the load"
FAULT: Final = "A Postgres that becomes slow"
COSTS: Final = "What admission costs"


def limit_section(run: Run) -> Section | Missing:
    admission = run.group("admission")
    found = admission.get("overload")
    if not found:
        return why_missing(admission, OVERLOAD)
    return Section(
        key="limit",
        title=OVERLOAD,
        shows=(
            "The adaptive limit with the pace beside the fixed limit without one, in turns, in the same "
            "run. Goodput is what was accepted within a second of being due."
        ),
        finding=_limit_finding(found["sides"]),
        mode=admission.get("durability", ""),
        charts=(
            Chart(
                lambda narrow: limit_chart(found, narrow=narrow),
                _limit_numbers(found),
                "Goodput and p99 of the accepted at one to ten times capacity, two limits",
            ),
        ),
        notes=[_how_offered(found)],
    )


def _limit_finding(sides: Mapping[str, Values]) -> str:
    ours, other = sides["adaptive"], sides["fixed"]
    return (
        f"With ten times its capacity offered the engine keeps {percent(ours['share'])} of its best goodput "
        f"of {rate(ours['peak_per_s'])}/s, with a p99 of {number(ours['p99_ms'])} ms for the accepted; the "
        f"fixed limit keeps {percent(other['share'])} of {rate(other['peak_per_s'])}/s, with "
        f"{number(other['p99_ms'])} ms."
    )


def _how_offered(found: Values) -> str:
    last = max(found["steps"]["adaptive"], key=lambda step: step["times"])
    limit = " The generator was at its own limit there." if last["generator"]["was_limit"] else ""
    return (
        "An open loop that obeys nobody. A request that finds no connection free is not sent, and the front "
        f"holds a shed answer back: of {rate(last['offered_per_s'])}/s due, {rate(last['sent_per_s'])}/s "
        f"reached the engine.{limit}"
    )


def medians(steps: Sequence[Values], field: str, inner: str = "") -> list[tuple[float, float]]:
    """(times offered, the median over the rounds)."""
    found: dict[float, list[float]] = {}
    for step in steps:
        value = step[field][inner] if inner else step[field]
        found.setdefault(step["times"], []).append(value)
    return [(times, statistics.median(values)) for times, values in sorted(found.items())]


def limit_chart(found: Values, *, narrow: bool) -> Spec:
    height, right, left = (520, 14, 44) if narrow else (470, 176, 62)
    top, bottom = 44, 78 if narrow else 54
    goodput = {name: medians(found["steps"][name], "goodput_per_s") for name in SIDES}
    p99 = {name: medians(found["steps"][name], "accepted_latency_ms", "p99") for name in SIDES}
    names = [f"{times:g}×" for times, _ in goodput["adaptive"]]
    top_goodput = nice_top(max(value for pairs in goodput.values() for _, value in pairs))
    slow = [value for pairs in p99.values() for _, value in pairs]
    span = (max(0.5, min(slow) * 0.6), max(P99_MS_MAX, *slow) * 1.6)
    traces = [
        _points(names, [value for _, value in pairs[name]], SIDES[name][1], y, says)
        for pairs, y, says in (
            (goodput, "y", "%{y:,.0f}/s accepted"),
            (p99, "y2", "p99 %{y:,.1f} ms"),
        )
        for name in SIDES
    ]
    annotations = [
        caption("Accepted within 1 s, per second", y=1.0),
        caption("p99 of the accepted, ms", y=0.42),
        axis_name("times its capacity offered"),
        label(f"{P99_MS_MAX:g} ms", color="$ink-3", x=0, xref="paper", y=math.log10(P99_MS_MAX),
              yref="y2", xanchor="left", yanchor="bottom"),
        *_ends(goodput, (0, top_goodput), "y", 0.45 * (height - top - bottom), narrow=narrow),
        *_ends(p99, span, "y2", 0.42 * (height - top - bottom), narrow=narrow, log=True),
    ]  # fmt: skip
    return figure(
        traces,
        height=height,
        margin=(left, right, top, bottom),
        annotations=annotations,
        shapes=[line(0, 1, P99_MS_MAX, P99_MS_MAX, xref="paper", yref="y2")],
        xaxis=base_axis(anchor="y2", type="category"),
        yaxis=axis(domain=[0.55, 1], range=[0, top_goodput], tickformat="~s", nticks=5),
        yaxis2=log_axis(*span, domain=[0, 0.42]),
    )


def _points(xs: Sequence[Any], ys: Sequence[float], color: str, y: str, says: str) -> Spec:
    return {
        "type": "scatter", "mode": "lines+markers", "x": list(xs), "y": list(ys), "yaxis": y,
        "line": {"color": color, "width": 2.5}, "marker": {"size": 7, "color": color},
        "hovertemplate": f"%{{x}}: {says}<extra></extra>",
    }  # fmt: skip


def _ends(
    pairs: Mapping[str, Sequence[tuple[float, float]]],
    span: tuple[float, float],
    y: str,
    pixels: float,
    *,
    narrow: bool,
    log: bool = False,
) -> list[Spec]:
    """Names beside the last points; on a narrow page in a line above the panel."""
    if narrow:
        if y != "y":
            return []
        text = "  ".join(
            f'<span style="color:{color}">●</span> {title.partition(",")[0]}'
            for title, color in SIDES.values()
        )
        return [label(text, xref="paper", yref="paper", x=0, y=0, yshift=-46, xanchor="left",
                      yanchor="top")]  # fmt: skip
    return end_labels(
        [SIDES[name] for name in pairs],
        [values[-1][1] for values in pairs.values()],
        span=span, pixels=pixels, log=log, x=1.0, xref="paper", xshift=6, yref=y,
    )  # fmt: skip


def _limit_numbers(found: Values) -> Table:
    rows = [
        (
            SIDES[name][0],
            f"{step['times']:g}×",
            rate(step["offered_per_s"]),
            rate(step["sent_per_s"]),
            rate(step["goodput_per_s"]),
            number(step["accepted_latency_ms"]["p50"]),
            number(step["accepted_latency_ms"]["p99"]),
            number(step["outcomes"].get("503", 0)),
            number(step["front_rss_max_mib"]),
        )
        for name, steps in found["steps"].items()
        for step in steps
    ]
    columns = ("", "offered", "offered/s", "sent/s", "goodput/s", "p50 ms", "p99 ms", "shed", "MiB")
    return Table(columns, rows)


# A slow Postgres.


def fault_section(run: Run) -> Section | Missing:
    admission = run.group("admission")
    faults = (admission.get("overload") or {}).get("faults")
    if not faults:
        return why_missing(admission, FAULT)
    ours = faults["adaptive"]
    begins, ends = ours["fault_s"]
    return Section(
        key="fault",
        title=FAULT,
        shows=(
            f"Every piece between the engine and Postgres is {number(ours['delay_s'] * 1000)} ms late in each "
            f"direction from second {begins:g} to {ends:g}, while {rate(ours['offered_per_s'])}/s are offered."
        ),
        finding=_fault_finding(faults),
        mode=admission.get("durability", ""),
        charts=(
            Chart(
                lambda narrow: fault_chart(faults, narrow=narrow),
                _fault_numbers(faults),
                "Accepted per second and reservations that wait to be stored, two limits",
            ),
        ),
        notes=[
            "What waits is counted in reservations: acknowledged in Redis and not yet in Postgres. The proxy "
            "and the engine are on the same machine as the generator."
        ],
    )


def _fault_finding(faults: Mapping[str, Values]) -> str:
    ours, other = faults["adaptive"], faults["fixed"]
    recovery = ours["recovery_s"]
    back = (
        "does not recover while it is watched"
        if recovery is None
        else f"is back {number(recovery)} s after the fault's end"
    )
    return (
        f"Admission slows by itself from {rate(ours['usual_per_s'])} to {rate(ours['slow_per_s'])}/s, so at most "
        f"{number(ours['behind_max'])} reservations wait to be stored, and it {back}. Without a pace "
        f"{number(other['behind_max'])} wait."
    )


def fault_chart(faults: Mapping[str, Values], *, narrow: bool) -> Spec:
    height, right, left = (560, 14, 44) if narrow else (480, 176, 62)
    top, bottom = 44, 78 if narrow else 54
    begins, ends = faults["adaptive"]["fault_s"]
    rates = {name: faults[name]["rates"] for name in SIDES}
    behind = {name: [(s["s"], s["behind"]) for s in faults[name]["samples"]] for name in SIDES}
    top_rate = nice_top(max(value for pairs in rates.values() for _, value in pairs))
    top_behind = nice_top(max(value for pairs in behind.values() for _, value in pairs))
    traces = [
        {
            "type": "scatter", "mode": "lines", "x": [s for s, _ in pairs[name]], "yaxis": y,
            "y": [value for _, value in pairs[name]], "line": {"color": SIDES[name][1], "width": 2},
            "hovertemplate": f"%{{x:.1f}} s: {says}<extra></extra>",
        }
        for pairs, y, says in ((rates, "y", "%{y:,.0f}/s"), (behind, "y2", "%{y:,.0f} wait"))
        for name in SIDES
    ]  # fmt: skip
    panel = 0.44 * (height - top - bottom)
    annotations = [
        caption("Accepted per second", y=1.0),
        caption("Acknowledged and not yet stored", y=0.42),
        axis_name("seconds"),
        label("Postgres is slow", color="$ink-3", x=(begins + ends) / 2, xref="x", y=0, yref="y",
              yanchor="bottom"),
        *_ends(rates, (0, top_rate), "y", panel, narrow=narrow),
        *_ends(behind, (0, top_behind), "y2", panel, narrow=narrow),
    ]  # fmt: skip
    slow: Spec = {
        "type": "rect", "x0": begins, "x1": ends, "y0": 0, "y1": 1, "xref": "x", "yref": "paper",
        "fillcolor": "$mute@0.35", "line": {"width": 0}, "layer": "below",
    }  # fmt: skip
    last = max(s for pairs in behind.values() for s, _ in pairs)
    return figure(
        traces,
        height=height,
        margin=(left, right, top, bottom),
        annotations=annotations,
        shapes=[slow],
        xaxis=base_axis(anchor="y2", range=[0, last]),
        yaxis=axis(domain=[0.55, 1], range=[0, top_rate], tickformat="~s", nticks=5),
        yaxis2=axis(domain=[0, 0.42], range=[0, top_behind], tickformat="~s", nticks=5),
    )


def _fault_numbers(faults: Mapping[str, Values]) -> Table:
    rows = [
        (
            SIDES[name][0],
            rate(found["usual_per_s"]),
            rate(found["slow_per_s"]),
            number(found["behind_max"]),
            short(max(sample["entries"] for sample in found["samples"])),
            number(found["recovery_s"]),
            number(found["accepted_latency_ms"]["p99"]),
        )
        for name, found in faults.items()
    ]
    columns = ("", "before/s", "slow/s", "waiting, most", "stream entries", "recovery s", "p99 ms")
    return Table(columns, rows)


# Costs.


def costs_section(run: Run) -> Section | Missing:
    admission = run.group("admission")
    figures = [
        each for each in figures_of(admission) if str(each["name"]).startswith(("costs:", "polls:"))
    ]
    if not figures:
        return why_missing(admission, COSTS)
    checks = admission.get("costs", {}).get("nanoseconds", {})
    dearest = max(checks, key=lambda name: checks[name], default="")
    said = f"The dearest check is {dearest}: {number(checks[dearest])} ns." if dearest else ""
    return Section(
        key="admission-costs",
        title=COSTS,
        shows="Each check on the hot path by itself, memory for a million, and a poll over HTTP.",
        finding=said or "Checks by themselves were not measured in this run.",
        mode="no server involved",
        tables=(
            figures_table(
                [each | {"name": str(each["name"]).partition(": ")[2]} for each in map(dict, figures)]
            ),
        ),
    )  # fmt: skip
