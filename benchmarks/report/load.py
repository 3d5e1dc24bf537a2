"""The sections on load: throughput against latency, CPU by hop, goodput under overload."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.report.drawing import (
    axis,
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
from benchmarks.report.words import listed, number, percent, plural, rate, short

Step = Mapping[str, Any]

P99_MS_MAX: Final = 5.0
BUSY_SHARE_MAX: Final = 0.10  # Above it, others on the machine shape the figures.
PERCENTILES: Final = {"p50": "p50", "p90": "p90", "p99": "p99", "p999": "p99.9"}
HOPS: Final = {"front": "front", "redis": "Redis", "worker": "worker", "postgres": "Postgres"}
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


def sweep_curve(steps: Sequence[Step], knee: Step | None, *, narrow: bool) -> Spec:
    height, right, left, top, bottom = (520, 50, 42, 58, 46) if narrow else (560, 72, 62, 52, 50)
    low, high = _latency_span(steps)
    x_max = steps[-1]["offered_per_s"]
    latency_domain, accepted_domain = (0.40, 1.0), (0.0, 0.26)
    pixels = (height - top - bottom) * (latency_domain[1] - latency_domain[0])
    traces = [_percentile_line(steps, name) for name in PERCENTILES]
    traces += _accepted_lines(steps, x_max)
    last = steps[-1]
    annotations = end_labels(
        [(title, f"${name}") for name, title in PERCENTILES.items()],
        [max(low, last["latency_ms"][name]) for name in PERCENTILES],
        span=(low, high),
        pixels=pixels,
        log=True,
        x=1.0,
        xref="paper",
        xshift=8,
        yref="y",
    )
    annotations += [
        caption("Latency from the time due, ms", y=1.0),
        caption("Accepted reservations/s", y=accepted_domain[1]),
        label(
            "requests offered per second", xref="paper", yref="paper", x=1, y=0, yshift=-26,
            xanchor="right", yanchor="top",
        ),
        label(
            f"{P99_MS_MAX:g} ms", color="$ink-3", xref="paper", x=0, yref="y",
            y=math.log10(P99_MS_MAX), xanchor="left", yanchor="bottom", xshift=2, bgcolor="$card",
        ),
        *_knee_label(knee, x_max, narrow=narrow),
    ]  # fmt: skip
    shapes = [line(0, 1, P99_MS_MAX, P99_MS_MAX, xref="paper", yref="y")]
    if knee:
        at = knee["offered_per_s"]
        shapes.append(line(at, at, 0, 1, yref="paper", color="$accent"))
    accepted_top = nice_top(max(step["accepted_per_s"] for step in steps))
    ticks = _ticks(x_max, 4 if narrow else 7)
    x_axis = {"range": [0, x_max * 1.02], "tickvals": ticks, "ticktext": [short(t) for t in ticks]}
    return figure(
        traces,
        height=height,
        margin=(left, right, top, bottom),
        annotations=annotations,
        shapes=shapes,
        xaxis=base_axis(anchor="y", **x_axis, showticklabels=False),
        xaxis2=base_axis(anchor="y2", matches="x", **x_axis),
        yaxis=log_axis(low, high, domain=list(latency_domain), anchor="x"),
        yaxis2=axis(
            domain=list(accepted_domain), range=[0, accepted_top], anchor="x2", nticks=4,
            tickformat="~s",
        ),
    )  # fmt: skip


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
        label(
            "requests offered per second", xref="paper", yref="paper", x=1, y=0, yshift=-26,
            xanchor="right", yanchor="top",
        ),
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
        label(
            f"times the {overload.get('base_is', 'knee')} offered ({rate(overload['base_per_s'])}/s)",
            xref="paper", yref="paper", x=1, y=0, yshift=-24, xanchor="right", yanchor="top",
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


def words_of(outcomes: Mapping[str, int]) -> str:
    return listed([f"{count:,} {outcome_title(key)}" for key, count in outcomes.items()])
