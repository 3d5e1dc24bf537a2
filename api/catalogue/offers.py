"""What a SKU is, costs and has in ordinary stock, read for those who sell it.

Leaves the rules of discounts to api/pricing and the taking of units to the engine.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from importlib.resources import files
from typing import Any, Final

import msgspec

from api.pricing.money import convert
from engine.store.database import Connection

BASE_CURRENCY: Final = "CNY"  # Of the setting `currency_default`, where nobody says otherwise.

_OFFERS: Final = files("api.catalogue").joinpath("offers.sql").read_text("utf-8")


class Offer(msgspec.Struct, frozen=True):
    """One SKU as it is sold outside of sales, in one currency."""

    sku: str
    product_id: str
    name: dict[str, str]  # the product's, by language
    options: dict[str, Any]  # {"colour": {"en": "black", "zh-CN": "黑色"}}
    category_path: tuple[str, ...]  # from the root down
    brand: str
    weight_grams: int
    unit_price_minor: int | None  # None: it has no price in that currency
    available: int
    active: bool
    image: str | None


async def offers(
    connection: Connection,
    skus: Sequence[str],
    currency: str,
    *,
    base: str = BASE_CURRENCY,
    on: date | None = None,
) -> dict[str, Offer]:
    """By SKU; what the catalogue does not have is left out.

    A SKU without a listed price in `currency` costs its price in `base`, converted by the newest
    rate that is valid `on` that day (UTC; None: today).
    """
    rows = await connection.fetch(_OFFERS, list(skus), currency, base, on)
    return {row["sku"]: _offer(row, currency, base) for row in rows}


def price_minor(row: Mapping[str, Any], currency: str, base: str) -> int | None:
    """The price of a row with `listed_minor`, `base_minor` and `rate`."""
    listed: int | None = row["listed_minor"]
    if listed is not None:
        return listed
    if row["base_minor"] is None or row["rate"] is None:
        return None
    try:
        # What rounds to nothing is no price.
        return convert(row["base_minor"], base, currency, row["rate"]) or None
    except ValueError:  # No currency, or more than an amount can hold.
        return None


def _offer(row: Mapping[str, Any], currency: str, base: str) -> Offer:
    return Offer(
        sku=row["sku"],
        product_id=row["product_id"],
        name=row["name"],
        options=row["options"],
        category_path=tuple(row["category_path"]),
        brand=row["brand"],
        weight_grams=row["weight_grams"],
        unit_price_minor=price_minor(row, currency, base),
        available=row["available"],
        active=row["active"],
        image=row["image"],
    )
