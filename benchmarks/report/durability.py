"""The section on durability modes: what each costs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from benchmarks.report.drawing import (
    axis,
    caption,
    figure,
    label,
    names_axis,
)
from benchmarks.report.runs import Run
from benchmarks.report.section import Chart, Missing, Section, Spec, Table
from benchmarks.report.sweep import busy_note
from benchmarks.report.words import number, percent, rate

Values = Mapping[str, Any]
STRICT_SHARE_MIN: Final = 0.8  # of balanced; the target
NO_COST_SHARE: Final = 0.97


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
