"""The calls that show products and categories. Anyone may look. Lists of products are the search's."""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any, Final, NamedTuple

from aiohttp import web

from api.answers import Answer, time_text
from api.catalogue.bodies import (
    CategoryName,
    PageQuery,
    ProductBody,
    RatingBody,
    SaleOffer,
    SkuBody,
)
from api.catalogue.conditional import ACCEPT_LANGUAGE, IF_NONE_MATCH, TOLD, localized
from api.catalogue.document import picked
from api.catalogue.offers import price_minor
from api.front import Front
from api.language import language_of, pick
from api.pricing.money import is_currency
from api.problems import Code, FieldError, Refusal, invalid
from api.queries import read_query
from api.routing import Route
from api.sales.bodies import is_live
from api.spec import Access, Spec
from engine.errors import Unavailable
from engine.inventory import StockSnapshot
from engine.model import Money
from engine.sales import Sale
from engine.store.database import postgres_errors

OFFERS_SHOWN_MAX: Final = 20  # Sales of one product, the next ones first.
PAGE: Final = files("api.catalogue").joinpath("statements", "page.sql").read_text("utf-8")

Row = Mapping[str, Any]
LiveSale = tuple[Sale, StockSnapshot | None]


class View(NamedTuple):
    """How a page is wanted."""

    currency: str
    base: str  # from whose prices others are converted
    language: str
    now_ms: int


async def show_product(front: Front, request: web.Request) -> Answer:
    engine = front.engine
    query = read_query(request, PageQuery)
    base = engine.settings.currency_default
    currency = query.currency or base
    if not is_currency(currency):
        raise Refusal.of(invalid([FieldError("currency", "is no currency of ISO 4217")]))
    now_ms = engine.clock.now_ms()
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    product_id = request.match_info["product"]
    with postgres_errors():
        row = await engine.pool.fetchrow(PAGE, product_id, currency, base, now, OFFERS_SHOWN_MAX)
    if row is None:
        raise Refusal(Code.NOT_FOUND)
    live = await _live_sales(front, {offer["sale_id"] for offer in row["sales"]})
    view = View(currency, base, language_of(request), now_ms)
    return localized(request, _Page(row, live, view).body(), view.language)


async def _live_sales(front: Front, sale_ids: Iterable[str]) -> dict[str, LiveSale]:
    """The sales with their stock of at most 100 ms ago."""
    found = await asyncio.gather(*(_live_sale(front, sale_id) for sale_id in sale_ids))
    return {each[0].sale_id: each for each in found if each is not None}


async def _live_sale(front: Front, sale_id: str) -> LiveSale | None:
    sale = await front.engine.directory.get(sale_id)
    if sale is None:
        return None
    try:
        stock = await front.engine.live_stock.get(sale_id)
    except Unavailable:
        return sale, None
    return sale, stock if is_live(sale, stock) else None


class _Page:
    """A product's page in the making."""

    def __init__(self, row: Row, live: Mapping[str, LiveSale], view: View) -> None:
        self._row = row
        self._live = live
        self._view = view

    def body(self) -> ProductBody:
        row, language = self._row, self._view.language
        return ProductBody(
            product_id=row["product_id"],
            name=pick(row["name"], language),
            brand=row["brand"],
            description=pick(row["description"], language),
            category=[
                CategoryName(above["category_id"], pick(above["name"], language))
                for above in row["path"]
            ],
            images=row["images"],
            attributes=picked(row["attributes"], language),
            currency=self._view.currency,
            skus=[self._sku(sku) for sku in row["skus"]],
            rating=_rating(row["rating_count"] or 0, row["rating_sum"]),
            updated_at=time_text(int(row["updated_at"].timestamp()) * 1000),
        )

    def _sku(self, sku: dict[str, Any]) -> SkuBody:
        minor = price_minor(sku | {"rate": self._row["rate"]}, self._view.currency, self._view.base)
        return SkuBody(
            sku=sku["sku"],
            options=picked(sku["options"], self._view.language),
            weight_grams=sku["weight_grams"],
            price=None if minor is None else Money(minor, self._view.currency),
            available=sku["available"],
            sales=[
                self._offer(offer, *self._live[offer["sale_id"]])
                for offer in self._row["sales"]
                if offer["sku"] == sku["sku"] and offer["sale_id"] in self._live
            ],
        )

    def _offer(self, offer: dict[str, Any], sale: Sale, stock: StockSnapshot | None) -> SaleOffer:
        counters = stock.stock.get(offer["sku"]) if stock else None
        return SaleOffer(
            sale_id=sale.sale_id,
            name=pick(sale.name, self._view.language),
            state=sale.phase(self._view.now_ms, fenced_in_redis=stock is None).value,
            opens_at=time_text(sale.opens_at_ms),
            closes_at=time_text(sale.closes_at_ms),
            per_user_max=sale.per_user_max,
            price=Money(offer["amount_minor"], offer["currency"]),
            available=counters.available if counters else None,
        )


def _rating(count: int, stars: int | None) -> RatingBody:
    return RatingBody(round(stars / count, 2) if count and stars else None, count)


ROUTES: Final = (
    Route(
        "GET",
        "/v1/products/{product}",
        show_product,
        access=Access.VISITOR,
        spec=Spec(
            tag="Catalogue",
            summary="A product with its SKUs, prices, stock and sales",
            description="Prices that are not listed in `currency` are converted from the shop's own"
            " by the newest exchange rate. `available` of an SKU is what can be ordered outside of"
            " sales; each sale says its own. Stock of sales is at most 100 ms old.",
            answers={200: ProductBody, 304: None},
            query=PageQuery,
            headers=(ACCEPT_LANGUAGE, IF_NONE_MATCH),
            tells=TOLD,
            codes=(Code.NOT_FOUND,),
        ),
    ),
)
