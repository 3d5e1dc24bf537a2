"""What sending a weight costs. Pure integers; knows no method, no zone and no database."""

from typing import Annotated, Final

import msgspec

GRAMS_MAX: Final = 1_000_000_000  # A thousand tonnes: more is a typing error.
MINOR_MAX: Final = 10**12  # Far beyond any fee, far below what a bigint holds.

Grams = Annotated[int, msgspec.Meta(ge=1, le=GRAMS_MAX)]
Minor = Annotated[int, msgspec.Meta(ge=0, le=MINOR_MAX)]


class Tariff(msgspec.Struct, frozen=True):
    """The first weight has its price, and so has every further weight that is begun (首重, 续重)."""

    first_grams: Grams
    first_minor: Minor
    step_grams: Grams
    step_minor: Minor
    grams_max: Grams | None = None  # heavier is not carried
    free_from_minor: Minor | None = None  # the subtotal from which nothing is charged


def fee_minor(tariff: Tariff, weight_grams: int, subtotal_minor: int | None = None) -> int | None:
    """In the tariff's currency; None for what is too heavy, or dearer than MINOR_MAX. `subtotal_minor`: None where unknown."""
    assert weight_grams >= 0, weight_grams
    if tariff.grams_max is not None and weight_grams > tariff.grams_max:
        return None
    free_from = tariff.free_from_minor
    if free_from is not None and subtotal_minor is not None and subtotal_minor >= free_from:
        return 0
    further_grams = max(weight_grams - tariff.first_grams, 0)
    fee = tariff.first_minor + -(-further_grams // tariff.step_grams) * tariff.step_minor
    return fee if fee <= MINOR_MAX else None
