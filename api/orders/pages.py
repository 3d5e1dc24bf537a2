"""Where a page of orders ends, and the moments that lists of orders are asked about."""

from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec

from api.paging import CURSOR_LENGTH_MAX, PAGE_DEFAULT, PAGE_MAX
from engine.model import RESERVATION_ID

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Limit = Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)]
After = Annotated[str, msgspec.Meta(max_length=CURSOR_LENGTH_MAX)]
LIMIT: Final = PAGE_DEFAULT


class PageEnd(msgspec.Struct, frozen=True, array_like=True):
    """The last order of a page."""

    reserved_at: Moment
    reservation_id: Annotated[str, msgspec.Meta(pattern=rf"^(?:{RESERVATION_ID.pattern})\Z")]

    def __post_init__(self) -> None:
        check_moments(self.reserved_at)


def check_moments(*moments: datetime | None) -> None:
    """Raises ValueError for what is beyond the calendar once it is told in UTC."""
    for moment in moments:
        try:
            _ = moment and moment.astimezone(UTC)
        except OverflowError:
            raise ValueError("a time is beyond the calendar in UTC") from None


page_end_decoder: Final = msgspec.json.Decoder(PageEnd)
