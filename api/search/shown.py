"""Turns what was found into what is answered, in one language and one currency."""

from collections.abc import Iterator
from typing import Any, Final

from api.catalogue.offers import price_minor
from api.language import pick
from api.paging import cursor_text
from api.pricing.money import minor_per_major
from api.search.bodies import (
    BrandCount,
    CategoryCount,
    Facets,
    FoundProduct,
    FoundProducts,
    PriceCount,
)
from api.search.filters import ORDERS, Key, Price, key_value
from api.search.finder import Found
from api.search.statement import Search
from engine.model import Money

# Whole units of the currency: a few hundred to the thousand serve CNY and JPY alike.
_BANDS: Final = (50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)


def bands_of(currency: str) -> list[int]:
    """Where price bands end, in the smallest unit."""
    return [bound * minor_per_major(currency) for bound in _BANDS]


def products_body(found: Found, language: str) -> FoundProducts:
    search = found.search
    return FoundProducts(
        products=[_product(row, search.price, language) for row in found.rows],
        total=min(found.total, search.most),
        total_is_least=found.total_is_least,
        next=_next(search, found) if found.has_more else None,
        corrected=found.instead.corrected,
        left_out=list(found.instead.left_out),
        facets=_facets(search, found, language) if search.query.facets else None,
    )


def _next(search: Search, found: Found) -> str:
    value = key_value(ORDERS[search.sort], found.last_value)
    return cursor_text(Key(search.sort, value, found.last_id))


def _product(row: Any, price: Price, language: str) -> FoundProduct:
    prices = row["prices"]
    amount = price_minor(
        {
            "listed_minor": prices.get(price.currency),
            "base_minor": prices.get(price.base),
            "rate": price.rate,
        },
        price.currency,
        price.base,
    )
    return FoundProduct(
        product_id=row["product_id"],
        name=pick(row["name"], language),
        brand=row["brand"],
        category_id=row["category_id"],
        image=row["image"],
        price=None if amount is None else Money(amount, price.currency),
        in_stock=row["in_stock"],
        on_sale=row["on_sale"],
        rating=None if row["rating"] is None else round(row["rating"], 2),
        ratings=row["ratings"],
    )


def _facets(search: Search, found: Found, language: str) -> Facets:
    names, counted = found.category_names, found.facets
    return Facets(
        categories=[
            CategoryCount(each, pick(names.get(each, {}), language), count)
            for each, count in counted.get("category", ())
        ],
        brands=[BrandCount(brand, count) for brand, count in counted.get("brand", ())],
        prices=list(_prices(search, counted.get("price", []))),
        are_least=found.facets_are_least,
    )


def _prices(search: Search, counted: list[Any]) -> Iterator[PriceCount]:
    """From cheap to dear. Band n lies between bounds n-1 and n."""
    currency = search.price.currency
    bounds = [0, *search.bands]
    for band, count in sorted(counted):
        below = Money(search.bands[band], currency) if band < len(search.bands) else None
        yield PriceCount(Money(bounds[band], currency), below, count)
