"""How a room's figures are written: rounded promises, words for chances, times. Decides nothing."""

from datetime import UTC, datetime
from typing import Final

SECONDS_MAX: Final = 1e17


def promised(eta: float) -> int | None:
    return None if eta < 0 else int(eta + 0.5)


def chance_word(chance: float) -> str:
    if chance >= 0.75:
        return "good"
    if chance >= 0.35:
        return "fair"
    return "slim" if chance >= 0.02 else "none"


def tenths(seconds: float) -> float | int | None:
    if not 0 <= seconds < SECONDS_MAX:
        return None
    return short(int(seconds * 10 + 0.5) / 10)


def short(value: float) -> float | int:
    return int(value) if value.is_integer() else value


def time_text(ms: int) -> str:
    seconds, rest = divmod(ms, 1000)
    text = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()
    return f"{text}.{rest:03d}Z" if rest else f"{text}Z"
