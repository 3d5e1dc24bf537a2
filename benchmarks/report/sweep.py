"""The sections on the sweep: throughput against latency, CPU by hop."""

import math
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
from benchmarks.report.words import number, percent, plural, rate, short

Step = Mapping[str, Any]

P99_MS_MAX: Final = 5.0
BUSY_SHARE_MAX: Final = 0.10  # Above it, others on the machine shape the figures.
PERCENTILES: Final = {"p50": "p50", "p90": "p90", "p99": "p99", "p999": "p99.9"}
HOPS: Final = {"front": "front", "redis": "Redis", "worker": "worker", "postgres": "Postgres"}


def busy_note(steps: Sequence[Step]) -> list[str]:
    """Says so where other programs took much of the machine during these steps."""
    most = max((step.get("others_share") or 0.0 for step in steps), default=0.0)
    if most <= BUSY_SHARE_MAX:
        return []
    return [f"Other programs took up to {percent(most)} of the machine's cores meanwhile."]


def sweep_section(run: Run) -> Section | Missing:
    sweep = run.group("sweep")
    steps = sorted(sweep.get("steps", ()), key=lambda step: step["offered_per_s"])
    if not steps:
        return Missing("Throughput and latency", "The sweep was not measured in this run.")
    return Section(
        key="sweep",
        title="Throughput and latency",
        shows=(
            "Each step offers a fixed rate, whatever the answers, and counts latency from the moment "
            "a request was due, so a stall is charged for everybody it kept waiting."
        ),
        finding=_sweep_finding(sweep, steps),
        mode=sweep.get("durability", ""),
        charts=(
            Chart(
                lambda narrow: sweep_curve(steps, sweep.get("knee"), narrow=narrow),
                _sweep_numbers(steps),
                "Latency percentiles and accepted reservations per second over the offered load",
            ),
        ),
        notes=_sweep_notes(sweep, steps),
    )


def _sweep_finding(sweep: Mapping[str, Any], steps: Sequence[Step]) -> str:
    most = max(step["accepted_per_s"] for step in steps)
    knee = sweep.get("knee")
    if not knee:
        best = min(steps, key=lambda step: step["latency_ms"]["p99"])
        return (
            f"No step kept p99 within {P99_MS_MAX:g} ms; the lowest was "
            f"{number(best['latency_ms']['p99'])} ms at {rate(best['offered_per_s'])} requests/s. "
            f"At most {rate(most)} reservations/s were accepted."
        )
    return (
        f"The knee is at {rate(knee['offered_per_s'])} reservations/s, with p50 "
        f"{number(knee['latency_ms']['p50'])} ms and p99 {number(knee['latency_ms']['p99'])} ms. "
        f"Beyond it the engine accepts up to {rate(most)}/s, and buyers wait."
    )


def _sweep_notes(sweep: Mapping[str, Any], steps: Sequence[Step]) -> list[str]:
    notes = [f"Knee: {sweep['knee_method']}."] if "knee_method" in sweep else []
    cores = sweep.get("cores", {})
    if cores:
        notes.append(
            f"Engine on {plural(len(cores.get('engine', ())), 'core')}, generator on "
            f"{plural(len(cores.get('generator', ())), 'core')} of its own; Poisson arrivals over "
            f"{sweep.get('connections', 0):,} kept-alive connections."
        )
    behind = [step for step in steps if step["generator"]["was_limit"]]
    if behind:
        lag = max(step["generator"]["lag_p99_ms"] for step in behind)
        notes.append(
            f"In {len(behind)} of {len(steps)} steps the generator itself was late (p99 up to "
            f"{number(lag)} ms): their latencies are upper bounds."
        )
    return notes + busy_note(steps)


LATENCY_DOMAIN: Final = (0.40, 1.0)
ACCEPTED_DOMAIN: Final = (0.0, 0.26)


def sweep_curve(steps: Sequence[Step], knee: Step | None, *, narrow: bool) -> Spec:
    height, right, left, top, bottom = (520, 50, 42, 58, 46) if narrow else (560, 72, 62, 52, 50)
    span = _latency_span(steps)
    x_max = steps[-1]["offered_per_s"]
    pixels = (height - top - bottom) * (LATENCY_DOMAIN[1] - LATENCY_DOMAIN[0])
    return figure(
        [
            *[_percentile_line(steps, name) for name in PERCENTILES],
            *_accepted_lines(steps, x_max),
        ],
        height=height,
        margin=(left, right, top, bottom),
        annotations=[
            *_percentile_names(steps[-1], span, pixels),
            *_sweep_captions(),
            *_knee_label(knee, x_max, narrow=narrow),
        ],
        shapes=_sweep_lines(knee),
        **_sweep_axes(steps, span, 4 if narrow else 7),
    )


def _sweep_axes(steps: Sequence[Step], span: tuple[float, float], tick_count: int) -> Spec:
    x_max = steps[-1]["offered_per_s"]
    accepted_top = nice_top(max(step["accepted_per_s"] for step in steps))
    ticks = _ticks(x_max, tick_count)
    x_axis = {"range": [0, x_max * 1.02], "tickvals": ticks, "ticktext": [short(t) for t in ticks]}
    return {
        "xaxis": base_axis(anchor="y", **x_axis, showticklabels=False),
        "xaxis2": base_axis(anchor="y2", matches="x", **x_axis),
        "yaxis": log_axis(*span, domain=list(LATENCY_DOMAIN), anchor="x"),
        "yaxis2": axis(
            domain=list(ACCEPTED_DOMAIN), range=[0, accepted_top], anchor="x2", nticks=4,
            tickformat="~s",
        ),
    }  # fmt: skip


def _percentile_names(last: Step, span: tuple[float, float], pixels: float) -> list[Spec]:
    return end_labels(
        [(title, f"${name}") for name, title in PERCENTILES.items()],
        [max(span[0], last["latency_ms"][name]) for name in PERCENTILES],
        span=span,
        pixels=pixels,
        log=True,
        x=1.0,
        xref="paper",
        xshift=8,
        yref="y",
    )


def _sweep_captions() -> list[Spec]:
    return [
        caption("Latency from the time due, ms", y=1.0),
        caption("Accepted reservations/s", y=ACCEPTED_DOMAIN[1]),
        axis_name("requests offered per second"),
        label(
            f"{P99_MS_MAX:g} ms", color="$ink-3", xref="paper", x=0, yref="y",
            y=math.log10(P99_MS_MAX), xanchor="left", yanchor="bottom", xshift=2, bgcolor="$card",
        ),
    ]  # fmt: skip


def _sweep_lines(knee: Step | None) -> list[Spec]:
    shapes = [line(0, 1, P99_MS_MAX, P99_MS_MAX, xref="paper", yref="y")]
    if knee:
        at = knee["offered_per_s"]
        shapes.append(line(at, at, 0, 1, yref="paper", color="$accent"))
    return shapes


def _latency_span(steps: Sequence[Step]) -> tuple[float, float]:
    lowest = min(step["latency_ms"]["p50"] for step in steps)
    highest = max(step["latency_ms"]["p999"] for step in steps)
    return min(max(lowest, 0.01) * 0.7, 3.0), max(highest * 1.4, 10.0)


def _percentile_line(steps: Sequence[Step], name: str) -> Spec:
    title = PERCENTILES[name]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [step["offered_per_s"] for step in steps],
        "y": [max(0.01, step["latency_ms"][name]) for step in steps],
        "line": {"color": f"${name}", "width": 2.5 if name == "p99" else 1.75},
        "marker": {"size": 6 if name == "p99" else 4.5, "color": f"${name}"},
        "hovertemplate": f"{title} %{{y:,.2f}} ms at %{{x:,.0f}}/s<extra></extra>",
    }


def _accepted_lines(steps: Sequence[Step], x_max: float) -> list[Spec]:
    offered = {
        "type": "scatter", "mode": "lines", "xaxis": "x2", "yaxis": "y2", "hoverinfo": "skip",
        "x": [0, x_max], "y": [0, x_max], "line": {"color": "$ink-3", "width": 1, "dash": "dot"},
    }  # fmt: skip
    accepted = {
        "type": "scatter",
        "mode": "lines+markers",
        "xaxis": "x2",
        "yaxis": "y2",
        "x": [step["offered_per_s"] for step in steps],
        "y": [step["accepted_per_s"] for step in steps],
        "line": {"color": "$front", "width": 2.5},
        "marker": {"size": 5, "color": "$front"},
        "fill": "tozeroy",
        "fillcolor": "$front@0.10",
        "hovertemplate": "%{y:,.0f}/s accepted of %{x:,.0f} offered<extra></extra>",
    }
    return [accepted, offered]


def _knee_label(knee: Step | None, x_max: float, *, narrow: bool) -> list[Spec]:
    if not knee:
        return []
    right_half = knee["offered_per_s"] > x_max * 0.5
    p99 = number(knee["latency_ms"]["p99"])
    text = f"<b>knee {rate(knee['offered_per_s'])}/s</b>"
    return [
        label(
            text if narrow else f"{text}, p99 {p99} ms",
            color="$accent",
            x=knee["offered_per_s"],
            xref="x",
            yref="paper",
            y=1.0,
            xanchor="right" if right_half else "left",
            yanchor="top",
            xshift=-6 if right_half else 6,
            bgcolor="$card",
        )
    ]


def _ticks(high: float, count: int) -> list[float]:
    step = nice_top(high / count / 1.05)
    return [step * each for each in range(int(high / step) + 1)]


def _sweep_numbers(steps: Sequence[Step]) -> Table:
    return Table(
        (
            "offered/s", "accepted/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms",
            "late", "unsent", "generator", "others",
        ),
        [
            (
                rate(step["offered_per_s"]),
                rate(step["accepted_per_s"]),
                *(number(step["latency_ms"][name]) for name in (*PERCENTILES, "max")),
                number(step.get("late", 0)),
                number(step["outcomes"].get("unsent", 0)),
                percent(step["generator"]["cpu_share"]),
                percent(step.get("others_share")),
            )
            for step in steps
        ],
        words=frozenset(),
    )  # fmt: skip


def cpu_section(run: Run) -> Section | Missing:
    sweep = run.group("sweep")
    steps = sorted(sweep.get("steps", ()), key=lambda step: step["offered_per_s"])
    steps = [step for step in steps if all(step["cpu_us"].get(hop) for hop in HOPS)]
    if not steps:
        return Missing("CPU per hop", "The sweep was not measured in this run.")
    return Section(
        key="cpu",
        title="CPU per hop",
        shows=(
            "What one accepted reservation costs each process, by the kernel's accounting: the front "
            "and Redis while it is asked for, the worker and Postgres until it is stored."
        ),
        finding=_cpu_finding(steps),
        mode=sweep.get("durability", ""),
        charts=(
            Chart(
                lambda narrow: cpu_bars(steps, narrow=narrow),
                _cpu_numbers(steps),
                "CPU microseconds per accepted reservation by process, over the offered load",
            ),
        ),
    )


def total_us(step: Step) -> float:
    return float(sum(step["cpu_us"][hop] for hop in HOPS))


def _cpu_finding(steps: Sequence[Step]) -> str:
    first, cheapest = steps[0], min(steps, key=total_us)
    largest = max(HOPS, key=lambda hop: cheapest["cpu_us"][hop])
    share = cheapest["cpu_us"][largest] / total_us(cheapest)
    return (
        f"At {rate(cheapest['offered_per_s'])}/s a reservation costs {number(total_us(cheapest))} µs in all, "
        f"{percent(share)} of it in the {HOPS[largest]}; at {rate(first['offered_per_s'])}/s it costs "
        f"{number(total_us(first))} µs, because batches are small when little is going on."
    )


def cpu_bars(steps: Sequence[Step], *, narrow: bool) -> Spec:
    height, right, left, top, bottom = (380, 62, 40, 44, 46) if narrow else (400, 92, 62, 44, 50)
    names = [short(round(step["offered_per_s"], -1)) for step in steps]
    order = list(HOPS)
    traces = [_hop_bar(steps, hop) for hop in order]
    top_value = nice_top(max(map(total_us, steps)))
    middles, below = [], 0.0
    for hop in order:
        middles.append(below + steps[-1]["cpu_us"][hop] / 2)
        below += steps[-1]["cpu_us"][hop]
    annotations = end_labels(
        [(HOPS[hop], f"${hop}") for hop in order],
        middles,
        span=(0, top_value),
        pixels=height - top - bottom,
        x=1.0,
        xref="paper",
        xshift=6,
    )
    annotations += [
        caption("CPU µs per accepted reservation"),
        axis_name("requests offered per second"),
        *_totals(steps, narrow=narrow),
    ]  # fmt: skip
    return figure(
        traces,
        height=height,
        margin=(left, right, top, bottom),
        barmode="stack",
        bargap=0.32,
        annotations=annotations,
        xaxis=base_axis(
            tickvals=list(range(len(steps)))[:: 3 if narrow else 1],
            ticktext=names[:: 3 if narrow else 1],
            range=[-0.5, len(steps) - 0.5],
        ),
        yaxis=axis(range=[0, top_value], nticks=6),
    )


def _totals(steps: Sequence[Step], *, narrow: bool) -> list[Spec]:
    shown = [0, len(steps) - 1] if narrow else range(len(steps))
    return [
        label(
            number(round(total_us(steps[at]))), color="$ink", x=at, y=total_us(steps[at]),
            yanchor="bottom", yshift=2,
        )
        for at in shown
    ]  # fmt: skip


def _hop_bar(steps: Sequence[Step], hop: str) -> Spec:
    return {
        "type": "bar",
        "x": list(range(len(steps))),
        "y": [step["cpu_us"][hop] for step in steps],
        "customdata": [rate(step["offered_per_s"]) for step in steps],
        "marker": {"color": f"${hop}", "line": {"color": "$card", "width": 1}},
        "hovertemplate": f"{HOPS[hop]} %{{y:.1f}} µs at %{{customdata}}/s<extra></extra>",
    }


def _cpu_numbers(steps: Sequence[Step]) -> Table:
    hops = list(HOPS)
    return Table(
        ("offered/s", *(f"{HOPS[hop]} µs" for hop in hops), "all µs", *(f"{HOPS[hop]} busy" for hop in hops)),
        [
            (
                rate(step["offered_per_s"]),
                *(number(step["cpu_us"][hop]) for hop in hops),
                number(total_us(step)),
                *(percent(step["utilisation"].get(hop)) for hop in hops),
            )
            for step in steps
        ],
        words=frozenset(),
    )  # fmt: skip
