"""The sections on size: scaling over processes, durability modes, memory."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from benchmarks.report.drawing import (
    axis,
    axis_name,
    base_axis,
    caption,
    end_labels,
    figure,
    label,
    names_axis,
    nice_top,
)
from benchmarks.report.runs import Run
from benchmarks.report.section import Chart, Missing, Section, Spec, Table
from benchmarks.report.sweep import busy_note
from benchmarks.report.words import number, percent, plural, rate

Values = Mapping[str, Any]
STRICT_SHARE_MIN: Final = 0.8  # of balanced; the target
NO_COST_SHARE: Final = 0.97


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


def durability_section(run: Run) -> Section | Missing:
    group = run.group("durability")
    modes = group.get("modes", ())
    if not modes:
        return Missing("Durability modes", "Durability was not measured in this run.")
    return Section(
        key="durability",
        title="Durability modes",
        shows=(
            "The same load on each mode: strict fsyncs before a buyer is answered, balanced once a second, "
            "replicated is strict and waits for a replica to be there."
        ),
        finding=_durability_finding(modes),
        mode=", ".join(mode["mode"] for mode in modes),
        charts=(
            Chart(
                lambda _: durability_chart(modes),
                _durability_numbers(modes),
                "Throughput, p99 and Redis CPU by durability mode",
            ),
        ),
        half=True,
        notes=[
            *[f"{mode} was skipped: {why}" for mode, why in group.get("skipped", {}).items()],
            *busy_note([mode[part] for mode in modes for part in ("saturated", "half")]),
        ],
    )


def strict_share(modes: Sequence[Values]) -> float | None:
    """Throughput of strict as a share of balanced."""
    rates = {mode["mode"]: mode["saturated"]["accepted_per_s"] for mode in modes}
    if not rates.get("strict") or not rates.get("balanced"):
        return None
    return float(rates["strict"] / rates["balanced"])


def _durability_finding(modes: Sequence[Values]) -> str:
    share = strict_share(modes)
    if share is None:
        only = modes[0]
        return f"{only['mode'].capitalize()} carries {rate(only['saturated']['accepted_per_s'])}/s."
    rates = {mode["mode"]: mode["saturated"]["accepted_per_s"] for mode in modes}
    if share > NO_COST_SHARE:
        return (
            f"Strict carries {rate(rates['strict'])}/s, balanced {rate(rates['balanced'])}/s: in this run "
            "strict costs no throughput that could be told from noise."
        )
    word = "keeps" if share >= STRICT_SHARE_MIN else "keeps only"
    return (
        f"Strict carries {rate(rates['strict'])}/s and {word} {percent(share)} of balanced: every "
        "acknowledged reservation survives a power cut for that."
    )


def durability_chart(modes: Sequence[Values]) -> Spec:
    panels = _durability_panels(modes)
    names = [mode["mode"] for mode in modes]
    bars_px, gap_px = 26 * len(modes), 42
    plot_px = bars_px * len(panels) + gap_px * (len(panels) - 1)
    traces: list[Spec] = []
    annotations: list[Spec] = []
    layout: Spec = {}
    for at, panel in enumerate(panels):
        suffix = "" if at == 0 else str(at + 1)
        high = 1 - at * (bars_px + gap_px) / plot_px
        traces.append(_bar(names, panel.values, panel.color, suffix))
        annotations += _panel_words(panel, names, suffix, high)
        layout[f"xaxis{suffix}"] = axis(
            range=[0, (max(panel.values) or 1) * 1.28], anchor=f"y{suffix}", showgrid=False,
            showticklabels=False,
        )  # fmt: skip
        layout[f"yaxis{suffix}"] = names_axis(
            domain=[max(0.0, high - bars_px / plot_px), high],
            anchor=f"x{suffix}",
            autorange="reversed",
        )
    height = plot_px + 40
    return figure(
        traces, height=height, margin=(84, 14, 34, 6), bargap=0.3, annotations=annotations, **layout
    )


class Panel(NamedTuple):
    """One figure of each mode."""

    title: str
    values: Sequence[float]
    color: str
    words: Callable[[float], str]


def _durability_panels(modes: Sequence[Values]) -> list[Panel]:
    saturated = [mode["saturated"] for mode in modes]
    return [
        Panel("Accepted/s at saturation", [s["accepted_per_s"] for s in saturated], "$front", rate),
        Panel(
            "p99 at half of it, ms",
            [mode["half"]["latency_ms"]["p99"] for mode in modes],
            "$p90",
            number,
        ),
        Panel(
            "Redis CPU µs per reservation",
            [s["cpu_us"]["redis"] or 0 for s in saturated],
            "$redis",
            number,
        ),
    ]


def _panel_words(panel: Panel, names: Sequence[str], suffix: str, high: float) -> list[Spec]:
    return [
        caption(panel.title, y=high) | {"yshift": 3},
        *[
            label(
                panel.words(value),
                color="$ink",
                x=value,
                y=name,
                xref=f"x{suffix}",
                yref=f"y{suffix}",
                xanchor="left",
                xshift=6,
            )
            for name, value in zip(names, panel.values, strict=True)
        ],
    ]


def _bar(names: Sequence[str], values: Sequence[float], color: str, suffix: str) -> Spec:
    return {
        "type": "bar",
        "orientation": "h",
        "x": list(values),
        "y": list(names),
        "xaxis": f"x{suffix}",
        "yaxis": f"y{suffix}",
        "marker": {"color": color},
        "hovertemplate": "%{y}: %{x:,.4~g}<extra></extra>",
    }


def _durability_numbers(modes: Sequence[Values]) -> Table:
    return Table(
        (
            "mode",
            "accepted/s",
            "p50 ms at half",
            "p99 ms at half",
            "Redis µs",
            "front µs",
            "others",
        ),
        [
            (
                mode["mode"],
                rate(mode["saturated"]["accepted_per_s"]),
                number(mode["half"]["latency_ms"]["p50"]),
                number(mode["half"]["latency_ms"]["p99"]),
                number(mode["saturated"]["cpu_us"]["redis"]),
                number(mode["saturated"]["cpu_us"]["front"]),
                percent(mode["saturated"].get("others_share")),
            )
            for mode in modes
        ],
    )


def memory_section(run: Run) -> Section | Missing:
    memory = run.group("memory")
    idle = memory.get("front_idle", ())
    if not idle:
        return Missing("Memory", "Memory was not measured in this run.")
    return Section(
        key="memory",
        title="Memory",
        shows="Resident memory of a front while connections that have asked once do nothing.",
        finding=_memory_finding(memory, idle),
        mode=memory.get("durability", ""),
        charts=(
            Chart(
                lambda _: memory_chart(idle),
                Table(
                    ("idle connections", "front MiB"),
                    [(number(each["connections"]), number(each["rss_mib"])) for each in idle],
                    words=frozenset(),
                ),
                "Memory of a front over idle connections",
            ),
        ),
        half=True,
        notes=(
            f"A worker holds {number(memory['worker_fresh_mib'])} MiB when it starts and "
            f"{number(memory['worker_after_mib'])} MiB after {memory['reservations']:,} reservations; a "
            f"front {number(memory['front_fresh_mib'])} and {number(memory['front_after_mib'])} MiB.",
        ),
    )


def kib_per_connection(idle: Sequence[Values]) -> float | None:
    first, last = idle[0], idle[-1]
    more = last["connections"] - first["connections"]
    return (last["rss_mib"] - first["rss_mib"]) * 1024 / more if more else None


def _memory_finding(memory: Values, idle: Sequence[Values]) -> str:
    each = kib_per_connection(idle)
    connection = f", and an idle connection costs {number(each)} KiB of a front" if each else ""
    million = memory["redis_bytes_per_reservation"] * 1_000_000 / 2**20
    return (
        f"A reservation takes {number(memory['redis_bytes_per_reservation'])} bytes of Redis once it is "
        f"stored ({number(million)} MiB per million){connection}."
    )


def memory_chart(idle: Sequence[Values]) -> Spec:
    top_value = nice_top(max(each["rss_mib"] for each in idle) * 1.15)
    names = [f"{each['connections']:,}" for each in idle]
    traces: list[Spec] = [
        {
            "type": "bar", "x": names, "y": [each["rss_mib"] for each in idle],
            "marker": {"color": "$front"}, "hovertemplate": "%{x} idle: %{y:.1f} MiB<extra></extra>",
        }
    ]  # fmt: skip
    annotations = [
        caption("Front, MiB resident"),
        *[
            label(f"<b>{number(each['rss_mib'])}</b>", color="$front", x=name, y=each["rss_mib"],
                  yanchor="bottom", yshift=3)
            for name, each in zip(names, idle, strict=True)
        ],
        axis_name("idle connections"),
    ]  # fmt: skip
    return figure(
        traces,
        height=300,
        margin=(42, 14, 44, 50),
        bargap=0.55,
        annotations=annotations,
        xaxis=base_axis(type="category"),
        yaxis=axis(range=[0, top_value], nticks=5),
    )
