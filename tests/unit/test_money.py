"""Money: whole numbers, the digits of ISO 4217, rounding that favours nobody."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.pricing.money import (
    AMOUNT_MINOR_MAX,
    allocate,
    convert,
    currencies,
    digits,
    format_money,
    is_currency,
    percent_of,
)
from engine.model import ITEMS_MAX, QUANTITY_MAX, Money
from engine.sales.document import PRICE_MINOR_MAX


@pytest.mark.parametrize(
    ("currency", "decimals"),
    [("CNY", 2), ("USD", 2), ("JPY", 0), ("KRW", 0), ("KWD", 3), ("BHD", 3)],
)
def test_the_smallest_unit_is_that_of_the_currency(currency: str, decimals: int) -> None:
    assert digits(currency) == decimals


def test_digits_are_those_of_iso_4217_where_common_use_has_dropped_them() -> None:
    # What providers count in, whatever coins are still made.
    assert {digits(currency) for currency in ("RSD", "ALL", "LBP", "MMK", "MGA")} == {2}
    assert digits("IQD") == 3


@pytest.mark.parametrize("text", ["XXX", "XAU", "DEM", "cny", "RMB", "", "CNY "])
def test_what_nobody_pays_with_today_is_no_currency(text: str) -> None:
    assert not is_currency(text)
    with pytest.raises(ValueError, match="no currency"):
        digits(text)


def test_every_currency_can_be_written_in_both_languages() -> None:
    assert len(currencies()) > 150
    for currency in currencies():
        for language in ("en", "zh-CN"):
            assert "12" in format_money(Money(123_456, currency), language).replace(",", "")


@pytest.mark.parametrize(
    ("money", "language", "text"),
    [
        (Money(129_900, "CNY"), "zh-CN", "¥1,299.00"),
        (Money(129_900, "CNY"), "en", "CN¥1,299.00"),
        (Money(1_250, "USD"), "en", "$12.50"),
        (Money(1_250, "USD"), "zh-CN", "US$12.50"),
        (Money(1_299, "JPY"), "en", "¥1,299"),
        (Money(1_299, "KWD"), "en", "KWD\xa01.299"),
        (Money(-5, "CNY"), "zh-CN", "-¥0.05"),
    ],
)
def test_money_is_written_as_people_write_it(money: Money, language: str, text: str) -> None:
    assert format_money(money, language) == text


@pytest.mark.parametrize(
    ("amount", "base", "quote", "rate", "converted"),
    [
        (100, "USD", "CNY", "7.1", 710),
        (100, "USD", "JPY", "150", 150),  # 1 dollar is 150 yen: no decimals
        (150, "JPY", "USD", "0.00666667", 100),
        (1_000, "KWD", "USD", "3.25", 325),
        (1, "CNY", "CNY", "0.5", 0),  # half goes to even …
        (3, "CNY", "CNY", "0.5", 2),  # … in both directions
        (5, "CNY", "CNY", "0.5", 2),
        (-3, "CNY", "CNY", "0.5", -2),
        (0, "USD", "CNY", "7.1", 0),
    ],
)
def test_a_conversion_rounds_half_to_even(
    amount: int, base: str, quote: str, rate: str, converted: int
) -> None:
    assert convert(amount, base, quote, Decimal(rate)) == converted


@pytest.mark.parametrize("rate", ["0", "-1", "NaN", "Infinity"])
def test_what_is_no_rate_is_refused(rate: str) -> None:
    with pytest.raises(ValueError, match="above zero"):
        convert(1, "USD", "CNY", Decimal(rate))


def test_an_amount_that_fits_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match="too large"):
        convert(AMOUNT_MINOR_MAX, "JPY", "KWD", Decimal(1))


def test_the_largest_cart_fits() -> None:
    assert PRICE_MINOR_MAX * QUANTITY_MAX <= AMOUNT_MINOR_MAX
    assert ITEMS_MAX * PRICE_MINOR_MAX * 100 <= AMOUNT_MINOR_MAX


@pytest.mark.parametrize(
    ("amount", "basis_points", "off"),
    [(999, 1_000, 99), (1, 9_999, 0), (333, 1_250, 41), (50, 10_000, 50)],
)
def test_a_percentage_is_rounded_down(amount: int, basis_points: int, off: int) -> None:
    assert percent_of(amount, basis_points) == off


WEIGHTS = st.lists(st.integers(0, PRICE_MINOR_MAX), min_size=1, max_size=ITEMS_MAX)


@given(st.integers(0, AMOUNT_MINOR_MAX), WEIGHTS)
def test_shares_add_up_to_the_amount_and_are_within_one_of_the_exact_ones(
    amount: int, weights: list[int]
) -> None:
    shares = allocate(amount, weights)
    assert sum(shares) == amount
    if total := sum(weights):
        for share, weight in zip(shares, weights, strict=True):
            assert abs(share * total - amount * weight) < total


@given(WEIGHTS, st.data())
def test_nobody_gets_more_than_his_weight_of_what_is_there(
    weights: list[int], data: st.DataObject
) -> None:
    amount = data.draw(st.integers(0, sum(weights)))
    if amount:
        assert all(s <= w for s, w in zip(allocate(amount, weights), weights, strict=True))


def test_the_largest_remainders_are_served_first() -> None:
    assert allocate(10, [1, 1, 1]) == [4, 3, 3]
    assert allocate(7, [10, 25, 65]) == [1, 2, 4]
    assert allocate(3, [0, 0]) == [2, 1]
    for bad in ([], [1, -1]):
        with pytest.raises(ValueError, match=r"share|weight"):
            allocate(1, bad)
