"""What all charts share: layout, axes, labels at the ends of lines. Colours are names of the page's.

A name is `$ink`, or `$ink@0.2` for a fifth of its opacity.
"""

import math
from collections.abc import Sequence
from typing import Any, Final

from benchmarks.report.section import Spec

FONT: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"
CLEAR: Final = "rgba(0,0,0,0)"
LABEL_GAP_PX: Final = 16  # Below it two labels touch.
DECADES: Final = range(-3, 7)
FINE_SPAN_MAX: Final = 150  # Up to two decades there is room for 1, 2, 5.


def figure(
    traces: Sequence[Spec], *, height: int, margin: tuple[int, int, int, int], **layout: Any
) -> Spec:
    """A plotly figure. Margins: left, right, top, bottom."""
    left, right, top, bottom = margin
    base = {
        "height": height,
        "margin": {"l": left, "r": right, "t": top, "b": bottom},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "showlegend": False,
        "dragmode": False,
        "hovermode": "closest",
        "font": {"family": FONT, "size": 12.5, "color": "$ink-2"},
        "hoverlabel": {
            "bgcolor": "$card",
            "bordercolor": "$rule",
            "font": {"family": FONT, "size": 12.5, "color": "$ink"},
        },
    }
    return {"data": list(traces), "layout": base | layout}


def axis(**more: Any) -> Spec:
    """An axis without ornament."""
    base = {
        "fixedrange": True,
        "gridcolor": "$grid",
        "zeroline": False,
        "showline": False,
        "ticks": "",
        "tickfont": {"size": 12, "color": "$ink-3"},
        "automargin": False,
    }
    return base | more


def base_axis(**more: Any) -> Spec:
    """The axis things stand on."""
    return axis(showgrid=False, showline=True, linecolor="$rule", linewidth=1) | more


def names_axis(**more: Any) -> Spec:
    """An upright axis of names beside bars, a little apart from them."""
    base = {"ticks": "outside", "ticklen": 7, "tickcolor": CLEAR, "showgrid": False}
    return axis(**base | {"tickfont": {"size": 12.5, "color": "$ink"}} | more)


def log_axis(low: float, high: float, **more: Any) -> Spec:
    """A logarithmic axis that holds both values, ticked at the decades, or closer if it has few."""
    steps = (1, 2, 5) if high / low < FINE_SPAN_MAX else (1,)
    ticks = [step * 10.0**power for power in DECADES for step in steps]
    return axis(
        type="log",
        range=[math.log10(low), math.log10(high)],
        tickvals=ticks,
        ticktext=[f"{tick:,g}" for tick in ticks],
        **more,
    )


def label(text: str, *, color: str = "$ink-2", **more: Any) -> Spec:
    """Words on a chart."""
    base = {"text": text, "showarrow": False, "font": {"size": 12.5, "color": color}}
    return base | more


def caption(text: str, *, y: float = 1.0, x: float = 0.0) -> Spec:
    """What an axis measures, upright, above its upper end."""
    return label(
        text,
        xref="paper",
        yref="paper",
        x=x,
        y=y,
        xanchor="left",
        yanchor="bottom",
        yshift=8,
        align="left",
    )


def axis_name(text: str, *, yshift: float = -26) -> Spec:
    """What the horizontal axis counts, below its right end."""
    return label(
        text, xref="paper", yref="paper", x=1, y=0, yshift=yshift, xanchor="right", yanchor="top"
    )


def line(x0: Any, x1: Any, y0: Any, y1: Any, *, color: str = "$ink-3", **more: Any) -> Spec:
    base = {"type": "line", "x0": x0, "x1": x1, "y0": y0, "y1": y1, "layer": "below"}
    return base | {"line": {"color": color, "width": 1, "dash": "dot"}} | more


def spread(positions: Sequence[float], gap: float = LABEL_GAP_PX) -> list[float]:
    """The positions, moved as little as keeps them `gap` apart. Order is kept."""
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    clusters: list[list[float]] = []  # [sum of wanted starts, members]
    for rank, index in enumerate(order):
        clusters.append([positions[index] - rank * gap, 1])
        while len(clusters) > 1 and _mean(clusters[-2]) > _mean(clusters[-1]):
            total, members = clusters.pop()
            clusters[-1][0] += total
            clusters[-1][1] += members
    starts = [_mean(cluster) for cluster in clusters for _ in range(int(cluster[1]))]
    moved = [0.0] * len(positions)
    for rank, index in enumerate(order):
        moved[index] = starts[rank] + rank * gap
    return moved


def _mean(cluster: list[float]) -> float:
    return cluster[0] / cluster[1]


def end_labels(
    names: Sequence[tuple[str, str]],
    values: Sequence[float],
    *,
    span: tuple[float, float],
    pixels: float,
    log: bool = False,
    **place: Any,
) -> list[Spec]:
    """Labels (text, colour) beside the last points of lines, moved apart where they would touch.

    `span` is the axis's range in values, `pixels` its length.
    """
    scale = math.log10 if log else float
    low, high = scale(span[0]), scale(span[1])
    heights = [(scale(max(value, 1e-9)) - low) / (high - low) * pixels for value in values]
    moved = spread(heights)
    return [
        label(
            text,
            color=color,
            y=scale(max(value, 1e-9)),
            yshift=after - before,
            xanchor="left",
            yanchor="middle",
            **place,
        )
        for (text, color), value, before, after in zip(names, values, heights, moved, strict=True)
    ]


def nice_top(value: float) -> float:
    """A round number a little above."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value * 1.05))
    return next(
        step * power
        for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 15)
        if step * power >= value * 1.05
    )
