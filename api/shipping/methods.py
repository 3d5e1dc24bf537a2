"""Which shipping methods there are for an address, and what each costs for a weight.

Leaves changing methods to `admin`, and what a fee is to `fees`.
"""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

import msgspec

from api.shipping.fees import Tariff, fee_minor
from engine.model import Money
from engine.store.database import Connection, Pool, postgres_errors

_QUOTES: Final = (files("api.shipping") / "quotes.sql").read_text()


class ShippingQuote(msgspec.Struct, frozen=True):
    """One method for one address, weight and currency."""

    method_id: str
    name: dict[str, str]
    fee: Money
    days_min: int
    days_max: int
    free_from: Money | None = None  # the subtotal from which the fee is 0


class ShippingMethods:
    """The methods, read."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def quotes(
        self,
        *,
        country: str,
        region: str,
        weight_grams: int,
        currency: str,
        subtotal_minor: int | None = None,
    ) -> list[ShippingQuote]:
        """In the shop's order. `subtotal_minor` is what the goods cost before discounts: some methods
        are free from there on; None where nobody knows it yet."""
        with postgres_errors():
            async with self._pool.acquire() as connection:
                return await quotes(
                    connection,
                    country=country,
                    region=region,
                    weight_grams=weight_grams,
                    currency=currency,
                    subtotal_minor=subtotal_minor,
                )


async def quotes(
    connection: Connection,
    *,
    country: str,
    region: str,
    weight_grams: int,
    currency: str,
    subtotal_minor: int | None = None,
) -> list[ShippingQuote]:
    """As `ShippingMethods.quotes`, in the caller's transaction."""
    rows = await connection.fetch(_QUOTES, country.upper(), region.strip(), currency)
    found = (_quote(row, currency, weight_grams, subtotal_minor) for row in rows)
    return [quote for quote in found if quote is not None]


def _quote(
    row: Mapping[str, Any], currency: str, weight_grams: int, subtotal_minor: int | None
) -> ShippingQuote | None:
    tariff = Tariff(**{name: row[name] for name in Tariff.__struct_fields__})
    fee = fee_minor(tariff, weight_grams, subtotal_minor)
    if fee is None:
        return None
    free_from = tariff.free_from_minor
    return ShippingQuote(
        method_id=row["method_id"],
        name=row["name"],
        fee=Money(fee, currency),
        days_min=row["days_min"],
        days_max=row["days_max"],
        free_from=None if free_from is None else Money(free_from, currency),
    )
