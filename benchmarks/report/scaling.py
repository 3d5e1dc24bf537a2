"""The section on more front processes: what they carry, and the law fitted to it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.report.drawing import (
    axis,
    axis_name,
    base_axis,
    caption,
    end_labels,
    figure,
    label,
    nice_top,
)
from benchmarks.report.runs import Run
from benchmarks.report.section import Chart, Missing, Section, Spec, Table
from benchmarks.report.sweep import busy_note
from benchmarks.report.words import number, percent, plural, rate

Values = Mapping[str, Any]


def scaling_section(run: Run) -> Section | Missing:
    scaling = run.group("scaling")
    steps = sorted(scaling.get("steps", ()), key=lambda step: step["fronts"])
    if not steps:
        return Missing("Scaling over processes", "Scaling was not measured in this run.")
    cores = scaling.get("cores", 0)
    return Section(
        key="scaling",
        title="Scaling over front processes",
        shows=(
            "Throughput at saturation with more and more front processes, and the Universal Scalability "
            "Law λN / (1 + σ(N−1) + κN(N−1)) fitted to it."
        ),
        finding=_scaling_finding(scaling, steps),
        mode=scaling.get("durability", ""),
        charts=(
            Chart(
                lambda _: scaling_chart(scaling, steps),
                _scaling_numbers(scaling, steps),
                "Accepted reservations per second over front processes, with the fitted law",
            ),
        ),
        half=True,
        notes=(
            f"{plural(cores, 'core')}, shared by everything and by the generator: past {cores} "
            "processes this shows what sharing costs, not what more cores bring.",
            f"Fit: {scaling['usl']['trust']} Residuals are {percent_text(scaling['usl']['relative_rms'])} "
            "of the mean throughput (RMS).",
            *busy_note(steps),
        ),
    )


def percent_text(share: float) -> str:
    return f"{share * 100:.1f} %"


def _scaling_finding(scaling: Values, steps: Sequence[Values]) -> str:
    first, best = steps[0], max(steps, key=lambda step: step["accepted_per_s"])
    usl = scaling["usl"]
    if best is first:
        said = (
            f"{plural(first['fronts'], 'process', 'processes')} carried most, "
            f"{rate(first['accepted_per_s'])}/s: on {plural(scaling.get('cores', 0), 'core')} others "
            "only take CPU from it."
        )
    else:
        said = (
            f"{best['fronts']} processes carried {rate(best['accepted_per_s'])}/s, "
            f"{best['accepted_per_s'] / first['accepted_per_s']:.2f} times what one did."
        )
    if usl["sigma"] >= 1:
        return (
            f"{said} The law does not describe this: it would take σ = {usl['sigma']:.2f}, above 1."
        )
    return f"{said} The fit says σ = {usl['sigma']:.3f} and κ = {usl['kappa']:.4f}."


def scaling_chart(scaling: Values, steps: Sequence[Values]) -> Spec:
    height, right, left, top, bottom = 330, 58, 42, 44, 50
    usl = scaling["usl"]
    last_n = max(2 * max(step["fronts"] for step in steps), 4)
    most = max(step["accepted_per_s"] for step in steps)
    top_value = nice_top(max(most * 1.3, usl["lambda_"]))
    grid = [last_n ** (at / 60) for at in range(61)]
    linear = [n for n in grid if usl["lambda_"] * n <= top_value]
    ticks = sorted({step["fronts"] for step in steps} | {last_n})
    return figure(
        _scaling_lines(usl, steps, grid, linear),
        height=height,
        margin=(left, right, top, bottom),
        annotations=[
            caption("Accepted reservations/s"),
            *map(_scaling_label, steps),
            label("linear", color="$ink-3", x=math.log10(linear[-1]), y=usl["lambda_"] * linear[-1],
                  xanchor="left", yanchor="top", xshift=6),
            *end_labels(
                [("fit", "$p90")], [min(_law(last_n, usl), top_value)], span=(0, top_value),
                pixels=height - top - bottom, x=1, xref="paper", xshift=6,
            ),
            axis_name("front processes"),
        ],
        xaxis=base_axis(
            type="log",
            range=[-0.2, math.log10(last_n) + 0.02],
            tickvals=ticks,
            ticktext=[str(tick) for tick in ticks],
        ),
        yaxis=axis(range=[0, top_value], nticks=5, tickformat="~s"),
    )  # fmt: skip


def _scaling_lines(
    usl: Values, steps: Sequence[Values], grid: Sequence[float], linear: Sequence[float]
) -> list[Spec]:
    return [
        {
            "type": "scatter", "mode": "lines", "hoverinfo": "skip",
            "x": list(linear), "y": [usl["lambda_"] * n for n in linear],
            "line": {"color": "$ink-3", "width": 1, "dash": "dot"},
        },
        {
            "type": "scatter", "mode": "lines", "x": list(grid), "y": [_law(n, usl) for n in grid],
            "line": {"color": "$p90", "width": 2, "dash": "dash"},
            "hovertemplate": "fit: %{y:,.0f}/s<extra></extra>",
        },
        {
            "type": "scatter", "mode": "markers",
            "x": [step["fronts"] for step in steps], "y": [step["accepted_per_s"] for step in steps],
            "marker": {"size": 11, "color": "$front", "line": {"color": "$card", "width": 2}},
            "hovertemplate": "%{x} processes: %{y:,.0f}/s<extra></extra>",
        },
    ]  # fmt: skip


def _scaling_label(step: Values) -> Spec:
    return label(
        f"<b>{rate(step['accepted_per_s'])}</b>",
        color="$front",
        x=math.log10(step["fronts"]),
        y=step["accepted_per_s"],
        yanchor="top",
        yshift=-9,
        bgcolor="$card@0.8",
    )


def _law(n: float, usl: Values) -> float:
    below = 1 + usl["sigma"] * (n - 1) + usl["kappa"] * n * (n - 1)
    return float(usl["lambda_"] * n / below)


def _scaling_numbers(scaling: Values, steps: Sequence[Values]) -> Table:
    return Table(
        ("processes", "accepted/s", "fit/s", "front µs", "generator", "others"),
        [
            (
                number(step["fronts"]),
                rate(step["accepted_per_s"]),
                rate(_law(step["fronts"], scaling["usl"])),
                number(step["cpu_us"].get("front")),
                percent(step["generator"]["cpu_share"]),
                percent(step.get("others_share")),
            )
            for step in steps
        ],
        words=frozenset(),
    )
