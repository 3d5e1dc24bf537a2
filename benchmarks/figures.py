"""One number of a benchmark with its unit, its target and whether it was met; and the table of all.

Knows nothing of how a number is measured.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One number. `ok` is None where nothing was promised; `ratio` says what it is held against."""

    name: str
    value: float
    unit: str
    target: str = ""
    ok: bool | None = None
    ratio: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def at_most(name: str, value: float, unit: str, limit: float, ratio: str = "") -> Figure:
    return Figure(name, value, unit, f"≤ {limit:,g}", value <= limit, ratio)


def at_least(name: str, value: float, unit: str, limit: float, ratio: str = "") -> Figure:
    return Figure(name, value, unit, f"≥ {limit:,g}", value >= limit, ratio)


def exactly(name: str, value: float, unit: str, wanted: float) -> Figure:
    return Figure(name, value, unit, f"= {wanted:,g}", value == wanted)


def figures_of(result: dict[str, Any]) -> list[Figure]:
    """The figures that a group's result brings along; fields we do not know are left out."""
    fields = Figure.__dataclass_fields__
    return [
        Figure(**{key: value for key, value in each.items() if key in fields})
        for each in result.get("figures", ())
    ]


def number_text(value: float) -> str:
    """Three digits that matter, and thousands apart."""
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:,.2f}"


def as_table(rows: Sequence[tuple[str, Figure | str]], title: str) -> Table:
    """One line per (group, figure), and per (group, sentence) where there is no figure."""
    table = Table("", "", "value", "unit", "target", "", "ratio", title=title, title_justify="left")
    table.columns[2].justify = "right"
    for column in (0, 2, 4, 5):
        table.columns[column].no_wrap = True
    for number, (group, row) in enumerate(rows):
        first = not number or rows[number - 1][0] != group
        if number and first:
            table.add_section()
        shown = group if first else ""
        if isinstance(row, str):
            table.add_row(shown, f"[yellow]{escape(row)}[/]")
        else:
            table.add_row(shown, *_cells(row))
    return table


def _cells(figure: Figure) -> tuple[str, ...]:
    verdict = {None: "", True: "[green]ok[/]", False: "[red]missed[/]"}[figure.ok]
    texts = (figure.name, number_text(figure.value), figure.unit, figure.target)
    return (*map(escape, texts), verdict, escape(figure.ratio))
