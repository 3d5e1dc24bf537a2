"""Amounts as providers write them: exact, whatever the size, and nothing else is read as one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.payment.amounts import fen_of_yuan, minor_of_stripe, stripe_amount, yuan_text

AMOUNTS = st.integers(0, 10**14)


@given(AMOUNTS)
def test_every_amount_in_yuan_comes_back_exactly(amount: int) -> None:
    assert fen_of_yuan(yuan_text(amount)) == amount
    assert fen_of_yuan("-" + yuan_text(amount)) == -amount


@pytest.mark.parametrize(("minor", "text"), [(0, "0.00"), (1, "0.01"), (129900, "1299.00")])
def test_yuan_have_two_decimals(minor: int, text: str) -> None:
    assert yuan_text(minor) == text


@pytest.mark.parametrize(("text", "minor"), [("1299", 129900), ("0.5", 50), (" 9.90\t", 990)])
def test_fewer_decimals_are_read_as_well(text: str, minor: int) -> None:
    assert fen_of_yuan(text) == minor


@pytest.mark.parametrize(
    "text", ["", ".5", "1.234", "1e3", "1,000.00", "NaN", "１.00", "--1", "+1"]
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no amount in yuan"):
        fen_of_yuan(text)


@given(AMOUNTS, st.sampled_from(["USD", "JPY", "ISK", "UGX"]))
def test_stripe_counts_come_back_exactly(amount: int, currency: str) -> None:
    assert minor_of_stripe(stripe_amount(amount, currency), currency) == amount


def test_stripe_counts_kronur_in_hundredths_and_yen_as_they_are() -> None:
    assert (stripe_amount(500, "ISK"), stripe_amount(500, "JPY")) == (50_000, 500)
    with pytest.raises(ValueError, match="no whole amount"):
        minor_of_stripe(50_001, "ISK")
