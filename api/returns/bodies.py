"""What a return looks like, and what may be said of it."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

import msgspec

from api.answers import time_text
from api.moments import Moment, check_moments
from api.orders.pages import LIMIT, After, Limit
from engine.model import public_id
from engine.sales.sale import epoch_ms

TEXT_MAX = 2000


class Reason(StrEnum):
    """Why it comes back; `returns.reason` holds the same list."""

    CHANGED_MIND = "changed_mind"
    WRONG_ITEM = "wrong_item"
    DAMAGED = "damaged"
    NOT_AS_DESCRIBED = "not_as_described"
    TOO_LATE = "too_late"
    OTHER = "other"


class ReturnState(StrEnum):
    """requested → approved | rejected → received → refunded."""

    REQUESTED = "requested"
    APPROVED = "approved"
    REJECTED = "rejected"
    RECEIVED = "received"
    REFUNDED = "refunded"


Text = Annotated[
    str, msgspec.Meta(max_length=TEXT_MAX, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*\Z")
]  # Lines and tabs are fine.
Said = Annotated[
    str,
    msgspec.Meta(min_length=1, max_length=TEXT_MAX, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*\Z"),
]


class ReturnWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body that asks for a return."""

    reason: Reason
    text: Text = ""


class Rejection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body that rejects one: what the buyer is told."""

    reason: Said


class Approval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body that approves one: where to send it, for instance."""

    text: Text = ""


class Return(msgspec.Struct, frozen=True):
    """A return, as Postgres keeps it."""

    return_id: str
    sale_id: str
    reservation_id: str
    user_id: str
    reason: str
    text: str
    state: str
    decision: str | None
    decided_by: str | None
    requested_at: datetime
    decided_at: datetime | None
    received_at: datetime | None
    refunded_at: datetime | None


class ReturnBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """A return, as its buyer sees it. `decision`: what the operator said to it."""

    return_id: str
    order_id: str
    reason: str
    state: str
    requested_at: str
    text: str = ""
    decision: str | None = None
    decided_at: str | None = None
    received_at: str | None = None
    refunded_at: str | None = None


class OperatorReturnBody(ReturnBody, frozen=True, omit_defaults=True, kw_only=True):
    """A return, as operators see it."""

    user_id: str
    decided_by: str | None = None


class ReturnsBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """A page of returns."""

    returns: list[OperatorReturnBody]
    next: str | None = None


class ReturnsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which returns: those in one state, or all."""

    state: ReturnState | None = None
    limit: Limit = LIMIT
    after: After | None = None


class PageEnd(msgspec.Struct, frozen=True, array_like=True):
    """The last return of a page."""

    requested_at: Moment
    return_id: Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,64}\Z")]

    def __post_init__(self) -> None:
        check_moments(self.requested_at)


def return_body(found: Return) -> ReturnBody:
    return ReturnBody(**_shown(found))


def operator_return_body(found: Return) -> OperatorReturnBody:
    return OperatorReturnBody(**_shown(found), user_id=found.user_id, decided_by=found.decided_by)


def _shown(found: Return) -> dict[str, str]:
    """Without what is not there yet."""
    shown = {
        "return_id": found.return_id,
        "order_id": public_id(found.sale_id, found.reservation_id),
        "reason": found.reason,
        "state": found.state,
        "requested_at": _time(found.requested_at),
        "text": found.text,
        "decision": found.decision,
        "decided_at": _time(found.decided_at),
        "received_at": _time(found.received_at),
        "refunded_at": _time(found.refunded_at),
    }
    return {name: value for name, value in shown.items() if value is not None}


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else time_text(epoch_ms(moment))
