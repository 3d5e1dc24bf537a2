"""Numbers as a reader wants them: three digits that matter, thousands apart."""

import math
from collections.abc import Sequence

NO_VALUE = "–"


def number(value: float | None) -> str:
    """12,345 · 1,230 · 45.6 · 1.23 · 0.0123"""
    if value is None or not math.isfinite(value):
        return NO_VALUE
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 0.1:
        return f"{value:.2f}"
    return f"{value:.2g}"


def rate(value: float | None) -> str:
    """A rate to three digits: 12,345 is 12,300."""
    if not value:
        return NO_VALUE if value is None else "0"
    digits = max(0, int(math.log10(abs(value))) - 2)
    return number(round(value, -digits) if digits else value)


def short(value: float) -> str:
    """For a tick: 12.3k."""
    if value >= 1_000_000:
        return f"{value / 1_000_000:.3g}M"
    return f"{value / 1000:.3g}k" if value >= 1000 else f"{value:.3g}"


def percent(share: float | None) -> str:
    return NO_VALUE if share is None else f"{share * 100:.0f} %"


def listed(words: Sequence[str]) -> str:
    """a, b and c"""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def plural(count: int, one: str, many: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def first_upper(text: str) -> str:
    """As a sentence begins; the rest keeps its capitals."""
    return text[:1].upper() + text[1:]
