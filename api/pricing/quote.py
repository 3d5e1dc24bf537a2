"""What a cart costs: one pure function from lines, promotions, points and shipping to a quote.

Does no I/O. The order is fixed: promotions without a code, then coupons, each by priority and id;
then points; then what makes shipping free. Every step counts from what the one before left to pay.
An exclusive promotion applies alone or not at all: whichever of it and the stackable ones together
takes more off is chosen, the stackable ones if it is the same. Prices include taxes.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from api.pricing.money import allocate, minor_per_major, percent_of
from api.pricing.promotion import (
    Kind,
    Line,
    Promotion,
    Reason,
    Stacking,
    at_most,
    goods_off,
)

TOTAL_MINOR_MIN: Final = 1  # A free order would have no payment that ends its reservation.

__all__ = ["Line", "PointsRule", "Promotion", "Quote", "quote"]


class PointsRule(msgspec.Struct, frozen=True):
    """What points are worth in a currency, and how much of the goods they may pay for."""

    points_per_major: int = 100  # 100 points are 1 CNY, not 1 fen.
    share_max_percent: int = 50


class QuotedLine(msgspec.Struct, frozen=True):
    """A line with its share of the discounts: total = subtotal - discount - points."""

    sku: str
    product_id: str
    quantity: int
    unit_price_minor: int
    subtotal_minor: int
    discount_minor: int
    points_minor: int
    total_minor: int


class Discount(msgspec.Struct, frozen=True):
    """What one promotion takes off, shipping included."""

    promotion_id: str
    revision: int
    code: str | None
    name: dict[str, str]
    amount_minor: int


class RefusedCode(msgspec.Struct, frozen=True):
    """A coupon that takes nothing off, and why: a Reason here, or the store's word before."""

    code: str
    reason: str


class Quote(msgspec.Struct, frozen=True):
    """total = subtotal + shipping - discount - points_minor, and not below 1 unless all is free by list.

    `discount_minor` is the sum of `discounts`; `shipping_discount_minor` of it is off the shipping,
    the rest off the lines. `points` is how many are spent, maybe fewer than were offered.
    """

    currency: str
    lines: tuple[QuotedLine, ...]
    discounts: tuple[Discount, ...]
    points: int
    points_minor: int
    subtotal_minor: int
    discount_minor: int
    shipping_minor: int
    shipping_discount_minor: int
    total_minor: int
    refused: tuple[RefusedCode, ...]


def quote(
    lines: Sequence[Line],
    promotions: Sequence[Promotion],
    *,
    currency: str,
    points: int = 0,
    points_rule: PointsRule | None = None,
    shipping_minor: int = 0,
) -> Quote:
    """The quote of lines with distinct SKUs. Lines come back in the order in which they were given.

    Without a rule no points are spent. The same input gives the same quote; the order of lines and
    of promotions changes no amount.
    """
    assert len({line.sku for line in lines}) == len(lines), "a SKU has one line"
    ordered = sorted(promotions, key=_order)
    stackable = [p for p in ordered if p.stacking is Stacking.STACKABLE]
    choices = [stackable, *([p] for p in ordered if p.stacking is Stacking.EXCLUSIVE)]
    bills = [_Bill(lines, currency, shipping_minor) for _ in choices]
    for bill, choice in zip(bills, choices, strict=True):
        bill.settle(choice, points, points_rule)
    best = max(bills, key=lambda bill: bill.discount_minor)  # The first of equals.
    return best.quote(_refused(ordered, best, bills))


def _order(promotion: Promotion) -> tuple[bool, int, str, str]:
    code = promotion.code
    return code is not None, promotion.priority, promotion.promotion_id, code or ""


class _Bill:
    """What is left to pay, while it is worked out."""

    def __init__(self, lines: Sequence[Line], currency: str, shipping_minor: int) -> None:
        self._given = lines
        self._lines = sorted(lines, key=lambda line: line.sku)  # So that shares have no order.
        self._left = {line.sku: line.subtotal_minor for line in lines}
        self._points_of: dict[str, int] = dict.fromkeys(self._left, 0)
        self._currency = currency
        self._shipping_minor = self._shipping_left = shipping_minor
        self._points = self._points_minor = 0
        self.discounts: list[Discount] = []
        self.reasons: dict[tuple[str, str | None], Reason] = {}  # by promotion and code

    @property
    def discount_minor(self) -> int:
        return sum(discount.amount_minor for discount in self.discounts)

    def settle(self, promotions: Sequence[Promotion], points: int, rule: PointsRule | None) -> None:
        """Takes everything off, in its order."""
        taken: set[str] = set()
        for promotion in promotions:
            if promotion.kind is not Kind.FREE_SHIPPING:
                self._apply(promotion, taken)
        if rule is not None:
            self._spend(points, rule)
        for promotion in promotions:
            if promotion.kind is Kind.FREE_SHIPPING:
                self._apply(promotion, taken)

    def _apply(self, promotion: Promotion, taken: set[str]) -> None:
        """Takes it off unless one of its group, or itself by another code, was before."""
        groups = {f"id:{promotion.promotion_id}"}
        if promotion.group is not None:
            groups.add(f"group:{promotion.group}")
        if not groups.isdisjoint(taken):
            reason: Reason | None = Reason.NOT_COMBINABLE
        else:
            reason = self._take_off(promotion)
        if reason is None:
            taken |= groups
        else:
            self.reasons[promotion.promotion_id, promotion.code] = reason

    def _take_off(self, promotion: Promotion) -> Reason | None:
        """None, or why nothing was taken off."""
        matching = [line for line in self._lines if promotion.is_for(line)]
        left = sum(self._left[line.sku] for line in matching)
        if reason := self._obstacle(promotion, matching, left):
            return reason
        free_shipping = promotion.kind is Kind.FREE_SHIPPING
        if free_shipping:
            off = at_most(self._shipping_left, self._shipping_left, promotion.discount_max_minor)
        else:
            off = goods_off(promotion, left)
        off = min(off, self._payable())
        if off <= 0:
            return Reason.GIVES_NOTHING
        if free_shipping:
            self._shipping_left -= off
        else:
            self._share(off, matching)
        self.discounts.append(_discount(promotion, off))
        return None

    def _obstacle(
        self, promotion: Promotion, matching: Sequence[Line], left_minor: int
    ) -> Reason | None:
        if promotion.currency != self._currency:
            return Reason.OTHER_CURRENCY
        if not matching:
            return Reason.OTHER_ITEMS
        if sum(line.subtotal_minor for line in matching) < promotion.subtotal_min_minor:
            return Reason.BELOW_MINIMUM
        if promotion.kind is Kind.THRESHOLD and left_minor < promotion.from_minor:
            return Reason.BELOW_MINIMUM
        return None

    def _spend(self, points: int, rule: PointsRule) -> None:
        """Takes as many points as are offered, allowed and of use."""
        unit = minor_per_major(self._currency)
        allowed = percent_of(sum(self._left.values()), rule.share_max_percent * 100)
        worth = points * unit // rule.points_per_major
        off = max(min(worth, allowed, self._payable()), 0)
        if off:
            self._points_of = self._share(off, self._lines)
        self._points_minor = off
        self._points = -(-off * rule.points_per_major // unit)  # No more than are needed for it.

    def _share(self, off: int, lines: Sequence[Line]) -> dict[str, int]:
        """Takes an amount off lines by what is left to pay for each; what was taken off each."""
        shares = allocate(off, [self._left[line.sku] for line in lines])
        taken = {line.sku: share for line, share in zip(lines, shares, strict=True)}
        for sku, share in taken.items():
            self._left[sku] -= share
        return taken

    def _payable(self) -> int:
        """What may still be taken off."""
        return sum(self._left.values()) + self._shipping_left - TOTAL_MINOR_MIN

    def quote(self, refused: tuple[RefusedCode, ...]) -> Quote:
        return Quote(
            currency=self._currency,
            lines=tuple(self._quoted(line) for line in self._given),
            discounts=tuple(self.discounts),
            points=self._points,
            points_minor=self._points_minor,
            subtotal_minor=sum(line.subtotal_minor for line in self._given),
            discount_minor=self.discount_minor,
            shipping_minor=self._shipping_minor,
            shipping_discount_minor=self._shipping_minor - self._shipping_left,
            total_minor=sum(self._left.values()) + self._shipping_left,
            refused=refused,
        )

    def _quoted(self, line: Line) -> QuotedLine:
        left, points = self._left[line.sku], self._points_of[line.sku]
        return QuotedLine(
            sku=line.sku,
            product_id=line.product_id,
            quantity=line.quantity,
            unit_price_minor=line.unit_price_minor,
            subtotal_minor=line.subtotal_minor,
            discount_minor=line.subtotal_minor - left - points,
            points_minor=points,
            total_minor=left,
        )


def _discount(promotion: Promotion, amount_minor: int) -> Discount:
    return Discount(
        promotion_id=promotion.promotion_id,
        revision=promotion.revision,
        code=promotion.code,
        name=promotion.name,
        amount_minor=amount_minor,
    )


def _refused(
    promotions: Sequence[Promotion], best: _Bill, bills: Sequence[_Bill]
) -> tuple[RefusedCode, ...]:
    """The coupons that are not in the best bill, each with its own reason if it has one."""
    used = {(discount.promotion_id, discount.code) for discount in best.discounts}
    reasons = {key: reason for bill in bills for key, reason in bill.reasons.items()}
    return tuple(
        RefusedCode(p.code, reasons.get((p.promotion_id, p.code), Reason.NOT_COMBINABLE))
        for p in promotions
        if p.code is not None and (p.promotion_id, p.code) not in used
    )
