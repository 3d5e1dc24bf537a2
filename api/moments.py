"""Moments as Postgres and people have them: the clock's as a datetime, a datetime as text."""

from datetime import UTC, datetime
from typing import Annotated, TypeAlias

import msgspec

from api.answers import time_text
from engine.clock import Clock
from engine.errors import Invalid

Moment: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]  # As clients write it.


def now_of(clock: Clock) -> datetime:
    return datetime.fromtimestamp(clock.now_ms() / 1000, UTC)


def moment_text(moment: datetime) -> str:
    """As `api.answers.time_text` says it."""
    return time_text(int(moment.timestamp() * 1000))


def text_or_none(moment: datetime | None) -> str | None:
    return None if moment is None else moment_text(moment)


def in_utc(field: str, moment: datetime) -> datetime:
    """Raises Invalid for a moment that UTC has no date for."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise Invalid(field, "is beyond the calendar in UTC") from None


def check_moments(*moments: datetime | None) -> None:
    """For types: raises ValueError for what is beyond the calendar once it is told in UTC."""
    for moment in moments:
        try:
            _ = moment and moment.astimezone(UTC)
        except OverflowError:
            raise ValueError("a time is beyond the calendar in UTC") from None
