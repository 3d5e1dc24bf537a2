"""One number of a benchmark with its unit, its target and whether it was met; and the table of all.

Knows nothing of how a number is measured.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

WIDTH: Final = 100
NAME_WIDTH: Final = 30


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


def as_table(rows: Sequence[tuple[str, Figure]], title: str) -> Table:
    """Groups one below the other, a line per figure. Fits a terminal of 100 columns."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("", min_width=NAME_WIDTH)
    table.add_column("value", justify="right", no_wrap=True)
    for name in ("unit", "target", ""):
        table.add_column(name, no_wrap=True)
    table.add_column("in numbers")
    for number, (group, figure) in enumerate(rows):
        if not number or rows[number - 1][0] != group:
            if number:
                table.add_row()
            table.add_row(f"[bold]{escape(group)}[/]")
        table.add_row(*_cells(figure))
    return table


def _cells(figure: Figure) -> tuple[str, ...]:
    verdict = {None: "", True: "[green]ok[/]", False: "[red]missed[/]"}[figure.ok]
    value, *texts = map(escape, (number_text(figure.value), figure.unit, figure.target))
    return (f"  {escape(figure.name)}", value, *texts, verdict, escape(figure.ratio))


def make_console() -> Console:
    """Into a file or a pipe lines are as long as the table wants; a terminal has its own width."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, WIDTH))
