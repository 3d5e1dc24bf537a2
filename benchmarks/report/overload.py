"""The section on goodput under overload."""

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
    nice_top,
)
from benchmarks.report.runs import Run
from benchmarks.report.section import Chart, Missing, Section, Spec, Table
from benchmarks.report.sweep import Step, busy_note
from benchmarks.report.words import number, percent, rate, short

OUTCOMES: Final = {
    "201": ("accepted", "$front"),
    "200": ("replayed", "$postgres"),
    "409": ("409", "$worker"),
    "429": ("429 throttled", "$worker"),
    "503": ("503 overloaded", "$redis"),
    "unsent": ("no connection free", "$mute"),
    "lost": ("connection broke", "$redis"),
    "unanswered": ("no answer", "$redis"),
}


def overload_section(run: Run) -> Section | Missing:
    overload = run.group("overload")
    steps = sorted(overload.get("steps", ()), key=lambda step: step["times"])
    if not steps:
        return Missing("Goodput under overload", "Overload was not measured in this run.")
    return Section(
        key="overload",
        title="Goodput under overload",
        shows=(
            "Goodput is what was accepted within a second of being due, while up to ten times the "
            f"{overload.get('base_is', 'knee')} is offered."
        ),
        finding=_overload_finding(overload, steps),
        mode=overload.get("durability", ""),
        charts=(
            Chart(
                lambda narrow: overload_chart(overload, steps, narrow=narrow),
                _overload_numbers(steps),
                "Goodput and outcomes at one to ten times the knee",
            ),
        ),
        notes=_overload_notes(overload, steps),
    )


def _overload_finding(overload: Mapping[str, Any], steps: Sequence[Step]) -> str:
    last, share = steps[-1], overload["goodput_share_at_most"]
    target = overload.get("share_target", 0.8)
    verdict = "kept" if share >= target else "missed"
    grew = last["front_rss_max_mib"] - steps[0]["front_rss_max_mib"]
    memory = f"grew by {number(grew)} MiB" if grew >= 0.5 else "did not grow"
    return (
        f"With {last['times']:g} times the load offered, goodput is {percent(share)} of its peak of "
        f"{rate(overload['peak_goodput_per_s'])}/s (the target of {percent(target)} is {verdict}), p99 of the "
        f"accepted is {number(last['accepted_latency_ms']['p99'])} ms, and the front's memory {memory}."
    )


def _overload_notes(overload: Mapping[str, Any], steps: Sequence[Step]) -> list[str]:
    last = steps[-1]
    notes = [
        f"{overload.get('connections', 0):,} connections. A request that found none free was not sent, "
        f"like a buyer whose connection is not taken: of {rate(last['offered_per_s'])}/s due, "
        f"{rate(last['sent_per_s'])}/s reached the engine."
    ]
    if last["generator"]["was_limit"]:
        notes.append("At the highest load the generator was at its own limit.")
    return notes + busy_note(steps)


def overload_chart(overload: Mapping[str, Any], steps: Sequence[Step], *, narrow: bool) -> Spec:
    height, right, left, top, bottom = (540, 16, 44, 44, 104) if narrow else (500, 176, 62, 44, 50)
    xs = list(range(len(steps)))
    peak = overload["peak_goodput_per_s"]
    target = overload.get("share_target", 0.8)
    top_value = nice_top(peak * 1.12)
    shares = _shares(steps)
    traces = [_goodput_line(steps)]
    traces += [_share_bar(steps, key, values) for key, values in shares.items()]
    annotations = [
        caption("Accepted within 1 s, per second", y=1.0),
        caption("What became of the requests due", y=0.4),
        label(
            f"{percent(target)} of the peak", color="$ink-3", xref="paper", x=1, yref="y",
            y=peak * target, xanchor="right", yanchor="top",
        ),
        axis_name(
            f"times the {overload.get('base_is', 'knee')} offered ({rate(overload['base_per_s'])}/s)"
        ),
        *_goodput_labels(steps, narrow=narrow),
        *_outcome_labels(shares, (height - top - bottom) * 0.4, narrow=narrow),
    ]  # fmt: skip
    x_axis = {"tickvals": xs, "ticktext": [f"{step['times']:g}×" for step in steps]}
    return figure(
        traces,
        height=height,
        margin=(left, right, top, bottom),
        barmode="stack",
        bargap=0.32,
        annotations=annotations,
        shapes=[line(0, 1, peak * target, peak * target, xref="paper", yref="y")],
        xaxis=base_axis(
            anchor="y", range=[-0.5, len(xs) - 0.5], showticklabels=False, tickvals=xs
        ),
        xaxis2=base_axis(anchor="y2", matches="x", range=[-0.5, len(xs) - 0.5], **x_axis),
        yaxis=axis(domain=[0.52, 1], range=[0, top_value], anchor="x", nticks=5, tickformat="~s"),
        yaxis2=axis(
            domain=[0, 0.4], range=[0, 1], anchor="x2", tickformat=".0%", tickvals=[0, 0.5, 1]
        ),
    )  # fmt: skip


def _shares(steps: Sequence[Step]) -> dict[str, list[float]]:
    """Of all requests due, by outcome; outcomes nobody had are left out."""
    found = {outcome for step in steps for outcome, count in step["outcomes"].items() if count}
    order = [key for key in OUTCOMES if key in found] + sorted(found - set(OUTCOMES))
    dues = [max(1, sum(step["outcomes"].values())) for step in steps]
    return {
        key: [step["outcomes"].get(key, 0) / due for step, due in zip(steps, dues, strict=True)]
        for key in order
    }


def outcome_title(key: str) -> str:
    return OUTCOMES.get(key, (f"status {key}", ""))[0]


def _outcome_color(key: str) -> str:
    return OUTCOMES.get(key, ("", "$worker"))[1]


def _goodput_line(steps: Sequence[Step]) -> Spec:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": list(range(len(steps))),
        "y": [step["goodput_per_s"] for step in steps],
        "customdata": [step["accepted_latency_ms"]["p99"] for step in steps],
        "line": {"color": "$front", "width": 2.5},
        "marker": {"size": 7, "color": "$front"},
        "fill": "tozeroy",
        "fillcolor": "$front@0.10",
        "hovertemplate": "%{y:,.0f}/s, p99 of the accepted %{customdata:,.1f} ms<extra></extra>",
    }


def _share_bar(steps: Sequence[Step], key: str, values: Sequence[float]) -> Spec:
    return {
        "type": "bar",
        "xaxis": "x2",
        "yaxis": "y2",
        "x": list(range(len(steps))),
        "y": list(values),
        "marker": {"color": _outcome_color(key), "line": {"color": "$card", "width": 1}},
        "hovertemplate": f"{outcome_title(key)}: %{{y:.1%}}<extra></extra>",
    }


def _goodput_labels(steps: Sequence[Step], *, narrow: bool) -> list[Spec]:
    return [
        label(
            short(float(f"{step['goodput_per_s']:.3g}"))
            if narrow
            else f"{rate(step['goodput_per_s'])}/s",
            color="$ink",
            x=at,
            xref="x",
            y=step["goodput_per_s"],
            yref="y",
            yanchor="bottom",
            yshift=7,
            bgcolor="$card@0.8",
        )
        for at, step in enumerate(steps)
    ]


def _outcome_labels(
    shares: Mapping[str, Sequence[float]], pixels: float, *, narrow: bool
) -> list[Spec]:
    """Names of the outcomes: beside the last bar, or in a line below where there is no room."""
    keys = list(shares)
    if narrow:
        words = [
            f'<span style="color:{_outcome_color(key)}">■</span> {outcome_title(key)}'
            for key in keys
        ]
        text = "<br>".join("   ".join(words[at : at + 2]) for at in range(0, len(words), 2))
        return [
            label(
                text, xref="paper", yref="paper", x=0, y=0, xanchor="left", yanchor="top",
                yshift=-44, align="left",
            )
        ]  # fmt: skip
    middles, below = [], 0.0
    for key in keys:
        middles.append(below + shares[key][-1] / 2)
        below += shares[key][-1]
    return end_labels(
        [(f"{outcome_title(key)} {percent(shares[key][-1])}", _label_color(key)) for key in keys],
        middles,
        span=(0, 1),
        pixels=pixels,
        x=1.0,
        xref="paper",
        yref="y2",
        xshift=2,
    )


def _label_color(key: str) -> str:
    color = _outcome_color(key)
    return "$ink-2" if color == "$mute" else color


def _overload_numbers(steps: Sequence[Step]) -> Table:
    outcomes = list(_shares(steps))
    return Table(
        ("offered", "offered/s", "sent/s", "goodput/s", "p99 of accepted, ms", "front MiB", *map(outcome_title, outcomes)),
        [
            (
                f"{step['times']:g}×",
                rate(step["offered_per_s"]),
                rate(step["sent_per_s"]),
                rate(step["goodput_per_s"]),
                number(step["accepted_latency_ms"]["p99"]),
                number(step["front_rss_max_mib"]),
                *(number(step["outcomes"].get(outcome, 0)) for outcome in outcomes),
            )
            for step in steps
        ],
        words=frozenset(),
    )  # fmt: skip
