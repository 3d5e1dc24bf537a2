"""What a page is made of: sections with a finding, tables, charts. Pure values."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Spec = dict[str, Any]  # A plotly figure; colours are names like "$front", filled in by the page.


@dataclass(frozen=True)
class Table:
    """Columns and rows of text. Columns from the second on are figures, if not said otherwise."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: frozenset[int] = frozenset({0})  # columns that hold words


@dataclass(frozen=True)
class Chart:
    """A chart that can be drawn wide or narrow, and its numbers for those who would rather read."""

    build: Callable[[bool], Spec]  # narrow -> figure
    numbers: Table
    label: str  # what it shows, for those who cannot see it


@dataclass(frozen=True)
class Section:
    """One part of the page."""

    key: str
    title: str
    shows: str
    finding: str
    mode: str = ""
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    folded: Sequence[tuple[str, Table]] = ()  # (what opens it, a long table)
    half: bool = False  # Two of them stand side by side where there is room.
    notes: Sequence[str] = field(default=())


@dataclass(frozen=True)
class Missing:
    """A group that has no section, and why."""

    title: str
    why: str


@dataclass(frozen=True)
class Tile:
    """One key figure."""

    label: str
    value: str
    unit: str
    note: str = ""
    good: bool | None = None
