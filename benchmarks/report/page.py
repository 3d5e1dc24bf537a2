"""Writes the page: one HTML file with everything in it, read from the top down. Loads nothing."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Final

from benchmarks.report.compare import compare_section
from benchmarks.report.context import invariants_section, machine_section
from benchmarks.report.durability import durability_section
from benchmarks.report.limits import costs_section, fault_section, limit_section
from benchmarks.report.memory import memory_section
from benchmarks.report.overload import overload_section
from benchmarks.report.parts import kernels_section, redis_section
from benchmarks.report.room import room_section
from benchmarks.report.runs import ReportFailed, Run
from benchmarks.report.scaling import scaling_section
from benchmarks.report.section import Chart, Missing, Section, Table, Tile
from benchmarks.report.side_by_side import side_by_side_section
from benchmarks.report.summary import about, remarks, tiles, verdict
from benchmarks.report.sweep import cpu_section, sweep_section
from benchmarks.report.told import told_section

HERE: Final = Path(__file__).parent
INSTALL: Final = (
    "The report needs plotly, which is not installed here: pip install 'doorbuster[bench]'"
)
# A word in a table's cell that is good, bad or neither: [down]…[/]
_MARK: Final = re.compile(r"\[(up|down|same|plain)\](.*?)\[/\]")
# A unit stays with its number.
_UNIT: Final = re.compile(r"([\d≤≥=<]) (%|µs|ms|ns|bytes|KiB|MiB|GiB|[\d])")
_CODE: Final = re.compile(r"`([^`]+)`")


def write_report(run: Run, against: Run | None, out: Path) -> None:
    """Writes the page of `run` to `out`. Raises ReportFailed."""
    text = render(run, against, plotly_script())
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, "utf-8")
    except OSError as error:
        raise ReportFailed(f"{out} cannot be written: {error}") from error


def plotly_script() -> str:
    """Plotly's script, out of the installed package."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ReportFailed(INSTALL) from error
    return str(get_plotlyjs())


def sections_of(run: Run, against: Run | None) -> list[Section | Missing]:
    """Everything the page may show, in its order."""
    return [
        sweep_section(run),
        cpu_section(run),
        overload_section(run),
        limit_section(run),
        fault_section(run),
        room_section(run),
        costs_section(run),
        side_by_side_section(run),
        scaling_section(run),
        durability_section(run),
        redis_section(run),
        memory_section(run),
        kernels_section(run),
        told_section(
            run, "drain", "Draining into Postgres", "What one worker stores from a backlog."
        ),
        told_section(
            run, "shop", "The shop around the sale", "Search, a product's page, the cart, log-ins."
        ),
        told_section(
            run, "growth", "Growth", "Cost per reservation as buyers and SKUs become many."
        ),
        told_section(
            run, "whole", "A whole rush", "A crowd against everything at once, to its end."
        ),
        compare_section(run, against),
        invariants_section(run),
        machine_section(run),
    ]


def render(run: Run, against: Run | None, script: str) -> str:
    """The page as text. `script` is plotly's."""
    parts = sections_of(run, against)
    shown = pair_halves([part for part in parts if isinstance(part, Section)])
    missing = [part for part in parts if isinstance(part, Missing)]
    charts = {
        f"{section.key}-{number}": chart
        for section in shown
        for number, chart in enumerate(section.charts)
    }
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Doorbuster capacity, run {escape(run.name)}</title>
<style>
{(HERE / "page.css").read_text("utf-8")}</style>
</head>
<body>
<main>
<header>
<h1>Doorbuster capacity</h1>
<p class="verdict">{_prose(verdict(run))}</p>
<p class="about">{_prose(about(run))}</p>
{_remarks(remarks(run))}
{_tiles(tiles(run))}
{_contents(shown)}
</header>
<noscript><p class="about">The charts are drawn by a script inside this file; the numbers beside them are not.</p></noscript>
<div class="sections">
{"".join(_section(section) for section in shown)}</div>
{_missing(missing)}
<footer>Latencies count from the time a request was due. CPU is the kernel's accounting of each process, per
accepted reservation. Every figure names its durability mode. This file loads nothing from anywhere.</footer>
</main>
<script type="application/json" id="charts">{_chart_json(charts)}</script>
<script>{script}</script>
<script>{(HERE / "page.js").read_text("utf-8")}</script>
</body>
</html>
"""


def pair_halves(shown: Sequence[Section]) -> list[Section]:
    """A half section without another beside it takes the whole width."""
    paired: list[Section] = []
    for half, group in groupby(shown, key=lambda section: section.half):
        members = list(group)
        if half and len(members) % 2:
            members[-1] = replace(members[-1], half=False)
        paired += members
    return paired


def _chart_json(charts: dict[str, Chart]) -> str:
    specs = {
        key: {"wide": chart.build(False), "narrow": chart.build(True)}
        for key, chart in charts.items()
    }
    # So that no text can end the script element.
    return json.dumps(specs, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _remarks(said: Sequence[tuple[str, bool]]) -> str:
    if not said:
        return ""
    kinds = {True: ' class="bad"', False: ""}
    lines = (f"<li{kinds[bad]}>{_prose(text)}</li>" for text, bad in said)
    return f'<ul class="remarks">{"".join(lines)}</ul>'


def _tiles(shown: Sequence[Tile]) -> str:
    return f'<dl class="tiles">{"".join(map(_tile, shown))}</dl>' if shown else ""


def _tile(tile: Tile) -> str:
    judged = {True: " good", False: " bad", None: ""}[tile.good]
    unit = f'<span class="unit">{escape(tile.unit)}</span>' if tile.unit else ""
    note = f'<span class="note">{_prose(tile.note)}</span>' if tile.note else ""
    return (
        f'<div class="tile"><dt>{escape(tile.label)}</dt>'
        f'<dd><span class="value{judged}">{escape(tile.value)}{unit}</span>{note}</dd></div>'
    )


def _contents(shown: Sequence[Section]) -> str:
    links = "".join(f'<a href="#{section.key}">{escape(section.title)}</a>' for section in shown)
    return f"<nav>{links}</nav>"


def _section(section: Section) -> str:
    mode = f'<span class="mode">{escape(section.mode)}</span>' if section.mode else ""
    charts = "".join(
        _chart(f"{section.key}-{number}", chart) for number, chart in enumerate(section.charts)
    )
    tables = "".join(f'<div class="scroll">{_table(table)}</div>' for table in section.tables)
    folded = "".join(_folded(title, table) for title, table in section.folded)
    notes = "".join(f"<p>{_prose(note)}</p>" for note in section.notes)
    kind = ' class="half"' if section.half else ""
    return f"""<section id="{section.key}"{kind}>
<div class="head"><h2>{escape(section.title)}</h2>{mode}</div>
<p class="finding">{_prose(section.finding)}</p>
<p class="shows">{_prose(section.shows)}</p>
{charts}{tables}{folded}<div class="notes">{notes}</div>
</section>
"""


def _chart(key: str, chart: Chart) -> str:
    place = f'<div class="chart" data-chart="{key}" role="img" aria-label="{escape(chart.label)}"></div>'
    return place + _folded("The numbers", chart.numbers)


def _folded(title: str, table: Table) -> str:
    return (
        f"<details><summary>{escape(title)}</summary>"
        f'<div class="scroll">{_table(table)}</div></details>'
    )


def _table(table: Table) -> str:
    classes = [' class="words"' if at in table.words else "" for at in range(len(table.columns))]
    head = "".join(
        f"<th{kind}>{escape(name)}</th>" for kind, name in zip(classes, table.columns, strict=True)
    )
    rows = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{_cell(cell)}</td>" for kind, cell in zip(classes, row, strict=True))
        + "</tr>"
        for row in table.rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _cell(text: str) -> str:
    return _MARK.sub(r'<span class="\1">\2</span>', escape(text))


def _prose(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", _UNIT.sub("\\1\N{NO-BREAK SPACE}\\2", escape(text)))


def _missing(missing: Sequence[Missing]) -> str:
    if not missing:
        return ""
    lines = "".join(f"<p><b>{escape(each.title)}.</b> {_prose(each.why)}</p>" for each in missing)
    return f'<div class="missing">{lines}</div>'
