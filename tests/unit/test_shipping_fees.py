"""Shipping fees: whole numbers, the first weight and every further one that is begun."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.shipping.documents import MethodDocument
from api.shipping.fees import GRAMS_MAX, MINOR_MAX, Tariff, fee_minor
from api.shipping.seed import METHODS

STANDARD = Tariff(first_grams=1000, first_minor=800, step_grams=500, step_minor=200)

tariffs = st.builds(
    Tariff,
    first_grams=st.integers(1, GRAMS_MAX),
    first_minor=st.integers(0, MINOR_MAX),
    step_grams=st.integers(1, GRAMS_MAX),
    step_minor=st.integers(0, MINOR_MAX),
)
weights = st.integers(0, GRAMS_MAX)


@pytest.mark.parametrize(
    ("grams", "fee"),
    [(0, 800), (1, 800), (1000, 800), (1001, 1000), (1500, 1000), (1501, 1200), (10_000, 4400)],
)
def test_a_further_weight_that_is_begun_is_paid(grams: int, fee: int) -> None:
    assert fee_minor(STANDARD, grams) == fee


def test_what_is_too_heavy_is_not_carried() -> None:
    tariff = msgspec.structs.replace(STANDARD, grams_max=2000)
    assert fee_minor(tariff, 2000) == 1200
    assert fee_minor(tariff, 2001) is None
    dear = msgspec.structs.replace(STANDARD, step_grams=1, step_minor=MINOR_MAX)
    assert fee_minor(dear, dear.first_grams + 1) is None


def test_from_its_subtotal_on_it_is_free_and_below_not() -> None:
    tariff = msgspec.structs.replace(STANDARD, free_from_minor=9900)
    assert fee_minor(tariff, 1500, 9900) == 0
    assert fee_minor(tariff, 1500, 9899) == 1000
    assert fee_minor(tariff, 1500, None) == 1000  # Nobody knows what the goods cost.


def test_too_heavy_is_too_heavy_at_any_price() -> None:
    tariff = msgspec.structs.replace(STANDARD, grams_max=2000, free_from_minor=0)
    assert fee_minor(tariff, 2001, 10**9) is None


@given(tariffs, weights, weights)
def test_more_weight_never_costs_less(tariff: Tariff, one: int, other: int) -> None:
    light, heavy = sorted((one, other))
    less, more = fee_minor(tariff, light), fee_minor(tariff, heavy)
    if more is None:  # Beyond all bounds.
        return
    assert less is not None
    assert tariff.first_minor <= less <= more


@given(tariffs, weights)
def test_the_fee_pays_for_all_the_weight_and_for_no_step_more(tariff: Tariff, grams: int) -> None:
    fee = fee_minor(tariff, grams)
    if fee is None:  # Beyond all bounds.
        return
    if tariff.step_minor == 0:
        assert fee == tariff.first_minor
        return
    steps, rest = divmod(fee - tariff.first_minor, tariff.step_minor)
    assert rest == 0
    assert tariff.first_grams + steps * tariff.step_grams >= grams
    assert steps == 0 or tariff.first_grams + (steps - 1) * tariff.step_grams < grams


@pytest.mark.parametrize(
    "change",
    [
        {"zones": []},
        {"name": {}},
        {"name": {"fr": "Rapide"}},
        {"zones": [{"country": "*", "regions": ["X"], "days_min": 1, "days_max": 2, "fees": []}]},
        {"zones": [{"country": "CN", "days_min": 3, "days_max": 2, "fees": []}]},
        {"zones": [{"country": "CN", "days_min": 1, "days_max": 2, "fees": []}] * 2},
        {
            "zones": [
                {"country": "CN", "regions": ["Xizang", "XIZANG"], "days_min": 1, "days_max": 2,
                 "fees": []}
            ]
        },
        {"carrier": "no such\nname"},
    ],
)  # fmt: skip
def test_a_method_that_breaks_a_rule_is_refused(change: dict[str, object]) -> None:
    msgspec.convert(METHODS["standard"], MethodDocument)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(METHODS["standard"] | change, MethodDocument)
