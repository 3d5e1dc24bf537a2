"""Says in words why coupons take nothing off. Whether they do is api/promotions' and api/pricing's."""

from collections.abc import Sequence
from typing import Final

from api.answers import Answer
from api.pricing.promotion import Reason
from api.pricing.quote import RefusedCode
from api.problems import Code, FieldError, detail_of, problem
from api.promotions.coupons import Fault

# For people, what `RefusedCode.reason` says to programs.
WHY: Final[dict[str, str]] = {
    Fault.UNKNOWN: "there is no such coupon",
    Fault.EXPIRED: "it is not valid any more",
    Fault.EXHAUSTED: "others have redeemed all there were",
    Fault.USED: "it was used already",
    Fault.NOT_APPLICABLE: "it is not for this",
    Reason.OTHER_CURRENCY: "it is for another currency",
    Reason.OTHER_ITEMS: "it is for other goods",
    Reason.BELOW_MINIMUM: "the goods cost less than it asks for",
    Reason.NOT_COMBINABLE: "another offer that takes as much off stands alone",
    Reason.GIVES_NOTHING: "nothing is left that it could take off",
}


def coupons_refused(refused: Sequence[RefusedCode]) -> Answer:
    """The problem that names each coupon and its reason."""
    errors = [FieldError(f"coupons.{each.code}", WHY[each.reason]) for each in refused]
    return problem(Code.COUPON_REFUSED, detail_of(errors), errors=tuple(errors))
