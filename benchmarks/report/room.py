"""The section on a simulated day in the waiting room."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
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
    nice_top,
)
from benchmarks.report.runs import Run
from benchmarks.report.section import Chart, Missing, Section, Spec, Table
from benchmarks.report.told import why_missing
from benchmarks.report.words import number, percent, rate

Values = Mapping[str, Any]
Second = Mapping[str, Any]

TITLE: Final = "A simulated day in the waiting room"
BEFORE_SECONDS: Final = 120  # of the hours before the opening that are shown
AFTER_SHARE: Final = 1.08  # of the time until all was gone
POINTS_MAX: Final = 400  # per line
TOLD_SECONDS_MAX: Final = 0.2  # A front's look at Redis is so old at most.
SAYS: Final = {
    "good": ("$postgres", "good"),
    "fair": ("$p50", "fair"),
    "slim": ("$worker", "slim"),
    "none": ("$mute", "none"),
}
STOCK: Final = {
    "sold": ("$front", "sold"),
    "reserved": ("$p50", "reserved"),
    "available": ("$mute", "available"),
}


def room_section(run: Run) -> Section | Missing:
    admission = run.group("admission")
    day = admission.get("simulation")
    if not day:
        return why_missing(admission, TITLE)
    shown = shown_seconds(day)
    return Section(
        key="room",
        title=TITLE,
        shows=(
            f"{_visitors(day)} visitors for {day['plan']['shop']['units']:,} units on a virtual clock, "
            f"{percent(day['bots'] / day['plan']['crowd']['visitors'])} of them bots. Visitors and the "
            "store behind the front are models; all that decides is the engine's own code."
        ),
        finding=_finding(day),
        mode="virtual time",
        charts=(
            Chart(
                lambda narrow: day_chart(day, shown, narrow=narrow),
                _day_numbers(shown),
                "The waiting room over the day: people waiting, units, pace, chances told",
            ),
            Chart(
                lambda narrow: eta_chart(day, narrow=narrow),
                _chance_numbers(day),
                "Promised against actual waiting times",
            ),
        ),
        notes=_notes(day, admission.get("draw")),
    )


def shown_seconds(day: Values) -> list[Second]:
    """From shortly before the opening until all was gone, thinned out."""
    end = (day.get("gone_s") or day["seconds"][-1]["s"]) * AFTER_SHARE
    found = [each for each in day["seconds"] if -BEFORE_SECONDS <= each["s"] <= end]
    return found[:: max(1, len(found) // POINTS_MAX)]


def _visitors(day: Values) -> str:
    return f"{day['plan']['crowd']['visitors']:,}"


def _finding(day: Values) -> str:
    counts, eta = day["counts"], day["eta"]
    passed = counts.get("passed_over", 0)
    fair = (
        "nobody present was passed over" if not passed else f"{passed:,} present were passed over"
    )
    return (
        f"All {day['sold']:,} units were sold {number(day.get('gone_s'))} s after the opening; {fair}; nine of "
        f"ten waits came within {percent(eta.get('error_p90'))} of what was promised; and who still waited "
        f"when nothing was left was told so {_when_told(day['gone_beyond_interval_s'])}."
    )


def _when_told(beyond_s: float) -> str:
    if beyond_s <= TOLD_SECONDS_MAX:
        return "by the next poll"
    return f"up to {number(beyond_s)} s later than at the next poll"


def _notes(day: Values, drawn: Values | None) -> list[str]:
    counts, units = day["counts"], day["units"]
    bots = units.get("bots", 0) / max(1, sum(units.values()))
    notes = [
        f"ETA error is {day['eta_error_is']}, over {day['eta']['promises']:,} promises made to those who "
        f"were served later; half are within {percent(day['eta']['error_p50'])}, and the range told with "
        f"each held the truth {percent(day['eta']['inside_range'])} of the time.",
        f"{counts.get('polls', 0):,} polls reached Redis {counts.get('redis_calls_in_polls', 0):,} times. "
        f"{counts.get('left', 0):,} left without a word and were skipped without a jam; "
        f"{counts.get('told_gone', 0):,} were told that all is gone.",
        f"Bots, who came with the first, ask for several tickets and poll faster than told, bought "
        f"{percent(bots)} of the units; asking again gave {counts.get('second_numbers', 0):,} of them a "
        "second number.",
    ]
    if drawn:
        theirs = drawn["units"].get("bots", 0) / max(1, sum(drawn["units"].values()))
        notes.append(
            f"With a draw, in a day of {_visitors(drawn)} visitors, bots bought {percent(theirs)}, and nine "
            f"of ten promises held within {percent(drawn['eta'].get('error_p90'))}."
        )
    return notes


# The day.


def day_chart(day: Values, shown: Sequence[Second], *, narrow: bool) -> Spec:
    height, right, left = (860, 14, 46) if narrow else (760, 132, 62)
    top, bottom = 44, 54
    xs = [each["s"] for each in shown]
    domains = ([0.79, 1.0], [0.53, 0.72], [0.27, 0.46], [0.0, 0.19])
    pixels = height - top - bottom
    waiting = [each["waiting"] for each in shown]
    top_waiting = nice_top(max(waiting, default=1))
    units = max(1, day["plan"]["shop"]["units"])
    paces = [(each["rate"], each["capacity"]) for each in shown]
    top_pace = nice_top(max((max(pair) for pair in paces), default=1.0))
    traces = [
        _line(xs, waiting, "$front", "y", "%{y:,} present and waiting", fill=True),
        *_stack(xs, shown, STOCK, "y2", units),
        _line(xs, [pair[1] for pair in paces], "$worker", "y3", "the store can take %{y:,.0f}/s"),
        _line(xs, _admitted_per_second(shown), "$front", "y3", "%{y:,.0f} people let in/s"),
        *_stack(xs, [_shares(each["says"]) for each in shown], SAYS, "y4", 1.0),
    ]
    captions = (
        "People present and waiting",
        "Units",
        "Let in per second, and what the store can take" if not narrow else "Per second",
        "Chances told, share of polls" if not narrow else "Chances",
    )
    annotations = [
        *[
            caption(text, y=domain[1])
            for text, domain in zip(captions, domains, strict=True)
        ],
        axis_name("seconds after the opening"),
        label("opening", x=0, xref="x", y=1, yref="paper", yanchor="top", yshift=2,
              xanchor="left", xshift=4, color="$ink-3"),
        *([] if narrow else _side_labels(shown, units, top_pace, pixels)),
    ]  # fmt: skip
    if narrow:
        annotations += _narrow_keys(domains)
    return figure(
        traces,
        height=height,
        margin=(left, right, top, bottom),
        annotations=annotations,
        shapes=[line(0, 0, 0, 1, xref="x", yref="paper"), *_gone_line(day)],
        xaxis=base_axis(anchor="y4", range=[xs[0], xs[-1]], nticks=6 if narrow else 10),
        yaxis=axis(domain=domains[0], range=[0, top_waiting], tickformat="~s", nticks=4),
        yaxis2=axis(domain=domains[1], range=[0, units], tickformat="~s", nticks=4),
        yaxis3=axis(domain=domains[2], range=[0, top_pace], nticks=4),
        yaxis4=axis(domain=domains[3], range=[0, 1], tickformat=".0%", tickvals=[0, 0.5, 1]),
    )


def _gone_line(day: Values) -> list[Spec]:
    gone = day.get("gone_s")
    return [] if gone is None else [line(gone, gone, 0, 1, xref="x", yref="paper")]


def _line(
    xs: Sequence[float], ys: Sequence[Any], color: str, y: str, says: str, *, fill: bool = False
) -> Spec:
    spec: Spec = {
        "type": "scatter", "mode": "lines", "x": list(xs), "y": list(ys), "yaxis": y,
        "line": {"color": color, "width": 2}, "hovertemplate": f"%{{x}} s: {says}<extra></extra>",
    }  # fmt: skip
    return spec | ({"fill": "tozeroy", "fillcolor": f"{color}@0.12"} if fill else {})


def _stack(
    xs: Sequence[float],
    rows: Sequence[Mapping[str, float]],
    parts: Mapping[str, tuple[str, str]],
    y: str,
    whole: float,
) -> list[Spec]:
    """Areas one above the other."""
    says = "%{y:.0%}" if whole == 1.0 else "%{y:,}"
    return [
        {
            "type": "scatter", "mode": "lines", "x": list(xs), "yaxis": y, "stackgroup": y,
            "y": [row.get(name, 0) for row in rows], "line": {"width": 0, "color": color},
            "fillcolor": f"{color}@0.8", "hovertemplate": f"%{{x}} s, {title}: {says}<extra></extra>",
        }
        for name, (color, title) in parts.items()
    ]  # fmt: skip


def _shares(says: Mapping[str, int]) -> dict[str, float]:
    total = sum(count for name, count in says.items() if name in SAYS)
    return {name: says.get(name, 0) / total for name in SAYS} if total else {}


def _admitted_per_second(shown: Sequence[Second]) -> list[float]:
    """Smoothed over the distance between two points."""
    found = [0.0]
    for before, after in pairwise(shown):
        found.append((after["admitted"] - before["admitted"]) / max(1, after["s"] - before["s"]))
    return found


def _side_labels(shown: Sequence[Second], units: int, top_pace: float, pixels: float) -> list[Spec]:
    """Names beside the right ends of areas and lines."""
    last = next((each for each in reversed(shown) if _shares(each["says"])), shown[-1])
    place: Spec = {"x": 1.0, "xref": "paper", "xshift": 6}
    middle = shown[len(shown) // 3]
    stock = _middles([middle[name] for name in STOCK])
    says = _middles([_shares(last["says"]).get(name, 0) for name in SAYS])
    return [
        *end_labels([(title, _readable(color)) for color, title in STOCK.values()], stock,
                    span=(0, units), pixels=pixels * 0.19, yref="y2", **place),
        *end_labels([("let in", "$front"), ("store", "$worker")],
                    [_admitted_per_second(shown)[-1], shown[-1]["capacity"]],
                    span=(0, top_pace), pixels=pixels * 0.19, yref="y3", **place),
        *end_labels([(title, _readable(color)) for color, title in SAYS.values()], says,
                    span=(0, 1), pixels=pixels * 0.19, yref="y4", **place),
    ]  # fmt: skip


def _middles(heights: Sequence[float]) -> list[float]:
    """Of parts that stand on each other."""
    found, below = [], 0.0
    for height in heights:
        found.append(below + height / 2)
        below += height
    return found


def _readable(color: str) -> str:
    return "$ink-2" if color == "$mute" else color


def _narrow_keys(domains: Sequence[Sequence[float]]) -> list[Spec]:
    """The same names in a line above each panel, where there is no room beside it."""
    rows = (
        (domains[1], list(STOCK.values())),
        (domains[2], [("$front", "let in"), ("$worker", "store")]),
        (domains[3], list(SAYS.values())),
    )
    return [
        label(
            "  ".join(f'<span style="color:{color}">■</span> {title}' for color, title in names),
            xref="paper", yref="paper", x=1, y=domain[1], xanchor="right", yanchor="bottom",
            yshift=8,
        )
        for domain, names in rows
    ]  # fmt: skip


# Promises.


def eta_chart(day: Values, *, narrow: bool) -> Spec:
    points = day["eta"].get("points", [])
    top_value = nice_top(max((max(point) for point in points), default=1.0))
    edge = 1 + 0.2
    annotations = [
        caption("Promised wait, s"),
        axis_name("actual wait, s"),
        label("± 20 %", color="$ink-3", x=top_value / edge, y=top_value, yanchor="bottom",
              xanchor="center"),
    ]  # fmt: skip
    traces: list[Spec] = [
        {
            "type": "scatter", "mode": "markers", "x": [actual for _, actual in points],
            "y": [promised for promised, _ in points],
            "marker": {"size": 5, "color": "$front@0.45"},
            "hovertemplate": "promised %{y:.0f} s, waited %{x:.0f} s<extra></extra>",
        }
    ]  # fmt: skip
    return figure(
        traces,
        height=360 if narrow else 380,
        margin=(46, 14, 44, 54) if narrow else (62, 132, 44, 54),
        annotations=annotations,
        shapes=[
            line(0, top_value, 0, top_value),
            line(0, top_value / edge, 0, top_value, color="$rule"),
            line(0, top_value, 0, top_value * (1 - 0.2), color="$rule"),
        ],
        xaxis=base_axis(range=[0, top_value]),
        yaxis=axis(range=[0, top_value], nticks=6),
    )


def _day_numbers(shown: Sequence[Second]) -> Table:
    rows = shown[:: max(1, len(shown) // 24)]
    names = ("waiting", "issued", "serving", "available", "reserved", "sold", "backlog")
    return Table(
        ("s after opening", *names, "store/s"),
        [
            (number(row["s"]), *(number(row[name]) for name in names), rate(row["capacity"]))
            for row in rows
        ],
        words=frozenset(),
    )


def _chance_numbers(day: Values) -> Table:
    return Table(
        ("chance told", "polls told so", "of them served"),
        [
            (f"{percent(each['from'])} and more", number(each["told"]), percent(each["served"]))
            for each in day["chances"]
        ],
        words=frozenset({0}),
    )
