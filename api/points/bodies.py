"""What operators and buyers send and get about points, as types. Does no I/O."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec

from api.moments import moment_text, text_or_none
from engine.model import public_id

POINTS_MAX: Final = 1_000_000_000  # In one move by an operator: more is a typing error.
RATE_MAX: Final = 1000  # Points earned per unit of money.
POINTS_PER_MAJOR_MAX: Final = 1_000_000
VALID_DAYS_MAX: Final = 3660
REASON_CHARACTERS_MAX: Final = 200

Points = Annotated[int, msgspec.Meta(ge=1, le=POINTS_MAX)]
Reason = Annotated[str, msgspec.Meta(pattern=rf"^[^\x00-\x1f\x7f]{{1,{REASON_CHARACTERS_MAX}}}\Z")]


class RuleBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What paying in a currency earns, and what points are worth in it.

    Paying 1 CNY earns `earned_per_thousand` / 1000 points. `points_per_major` of them are worth
    1 CNY, for at most `share_max_percent` of the goods. They are good for `valid_days`, or for ever.
    """

    earned_per_thousand: Annotated[int, msgspec.Meta(ge=0, le=RATE_MAX * 1000)]
    points_per_major: Annotated[int, msgspec.Meta(ge=1, le=POINTS_PER_MAJOR_MAX)] = 100
    share_max_percent: Annotated[int, msgspec.Meta(ge=0, le=100)] = 50
    valid_days: Annotated[int, msgspec.Meta(ge=1, le=VALID_DAYS_MAX)] | None = 365


class Rule(RuleBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rule and its currency."""

    currency: str


class Rules(msgspec.Struct, frozen=True):
    """By currency; where there is none, nothing is earned or spent."""

    rules: list[Rule]


class GrantBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Points to give, and why. Without `valid_days` they are good for ever."""

    points: Points
    reason: Reason
    valid_days: Annotated[int, msgspec.Meta(ge=1, le=VALID_DAYS_MAX)] | None = None


class DeductionBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Points to take, and why."""

    points: Points
    reason: Reason


class Expiring(msgspec.Struct, frozen=True):
    """Points that are gone from a moment on."""

    points: int
    expires_at: str


class Balance(msgspec.Struct, frozen=True):
    """What may be spent. `owed`: spent points that were taken back; the next ones pay for them."""

    balance: int
    owed: int
    next_to_expire: Expiring | None


class Line(msgspec.Struct, frozen=True):
    """One change of a balance. `order_id` is why, if an order is; `reason` an operator's."""

    line_id: int
    kind: str
    points: int
    order_id: str | None
    reason: str | None
    expires_at: str | None
    at: str


class LinesPage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Newest first; `next` where there is more."""

    lines: list[Line]
    next: str | None = None


def rule_of(row: Mapping[str, Any]) -> Rule:
    return Rule(
        currency=row["currency"],
        earned_per_thousand=int(Decimal(row["earned_per_major"]) * 1000),
        points_per_major=row["points_per_major"],
        share_max_percent=row["share_max_percent"],
        valid_days=row["valid_days"],
    )


def line_of(row: Mapping[str, Any]) -> Line:
    by_order = row["reservation_id"] is not None
    return Line(
        line_id=row["line_id"],
        kind=row["kind"],
        points=row["points"],
        order_id=public_id(row["sale_id"], row["reservation_id"]) if by_order else None,
        reason=row["reason"],
        expires_at=text_or_none(row["expires_at"]),
        at=moment_text(row["at"]),
    )
