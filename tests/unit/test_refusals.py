"""Coupons that take nothing off: every reason has its words, in both languages."""

import pytest

from api.cart.refusals import WHY, coupons_refused
from api.localized import in_chinese, sentence
from api.pricing.promotion import Reason
from api.pricing.quote import RefusedCode
from api.promotions.coupons import Fault


@pytest.mark.parametrize("reason", [*Fault, *Reason])
def test_every_reason_is_told_in_words_and_in_chinese(reason: str) -> None:
    assert sentence(WHY[reason]) != WHY[reason]


def test_each_refused_coupon_is_named() -> None:
    answer = coupons_refused([RefusedCode("A", Fault.USED), RefusedCode("B", Reason.OTHER_ITEMS)])
    assert b'"field":"coupons.A","problem":"it was used already"' in answer.body
    assert b'"field":"coupons.B"' in answer.body
    assert "优惠券已使用" in in_chinese(answer).body.decode()
