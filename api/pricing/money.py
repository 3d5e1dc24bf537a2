"""Money as whole numbers of a currency's smallest unit: digits, conversion, sharing out, writing.

Does no I/O. Which rates and prices there are, others know.
"""

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from functools import cache
from typing import Final

from babel.core import get_global
from babel.numbers import (
    NumberPattern,
    get_currency_precision,
    get_currency_symbol,
    parse_pattern,
)

from api.language import locale_of
from engine.model import Money

AMOUNT_MINOR_MAX: Final = 2**63 - 1  # bigint, where amounts are kept.
_PRECISION: Final = 60  # Digits that no product of an amount and a rate can exceed.

# babel follows CLDR, which says how many digits are in use; ISO 4217, which banks and payment
# providers go by, gives these more.
_ISO_DIGITS: Final = {"IQD": 3} | dict.fromkeys(
    ("AFN", "ALL", "IRR", "KPW", "LAK", "LBP", "MGA", "MMK", "RSD", "SOS", "SYP", "YER"), 2
)


@cache
def currencies() -> frozenset[str]:
    """The ISO 4217 codes of money that is legal tender somewhere today."""
    listed = (entry for entries in get_global("territory_currencies").values() for entry in entries)
    return frozenset(code for code, _, until, tender in listed if tender and until is None)


def is_currency(text: str) -> bool:
    return text in currencies()


@cache
def digits(currency: str) -> int:
    """How many decimals the smallest unit is: CNY 2, JPY 0, KWD 3. Raises ValueError for no currency."""
    if not is_currency(currency):
        raise ValueError(f"{currency!r} is no currency")
    return _ISO_DIGITS.get(currency, get_currency_precision(currency))


def minor_per_major(currency: str) -> int:
    """How many of the smallest unit make one: CNY 100, JPY 1."""
    return int(10 ** digits(currency))


def convert(amount_minor: int, base: str, quote: str, rate: Decimal) -> int:
    """The amount of `base` in `quote`, where 1 `base` is `rate` `quote`; half a unit goes to even.

    Half-even (banker's rounding), so that many conversions favour neither side. Raises ValueError
    for a rate that is not above zero, and for what no amount can hold.
    """
    if not (rate.is_finite() and rate > 0):
        raise ValueError("a rate is above zero")
    with localcontext(prec=_PRECISION):
        exact = (amount_minor * rate).scaleb(digits(quote) - digits(base))
        converted = int(exact.to_integral_value(ROUND_HALF_EVEN))
    if abs(converted) > AMOUNT_MINOR_MAX:
        raise ValueError("the amount is too large")
    return converted


def percent_of(amount_minor: int, basis_points: int) -> int:
    """So many hundredths of a percent, rounded down: nobody is promised more than the percentage."""
    return amount_minor * basis_points // 10_000


def allocate(amount: int, weights: Sequence[int]) -> list[int]:
    """Shares of `amount` by weight that add up to it exactly: the largest remainder method.

    Of equal remainders the first in the list is served first. An amount of no more than the sum
    of the weights gives nobody more than his weight. Without any weight, all have the same.
    """
    if any(weight < 0 for weight in weights):
        raise ValueError("a weight is not below zero")
    total = sum(weights)
    if not total:
        weights, total = [1] * len(weights), len(weights)
    if not weights:
        raise ValueError("there is nobody to have a share")
    shares = [amount * weight // total for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: -(amount * weights[i] % total))
    for place in by_remainder[: amount - sum(shares)]:
        shares[place] += 1
    return shares


def format_money(money: Money, language: str) -> str:
    """As people of that language write it: ¥1,299.00, US$12.50, JP¥1,299, KWD 1.299."""
    amount = Decimal(money.amount_minor).scaleb(-digits(money.currency))
    text: str = _pattern(money.currency, language).apply(
        amount, locale_of(language), currency=money.currency, currency_digits=False
    )
    return text


@cache
def _pattern(currency: str, language: str) -> NumberPattern:
    """How the language writes money, with the decimals of ISO 4217."""
    locale = locale_of(language)
    text = locale.currency_formats["standard"].pattern
    if get_currency_symbol(currency, locale)[-1].isalpha():
        text = text.replace("¤", "¤\N{NO-BREAK SPACE}")  # As CLDR has it; babel does not read that.
    pattern = parse_pattern(text)
    pattern.frac_prec = (digits(currency), digits(currency))
    return pattern
