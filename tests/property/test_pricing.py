"""Quotes of random carts: they add up, stay above their floors, and depend on nothing else."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from api.pricing.promotion import Kind, Stacking
from api.pricing.quote import Line, PointsRule, Promotion, Quote, quote
from engine.model import ITEMS_MAX, QUANTITY_MAX
from engine.sales.document import PRICE_MINOR_MAX

# Few words, so that restrictions match, and prices whose remainders do not.
PATHS = st.sampled_from([("a",), ("a", "b"), ("a", "b", "c"), ("d",), ("d", "e")])
PRICES = st.one_of(st.integers(0, 20), st.integers(0, 99_999), st.just(PRICE_MINOR_MAX))
QUANTITIES = st.one_of(st.integers(1, 5), st.just(QUANTITY_MAX))
AMOUNTS = st.one_of(st.integers(1, 50), st.integers(1, 200_000), st.just(PRICE_MINOR_MAX))


@st.composite
def carts(draw: st.DrawFn) -> list[Line]:
    paths = draw(st.lists(PATHS, min_size=1, max_size=6))
    return [
        Line(f"s{number}", f"p{number}", path, draw(QUANTITIES), draw(PRICES))
        for number, path in enumerate(paths)
    ]


@st.composite
def promotions(draw: st.DrawFn, kinds: tuple[Kind, ...] = tuple(Kind)) -> Promotion:
    kind = draw(st.sampled_from(kinds))
    return Promotion(
        promotion_id=draw(st.sampled_from([f"promo-{number}" for number in range(6)])),
        kind=kind,
        name={"en": "x"},
        currency=draw(st.sampled_from(["CNY", "CNY", "CNY", "JPY"])),
        code=draw(st.none() | st.sampled_from(["C1", "C2", "C3"])),
        basis_points=draw(st.integers(1, 10_000)) if kind is Kind.PERCENT else 0,
        off_minor=draw(AMOUNTS),
        from_minor=draw(AMOUNTS),
        repeated=draw(st.booleans()),
        discount_max_minor=draw(st.none() | AMOUNTS),
        subtotal_min_minor=draw(st.just(0) | AMOUNTS),
        skus=draw(st.just(()) | st.sampled_from([("s0",), ("s1", "s2")])),
        categories=draw(st.just(()) | st.sampled_from([("a",), ("b",), ("d", "c")])),
        stacking=draw(st.sampled_from([*Stacking, Stacking.STACKABLE])),
        priority=draw(st.integers(-2, 2)),
        group=draw(st.sampled_from([None, None, "g"])),
    )


OFFERS = st.lists(promotions(), max_size=6, unique_by=lambda p: (p.promotion_id, p.code))
OPTIONS = st.fixed_dictionaries(
    {
        "currency": st.sampled_from(["CNY", "JPY", "KWD"]),
        "points": st.integers(0, 10**9),
        "points_rule": st.none()
        | st.builds(PointsRule, st.integers(1, 1_000), st.integers(0, 100)),
        "shipping_minor": st.integers(0, 5_000),
    }
)


@given(carts(), OFFERS, OPTIONS)
def test_all_sums_are_exact_and_nothing_is_below_zero(
    cart: list[Line], offers: list[Promotion], options: dict[str, Any]
) -> None:
    quoted = quote(cart, offers, **options)
    for line, given_line in zip(quoted.lines, cart, strict=True):
        assert line.sku == given_line.sku
        assert line.subtotal_minor == given_line.quantity * given_line.unit_price_minor
        assert min(line.discount_minor, line.points_minor, line.total_minor) >= 0
        assert line.subtotal_minor - line.discount_minor - line.points_minor == line.total_minor
    assert quoted.subtotal_minor == sum(line.subtotal_minor for line in quoted.lines)
    assert quoted.points_minor == sum(line.points_minor for line in quoted.lines)
    assert quoted.discount_minor == sum(discount.amount_minor for discount in quoted.discounts)
    off_lines = sum(line.discount_minor for line in quoted.lines)
    assert quoted.discount_minor == off_lines + quoted.shipping_discount_minor
    assert 0 <= quoted.shipping_discount_minor <= quoted.shipping_minor
    assert quoted.total_minor == (
        quoted.subtotal_minor + quoted.shipping_minor - quoted.discount_minor - quoted.points_minor
    )
    assert 0 <= quoted.points <= options["points"]


@given(carts(), OFFERS, OPTIONS)
def test_no_stack_of_promotions_makes_an_order_free(
    cart: list[Line], offers: list[Promotion], options: dict[str, Any]
) -> None:
    quoted = quote(cart, offers, **options)
    by_list = quoted.subtotal_minor + quoted.shipping_minor
    assert quoted.total_minor >= 1 if by_list else quoted.total_minor == 0


@given(carts(), OFFERS, OPTIONS, st.randoms(use_true_random=False))
def test_neither_the_order_of_lines_nor_that_of_promotions_changes_anything(
    cart: list[Line], offers: list[Promotion], options: dict[str, Any], dice: Any
) -> None:
    first = quote(cart, offers, **options)
    assert quote(cart, offers, **options) == first
    dice.shuffle(lines := list(cart))
    dice.shuffle(promised := list(offers))
    again = quote(lines, promised, **options)
    assert again == msgspec.structs.replace(first, lines=again.lines)
    assert set(again.lines) == set(first.lines)


@given(carts(), OFFERS, OPTIONS)
def test_every_rule_of_stacking_holds(
    cart: list[Line], offers: list[Promotion], options: dict[str, Any]
) -> None:
    quoted = quote(cart, offers, **options)
    by_key = {(offer.promotion_id, offer.code): offer for offer in offers}
    applied = [by_key[discount.promotion_id, discount.code] for discount in quoted.discounts]
    assert all(discount.amount_minor > 0 for discount in quoted.discounts)
    assert len({offer.promotion_id for offer in applied}) == len(applied)
    groups = [offer.group for offer in applied if offer.group]
    assert len(set(groups)) == len(groups)
    if any(offer.stacking is Stacking.EXCLUSIVE for offer in applied):
        assert len(applied) == 1
    assert all(offer.currency == options["currency"] for offer in applied)
    for offer, discount in zip(applied, quoted.discounts, strict=True):
        assert discount.amount_minor <= (offer.discount_max_minor or discount.amount_minor)
    codes = sorted(offer.code for offer in offers if offer.code)
    used = [offer.code for offer in applied if offer.code]
    assert sorted(used + [refused.code for refused in quoted.refused]) == codes


@given(carts(), OFFERS, OPTIONS)
def test_a_promotion_more_never_makes_less_off_where_nothing_is_exclusive_or_before_another(
    cart: list[Line], offers: list[Promotion], options: dict[str, Any]
) -> None:
    alone = [msgspec.structs.replace(o, stacking=Stacking.EXCLUSIVE, group=None) for o in offers]
    best = quote(cart, alone, **options).discount_minor
    for offer in alone:
        assert quote(cart, [offer], **options).discount_minor <= best


@given(
    carts(),
    st.lists(
        promotions((Kind.PERCENT, Kind.AMOUNT)), max_size=4, unique_by=lambda p: p.promotion_id
    ),
    st.data(),
)
def test_more_units_never_cost_less_where_no_minimum_is_to_be_reached(
    cart: list[Line], offers: list[Promotion], data: st.DataObject
) -> None:
    plain = [
        msgspec.structs.replace(offer, subtotal_min_minor=0, skus=(), categories=())
        for offer in offers
    ]
    place = data.draw(st.integers(0, len(cart) - 1))
    more = list(cart)
    more[place] = msgspec.structs.replace(more[place], quantity=more[place].quantity + 1)
    before, after = (quote(lines, plain, currency="CNY") for lines in (cart, more))
    assert before.total_minor <= after.total_minor
    assert before.discount_minor <= after.discount_minor


@given(carts(), promotions(), st.data())
def test_one_promotion_never_takes_less_off_for_more_units(
    cart: list[Line], offer: Promotion, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(cart) - 1))
    more = list(cart)
    more[place] = msgspec.structs.replace(more[place], quantity=more[place].quantity + 1)
    before, after = (quote(lines, [offer], currency="CNY") for lines in (cart, more))
    assert before.discount_minor <= after.discount_minor


def test_the_largest_cart_is_counted_exactly() -> None:
    cart = [Line(f"s{n}", "p", (), QUANTITY_MAX, PRICE_MINOR_MAX) for n in range(ITEMS_MAX)]
    quoted: Quote = quote(cart, [], currency="CNY")
    assert quoted.total_minor == ITEMS_MAX * QUANTITY_MAX * PRICE_MINOR_MAX
