"""What operators and buyers send and get about promotions and coupons, as types. Does no I/O."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec

from api.language import pick
from api.moments import Moment, moment_text, text_or_none
from api.paging import PageQuery
from api.pricing.promotion import Kind, Stacking
from api.promotions.coupons import CODE, Fault
from api.promotions.terms import Amounts, Terms, as_stored
from engine.model import Money, public_id

PER_USER_MAX: Final = 1_000_000
USES_MAX: Final = 10**12
CODES_AT_ONCE_MAX: Final = 10_000
PREFIX_CHARACTERS_MAX: Final = 16

PerUserMax = Annotated[int, msgspec.Meta(ge=1, le=PER_USER_MAX)]
UsesMax = Annotated[int, msgspec.Meta(ge=1, le=USES_MAX)]
# As people type it: in either case.
CodeText = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{2,31}\Z")]


class PromotionBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A promotion but for its id. Without `valid_from` it is valid from now on."""

    terms: Terms
    by_code: bool = False
    public: bool = True
    valid_from: Moment | None = None
    valid_until: Moment | None = None
    per_user_max: PerUserMax | None = None
    uses_max: UsesMax | None = None


class PromotionChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a promotion is from now on. Other terms are a new revision; what was redeemed keeps its own."""

    terms: Terms
    public: bool
    valid_from: Moment
    valid_until: Moment | None
    per_user_max: PerUserMax | None
    uses_max: UsesMax | None


class CodesBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Coupons to make: `count` random codes, or the one `code` of the operator's own words.

    `uses_max` null: each may be used as often as the promotion's caps allow.
    """

    count: Annotated[int, msgspec.Meta(ge=1, le=CODES_AT_ONCE_MAX)] = 1
    prefix: Annotated[
        str, msgspec.Meta(pattern=rf"^(?:[A-Z0-9][A-Z0-9-]{{0,{PREFIX_CHARACTERS_MAX - 1}}})?\Z")
    ] = ""
    code: Annotated[str, msgspec.Meta(pattern=rf"^(?:{CODE.pattern})\Z")] | None = None
    uses_max: UsesMax | None = 1

    def __post_init__(self) -> None:
        if self.code is not None and (self.count > 1 or self.prefix):
            raise ValueError("a code of one's own is one, without a prefix")


class ClaimBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A coupon for one's wallet."""

    code: CodeText


class PromotionsQuery(PageQuery, frozen=True, forbid_unknown_fields=True):
    """A page of promotions."""

    active: bool | None = None


class CouponQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a coupon is asked for."""

    currency: Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z")] | None = None


class PromotionShown(msgspec.Struct, frozen=True):
    """A promotion as operators see it. `used` counts what is redeemed and not given back; where there
    is no cap it stops counting at 100,000."""

    promotion_id: str
    revision: int
    terms: Terms
    by_code: bool
    public: bool
    active: bool
    valid_from: str
    valid_until: str | None
    per_user_max: int | None
    uses_max: int | None
    used: int
    created_at: str


class PromotionsPage(msgspec.Struct, frozen=True, omit_defaults=True):
    """By id; `next` where there is more."""

    promotions: list[PromotionShown]
    next: str | None = None


class RevisionShown(msgspec.Struct, frozen=True):
    """What was promised from a moment on, and who promised it."""

    revision: int
    terms: Terms
    actor: str
    at: str


class Revisions(msgspec.Struct, frozen=True):
    """Newest first."""

    revisions: list[RevisionShown]


class RedemptionShown(msgspec.Struct, frozen=True):
    """What an order, or a checkout that became none, had of a promotion."""

    order_id: str
    user_id: str
    revision: int
    code: str | None
    amount: Money
    state: Literal["taken", "given_back", "dropped", "honoured"]
    taken_at: str


class RedemptionsPage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Newest first; `next` where there is more."""

    redemptions: list[RedemptionShown]
    next: str | None = None


class CodesMade(msgspec.Struct, frozen=True):
    """The coupons that were made."""

    codes: list[str]


class CouponShown(msgspec.Struct, frozen=True):
    """A coupon as operators see it."""

    code: str
    uses_max: int | None
    used: int
    owner_id: str | None
    withdrawn: bool
    created_at: str


class CouponsPage(msgspec.Struct, frozen=True, omit_defaults=True):
    """By code; `next` where there is more."""

    coupons: list[CouponShown]
    next: str | None = None


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A promotion as buyers see it, in their language. `code` is one that everybody may use."""

    promotion_id: str
    kind: Kind
    name: str
    currencies: dict[str, Amounts]
    basis_points: int
    repeated: bool
    skus: tuple[str, ...]
    categories: tuple[str, ...]
    stacking: Stacking
    new_buyers_only: bool
    by_code: bool
    code: str | None
    valid_from: str
    valid_until: str | None


class Offers(msgspec.Struct, frozen=True):
    """In the order in which they apply."""

    promotions: list[Offer]


class CouponOffer(msgspec.Struct, frozen=True):
    """A coupon and what it is for. `refused` says why the caller cannot use it now, if so.

    Whether a cart has what it is for, the cart says.
    """

    code: str
    usable: bool
    refused: Fault | None
    claimed: bool
    promotion: Offer


class Wallet(msgspec.Struct, frozen=True):
    """The caller's coupons, the last claimed first."""

    coupons: list[CouponOffer]


def redemption_shown(row: Mapping[str, Any]) -> RedemptionShown:
    return RedemptionShown(
        order_id=public_id(row["sale_id"], row["reservation_id"]),
        user_id=row["user_id"],
        revision=row["revision"],
        code=row["code"],
        amount=Money(row["amount_minor"], row["currency"]),
        state=row["state"],
        taken_at=moment_text(row["taken_at"]),
    )


def promotion_shown(row: Mapping[str, Any]) -> PromotionShown:
    """Of a row of offering.py."""
    return PromotionShown(
        promotion_id=row["promotion_id"],
        revision=row["revision"],
        terms=as_stored(row["terms"]),
        by_code=row["by_code"],
        public=row["public"],
        active=row["active"],
        valid_from=moment_text(row["valid_from"]),
        valid_until=text_or_none(row["valid_until"]),
        per_user_max=row["per_user_max"],
        uses_max=row["uses_max"],
        used=row["used"],
        created_at=moment_text(row["created_at"]),
    )


def offer_of(row: Mapping[str, Any], language: str, code: str | None) -> Offer:
    """Of a row with the promotion's terms."""
    terms = as_stored(row["terms"])
    return Offer(
        promotion_id=row["promotion_id"],
        kind=terms.kind,
        name=pick({str(tag): text for tag, text in terms.name.items()}, language),
        currencies={str(currency): amounts for currency, amounts in terms.currencies.items()},
        basis_points=terms.basis_points,
        repeated=terms.repeated,
        skus=terms.skus,
        categories=terms.categories,
        stacking=terms.stacking,
        new_buyers_only=terms.new_buyers_only,
        by_code=row["by_code"],
        code=code,
        valid_from=moment_text(row["valid_from"]),
        valid_until=text_or_none(row["valid_until"]),
    )
