"""What one promotion takes off an order. Does no I/O; which promotions there are, others know."""

from enum import StrEnum
from typing import Final

import msgspec

from api.pricing.money import percent_of

EVERYTHING_BASIS_POINTS: Final = 10_000  # 100 %


class Kind(StrEnum):
    """What it does."""

    PERCENT = "percent"  # Some percent of what is left to pay for its lines.
    AMOUNT = "amount"  # An amount.
    THRESHOLD = (
        "threshold"  # From an amount on (once, or for each time it is full) an amount: 满减.
    )
    FREE_SHIPPING = "free_shipping"


class Stacking(StrEnum):
    """What may apply beside it."""

    STACKABLE = "stackable"  # Others that are stackable.
    EXCLUSIVE = "exclusive"  # Nothing.


class Reason(StrEnum):
    """Why a promotion takes nothing off."""

    OTHER_CURRENCY = "other_currency"
    OTHER_ITEMS = "other_items"  # It is for other SKUs or categories.
    BELOW_MINIMUM = "below_minimum"
    NOT_COMBINABLE = (
        "not_combinable"  # Another one that it cannot stand beside gives as much or more.
    )
    GIVES_NOTHING = "gives_nothing"  # Nothing is left that it could take off.


class Line(msgspec.Struct, frozen=True):
    """So many units of one SKU in a cart, at the list price of one. `category_path` begins at the root."""

    sku: str
    product_id: str
    category_path: tuple[str, ...]
    quantity: int
    unit_price_minor: int

    @property
    def subtotal_minor(self) -> int:
        return self.quantity * self.unit_price_minor


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """A promotion in one currency, as it stands in one revision. With a `code` it is a coupon.

    Without `skus` and `categories` it is for everything; else for these SKUs and for what is in
    these categories or below them.
    """

    promotion_id: str
    revision: int = 1
    kind: Kind
    name: dict[str, str]
    currency: str
    code: str | None = None
    basis_points: int = 0  # percent: 1250 is 12.5 %
    off_minor: int = 0  # amount, threshold
    from_minor: int = 0  # threshold
    repeated: bool = False  # threshold: each time that it is full
    discount_max_minor: int | None = None
    subtotal_min_minor: int = 0  # of its lines, at list prices
    skus: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    stacking: Stacking = Stacking.STACKABLE
    priority: int = 0  # Lower ones come first.
    group: str | None = None  # At most one of a group applies, the first by order.

    def is_for(self, line: Line) -> bool:
        if not (self.skus or self.categories):
            return True
        return line.sku in self.skus or not set(self.categories).isdisjoint(line.category_path)


def goods_off(promotion: Promotion, left_minor: int) -> int:
    """What it takes off lines for which that much is left to pay; never more than that."""
    match promotion.kind:
        case Kind.PERCENT:
            off = percent_of(left_minor, promotion.basis_points)
        case Kind.AMOUNT:
            off = promotion.off_minor
        case Kind.THRESHOLD:
            off = promotion.off_minor * _times_full(promotion, left_minor)
        case Kind.FREE_SHIPPING:
            return 0
    return at_most(off, left_minor, promotion.discount_max_minor)


def at_most(off: int, left_minor: int, discount_max_minor: int | None) -> int:
    off = min(off, left_minor)
    return off if discount_max_minor is None else min(off, discount_max_minor)


def _times_full(promotion: Promotion, left_minor: int) -> int:
    times = left_minor // promotion.from_minor
    return times if promotion.repeated else min(times, 1)
