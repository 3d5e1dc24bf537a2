"""Where a page of orders ends, and how long it may be."""

from typing import Annotated, Final

import msgspec

from api.moments import Moment, check_moments
from api.paging import CURSOR_LENGTH_MAX, PAGE_DEFAULT, PAGE_MAX
from engine.model import RESERVATION_ID

Limit = Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)]
After = Annotated[str, msgspec.Meta(max_length=CURSOR_LENGTH_MAX)]
LIMIT: Final = PAGE_DEFAULT


class PageEnd(msgspec.Struct, frozen=True, array_like=True):
    """The last order of a page."""

    reserved_at: Moment
    reservation_id: Annotated[str, msgspec.Meta(pattern=rf"^(?:{RESERVATION_ID.pattern})\Z")]

    def __post_init__(self) -> None:
        check_moments(self.reserved_at)


page_end_decoder: Final = msgspec.json.Decoder(PageEnd)
