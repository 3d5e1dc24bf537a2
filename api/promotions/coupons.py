"""What a coupon code looks like, and why one cannot be used. Does no I/O."""

import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

CODE: Final = re.compile(r"[A-Z0-9][A-Z0-9-]{2,31}")
CODES_MAX: Final = 10  # In one checkout: more is guessing.
RANDOM_CHARACTERS: Final = 12  # 60 bits: nobody guesses one of a million in a lifetime.
# Crockford's base 32 has no letter that is read as another.
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Fault(StrEnum):
    """Why a coupon cannot be used. The words are codes of api/problems.py."""

    UNKNOWN = "coupon_unknown"
    EXPIRED = "coupon_expired"
    EXHAUSTED = "coupon_exhausted"
    USED = "coupon_used"
    NOT_APPLICABLE = "coupon_not_applicable"


def canonical(text: str) -> str:
    """As codes are kept: people write them in either case, with blanks around."""
    return text.strip().upper()


def is_code(text: str) -> bool:
    return CODE.fullmatch(text) is not None


def random_code(prefix: str, number: int) -> str:
    """The code of a random number; its lowest RANDOM_CHARACTERS × 5 bits count."""
    letters = "".join(_ALPHABET[number >> 5 * place & 31] for place in range(RANDOM_CHARACTERS))
    return prefix + letters


def fault_of(
    row: Mapping[str, Any], *, user_id: str | None, currency: str | None, at: datetime
) -> Fault | None:
    """Why this user cannot use the coupon then; None if it can be. `row` is of find_coupons.sql."""
    if _is_over(row, at):
        return Fault.EXPIRED
    if row["owner_id"] not in {None, user_id} or row["coupon_full"] or row["user_full"]:
        return Fault.USED
    if row["promotion_full"]:
        return Fault.EXHAUSTED
    if at < row["valid_from"] or (row["new_buyers_only"] and not row["is_new_buyer"]):
        return Fault.NOT_APPLICABLE
    if currency is not None and currency not in row["terms"]["currencies"]:
        return Fault.NOT_APPLICABLE
    return None


def _is_over(row: Mapping[str, Any], at: datetime) -> bool:
    ended = row["valid_until"] is not None and at >= row["valid_until"]
    return ended or row["withdrawn_at"] is not None or not row["active"]
