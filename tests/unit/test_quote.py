"""What a cart costs, by examples: kinds, restrictions, stacking, points, shipping, floors."""

from typing import Any

import pytest

from api.pricing.promotion import Kind, Reason, Stacking
from api.pricing.quote import Line, PointsRule, Promotion, Quote, RefusedCode, quote

PHONE = Line("phone-black", "phone", ("electronics", "phones"), 1, 100_000)
CASE = Line("case", "case", ("electronics", "accessories"), 2, 2_550)
BOOK = Line("book", "book", ("books",), 1, 999)
CART = (PHONE, CASE, BOOK)
SUBTOTAL = 100_000 + 2 * 2_550 + 999
RULE = PointsRule(points_per_major=100, share_max_percent=50)


def promotion(name: str, kind: Kind, **terms: Any) -> Promotion:
    return Promotion(
        promotion_id=name, kind=kind, name={"en": name}, **({"currency": "CNY"} | terms)
    )


def of(*promotions: Promotion, lines: tuple[Line, ...] = CART, **options: Any) -> Quote:
    return quote(lines, promotions, **({"currency": "CNY"} | options))


def off(quoted: Quote) -> dict[str, int]:
    return {discount.promotion_id: discount.amount_minor for discount in quoted.discounts}


def test_without_promotions_a_cart_costs_its_prices_and_its_shipping() -> None:
    quoted = of(shipping_minor=1_200)
    assert (quoted.subtotal_minor, quoted.total_minor) == (SUBTOTAL, SUBTOTAL + 1_200)
    assert [line.total_minor for line in quoted.lines] == [100_000, 5_100, 999]


@pytest.mark.parametrize(
    ("terms", "taken_off"),
    [
        ({"kind": Kind.PERCENT, "basis_points": 1_250}, SUBTOTAL * 1_250 // 10_000),
        ({"kind": Kind.PERCENT, "basis_points": 5_000, "discount_max_minor": 700}, 700),
        ({"kind": Kind.PERCENT, "basis_points": 5_000, "skus": ("book",)}, 499),  # of 999, down
        ({"kind": Kind.PERCENT, "basis_points": 1_000, "categories": ("accessories",)}, 510),
        ({"kind": Kind.PERCENT, "basis_points": 1_000, "categories": ("electronics",)}, 10_510),
        ({"kind": Kind.AMOUNT, "off_minor": 300}, 300),
        ({"kind": Kind.AMOUNT, "off_minor": 5_000, "skus": ("book",)}, 999),  # no line below 0
        ({"kind": Kind.THRESHOLD, "from_minor": SUBTOTAL, "off_minor": 40}, 40),
        ({"kind": Kind.THRESHOLD, "from_minor": 10_000, "off_minor": 500}, 500),
        ({"kind": Kind.THRESHOLD, "from_minor": 10_000, "off_minor": 500, "repeated": True}, 5_000),
        ({"kind": Kind.FREE_SHIPPING}, 1_200),
        ({"kind": Kind.FREE_SHIPPING, "discount_max_minor": 1_000}, 1_000),
        ({"kind": Kind.FREE_SHIPPING, "subtotal_min_minor": 5_000, "skus": ("case",)}, 1_200),
    ],
)
def test_each_kind_takes_off_what_it_says(terms: dict[str, Any], taken_off: int) -> None:
    quoted = of(promotion("p", **terms), shipping_minor=1_200)
    assert off(quoted) == {"p": taken_off}
    assert quoted.total_minor == SUBTOTAL + 1_200 - taken_off


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        ({"currency": "USD"}, Reason.OTHER_CURRENCY),
        ({"skus": ("lamp",)}, Reason.OTHER_ITEMS),
        ({"categories": ("furniture",)}, Reason.OTHER_ITEMS),
        ({"subtotal_min_minor": SUBTOTAL + 1}, Reason.BELOW_MINIMUM),
        ({"subtotal_min_minor": 1_000, "skus": ("book",)}, Reason.BELOW_MINIMUM),
        ({"kind": Kind.THRESHOLD, "from_minor": SUBTOTAL + 1}, Reason.BELOW_MINIMUM),
        ({"kind": Kind.PERCENT, "basis_points": 1, "skus": ("book",)}, Reason.GIVES_NOTHING),
        ({"kind": Kind.FREE_SHIPPING}, Reason.GIVES_NOTHING),  # Shipping costs nothing.
    ],
)
def test_a_coupon_that_does_not_apply_says_why(terms: dict[str, Any], reason: Reason) -> None:
    quoted = of(promotion("p", **({"kind": Kind.AMOUNT, "off_minor": 100, "code": "C"} | terms)))
    assert quoted.discounts == ()
    assert quoted.refused == (RefusedCode("C", reason),)
    assert quoted.total_minor == SUBTOTAL


def test_a_promotion_without_a_code_that_does_not_apply_is_not_spoken_of() -> None:
    assert of(promotion("p", Kind.AMOUNT, off_minor=100, skus=("lamp",))).refused == ()


def test_stackable_promotions_follow_each_other_by_priority_then_coupons() -> None:
    quoted = of(
        promotion("coupon", Kind.PERCENT, basis_points=1_000, code="C", priority=-9),
        promotion("second", Kind.PERCENT, basis_points=5_000, priority=2),
        promotion("first", Kind.AMOUNT, off_minor=1_099, priority=1),
    )
    left = SUBTOTAL - 1_099
    half = left // 2
    assert list(off(quoted).items()) == [
        ("first", 1_099),
        ("second", half),
        ("coupon", (left - half) // 10),
    ]


def test_a_threshold_counts_what_is_left_after_the_discounts_before_it() -> None:
    first = promotion("a", Kind.AMOUNT, off_minor=1, priority=1)
    quoted = of(first, promotion("b", Kind.THRESHOLD, from_minor=SUBTOTAL, off_minor=9, priority=2))
    assert off(quoted) == {"a": 1}


def test_an_exclusive_promotion_applies_alone_if_that_is_better() -> None:
    small = promotion("small", Kind.AMOUNT, off_minor=100)
    coupon = promotion("coupon", Kind.AMOUNT, off_minor=100, code="C")
    for exclusive_off, winners in ((201, {"alone"}), (200, {"small", "coupon"})):
        alone = promotion(
            "alone", Kind.AMOUNT, off_minor=exclusive_off, code="A", stacking=Stacking.EXCLUSIVE
        )
        quoted = of(small, coupon, alone)
        assert set(off(quoted)) == winners
        loser = "C" if winners == {"alone"} else "A"
        assert quoted.refused == (RefusedCode(loser, Reason.NOT_COMBINABLE),)


def test_of_a_group_only_the_first_applies_and_of_a_promotion_only_one_code() -> None:
    quoted = of(
        promotion("a", Kind.AMOUNT, off_minor=10, code="A", group="welcome", priority=1),
        promotion("b", Kind.AMOUNT, off_minor=90, code="B", group="welcome", priority=2),
        promotion("c", Kind.AMOUNT, off_minor=5, code="C1"),
        promotion("c", Kind.AMOUNT, off_minor=5, code="C2"),
    )
    assert off(quoted) == {"a": 10, "c": 5}
    assert {refused.code for refused in quoted.refused} == {"B", "C2"}


def test_one_of_a_group_that_gives_nothing_leaves_its_place_to_the_next() -> None:
    quoted = of(
        promotion("a", Kind.AMOUNT, off_minor=10, skus=("lamp",), group="g", priority=1),
        promotion("b", Kind.AMOUNT, off_minor=90, group="g", priority=2),
    )
    assert off(quoted) == {"b": 90}


def test_a_discount_is_shared_by_what_is_left_to_pay_and_adds_up() -> None:
    quoted = of(promotion("p", Kind.AMOUNT, off_minor=1_000))
    assert [line.discount_minor for line in quoted.lines] == [943, 48, 9]
    restricted = of(promotion("p", Kind.AMOUNT, off_minor=1_000, categories=("accessories",)))
    assert [line.discount_minor for line in restricted.lines] == [0, 1_000, 0]


def test_an_order_that_costs_something_by_list_never_becomes_free() -> None:
    everything = promotion("all", Kind.PERCENT, basis_points=10_000)
    free = promotion("ship", Kind.FREE_SHIPPING)
    assert of(everything).total_minor == 1
    assert of(everything, free, shipping_minor=1_200).total_minor == 1
    assert of(everything, shipping_minor=1_200).total_minor == 1_200


def test_what_is_free_by_list_stays_free() -> None:
    gift = Line("sticker", "sticker", (), 3, 0)
    quoted = of(promotion("p", Kind.AMOUNT, off_minor=5), lines=(gift,), points=9, points_rule=RULE)
    assert (quoted.total_minor, quoted.discounts, quoted.points) == (0, (), 0)


@pytest.mark.parametrize(
    ("offered", "currency", "spent", "worth"),
    [
        (0, "CNY", 0, 0),
        (250, "CNY", 250, 250),
        (10_000_000, "CNY", SUBTOTAL // 2, SUBTOTAL // 2),  # at most half
        (250, "JPY", 200, 2),  # 100 points are 1 yen; what is too few for another is kept
        (99, "JPY", 0, 0),
        (250, "KWD", 250, 2_500),
    ],
)
def test_points_pay_what_they_are_worth_and_no_more_are_spent(
    offered: int, currency: str, spent: int, worth: int
) -> None:
    quoted = of(points=offered, points_rule=RULE, currency=currency)
    assert (quoted.points, quoted.points_minor) == (spent, worth)
    assert quoted.total_minor == SUBTOTAL - worth
    assert sum(line.points_minor for line in quoted.lines) == worth


def test_points_pay_a_share_of_the_goods_after_coupons_and_nothing_of_the_shipping() -> None:
    quoted = of(
        promotion("p", Kind.AMOUNT, off_minor=SUBTOTAL - 100, code="C"),
        points=10_000,
        points_rule=RULE,
        shipping_minor=1_000,
    )
    assert (quoted.points_minor, quoted.total_minor) == (50, 1_050)


def test_without_a_rule_no_points_are_spent() -> None:
    assert of(points=500).points == 0
