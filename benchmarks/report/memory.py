"""The section on memory: of a reservation, and of idle connections."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.report.drawing import (
    axis,
    axis_name,
    base_axis,
    caption,
    figure,
    label,
    nice_top,
)
from benchmarks.report.runs import Run
from benchmarks.report.section import Chart, Missing, Section, Spec, Table
from benchmarks.report.words import number

Values = Mapping[str, Any]


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
