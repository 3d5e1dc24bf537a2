"""Turns minor units into the amounts that providers write, and back, exactly. No floating point."""

import re
from typing import Final

FEN_PER_YUAN: Final = 100
_YUAN: Final = re.compile(r"(-?)(\d{1,13})(?:\.(\d{1,2}))?")
# Stripe counts these in hundredths though ISO 4217 gives them none
# (docs.stripe.com/currencies#special-cases).
STRIPE_HUNDREDTHS: Final = frozenset({"ISK", "UGX"})


def yuan_text(amount_minor: int) -> str:
    """129900 → `1299.00`."""
    yuan, fen = divmod(amount_minor, FEN_PER_YUAN)
    return f"{yuan}.{fen:02d}"


def fen_of_yuan(text: str) -> int:
    """`1299.00` → 129900, `-0.5` → -50. Raises ValueError for anything that is no amount."""
    match = _YUAN.fullmatch(text.strip())
    if match is None or not text.isascii():
        raise ValueError(f"{text[:40]!r} is no amount in yuan")
    sign, yuan, fen = match.groups()
    amount = int(yuan) * FEN_PER_YUAN + int((fen or "").ljust(2, "0"))
    return -amount if sign else amount


def stripe_amount(amount_minor: int, currency: str) -> int:
    """Minor units as Stripe counts them."""
    return amount_minor * 100 if currency in STRIPE_HUNDREDTHS else amount_minor


def minor_of_stripe(amount: int, currency: str) -> int:
    """The inverse. Raises ValueError for a fraction of the smallest unit."""
    if currency not in STRIPE_HUNDREDTHS:
        return amount
    whole, rest = divmod(amount, 100)
    if rest:
        raise ValueError(f"{amount} is no whole amount of {currency}")
    return whole
