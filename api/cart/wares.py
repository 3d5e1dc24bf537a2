"""What the SKUs in a cart are, cost and have in stock at this moment, in sales and outside of them.

Outside of sales the catalogue says it; in a sale the sale does, and the catalogue adds what it knows.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec

from api.cart.store import CartLine
from api.catalogue.offers import Offer, offers
from engine.core import Engine
from engine.errors import Unavailable
from engine.model import SHOP, Money
from engine.sales import Sale
from engine.sales.sale import SalePhase
from engine.store.database import Connection

Key = tuple[str, str]  # (sale_id or 'shop', sku)


class LineState(StrEnum):
    """Whether a line can be bought as it stands, and if not, why."""

    OK = "ok"
    PRICE_CHANGED = "price_changed"  # since it was chosen; it can be bought at the price of now
    QUANTITY_SHORT = "quantity_short"  # fewer are available
    SOLD_OUT = "sold_out"  # none are
    UNAVAILABLE = "unavailable"  # it is not sold any more
    NO_PRICE = "no_price"  # in this currency
    SALE_NOT_STARTED = "sale_not_started"
    SALE_PAUSED = "sale_paused"
    SALE_ENDED = "sale_ended"


BUYABLE = frozenset({LineState.OK, LineState.PRICE_CHANGED})
# In the subtotal: what a buyer who waits for a sale is going to pay is no secret.
COUNTED = BUYABLE | {LineState.SALE_NOT_STARTED, LineState.SALE_PAUSED}

_PHASES = {
    SalePhase.SCHEDULED: LineState.SALE_NOT_STARTED,
    SalePhase.PAUSED: LineState.SALE_PAUSED,
    SalePhase.RECOVERING: LineState.SALE_PAUSED,
    SalePhase.ENDED: LineState.SALE_ENDED,
    SalePhase.CLOSED: LineState.SALE_ENDED,
}


class Ware(msgspec.Struct, frozen=True):
    """One SKU where it is sold. `bar` is why nobody can buy it now, whatever the stock."""

    sku: str
    name: dict[str, str]
    price: Money | None
    available: int | None  # None: the counters could not be read.
    bar: LineState | None = None
    product_id: str = ""
    options: dict[str, object] = {}
    category_path: tuple[str, ...] = ()
    weight_grams: int = 0
    image: str | None = None

    def state_of(self, line: CartLine) -> LineState:
        """Of so many units, chosen at that price."""
        if self.bar is not None:
            return self.bar
        if self.price is None:
            return LineState.NO_PRICE
        if self.available is not None and self.available < line.quantity:
            return LineState.QUANTITY_SHORT if self.available > 0 else LineState.SOLD_OUT
        chosen = (line.price_minor, line.currency)
        same_currency = line.currency == self.price.currency
        if same_currency and chosen != (self.price.amount_minor, self.price.currency):
            return LineState.PRICE_CHANGED
        return LineState.OK


async def offers_of(
    engine: Engine, connection: Connection, keys: Iterable[Key], currency: str
) -> dict[str, Offer]:
    """What the catalogue says of these SKUs."""
    skus = sorted({sku for _, sku in keys})
    base = engine.settings.currency_default
    return await offers(connection, skus, currency, base=base) if skus else {}


async def wares(
    engine: Engine, keys: Iterable[Key], known: Mapping[str, Offer], currency: str
) -> dict[Key, Ware]:
    """By key; what does not exist (any more) is left out. A sale's wares are in its own currency.

    `known` are the offers in `currency`. To be called without a connection in hand: sales that are
    not remembered are read with one.
    """
    wanted = set(keys)
    found = {
        (SHOP, sku): _ordinary(known[sku], currency)
        for sale_id, sku in wanted
        if sale_id == SHOP and sku in known
    }
    for sale_id in {sale_id for sale_id, _ in wanted if sale_id != SHOP}:
        skus = {sku for of, sku in wanted if of == sale_id}
        found |= await _wares_of_sale(engine, sale_id, skus, known)
    return found


async def _wares_of_sale(
    engine: Engine, sale_id: str, skus: set[str], known: Mapping[str, Offer]
) -> dict[Key, Ware]:
    sale = await engine.directory.get(sale_id)
    if sale is None:
        return {}
    available = await _available(engine, sale_id)
    bar = _PHASES.get(sale.phase(engine.clock.now_ms()))
    return {
        (sale_id, item.sku): _on_sale(sale, item.sku, available.get(item.sku), bar, known)
        for item in sale.items
        if item.sku in skus
    }


async def _available(engine: Engine, sale_id: str) -> dict[str, int]:
    try:
        stock = await engine.live_stock.get(sale_id)
    except Unavailable:
        return {}  # The engine decides at checkout; until then nothing is promised.
    return {sku: counters.available for sku, counters in stock.stock.items()}


def _ordinary(offer: Offer, currency: str) -> Ware:
    price = offer.unit_price_minor
    return Ware(
        sku=offer.sku,
        name=offer.name,
        price=None if price is None else Money(price, currency),
        available=offer.available,
        bar=None if offer.active else LineState.UNAVAILABLE,
        product_id=offer.product_id,
        options=offer.options,
        category_path=offer.category_path,
        weight_grams=offer.weight_grams,
        image=offer.image,
    )


def _on_sale(
    sale: Sale,
    sku: str,
    available: int | None,
    bar: LineState | None,
    known: Mapping[str, Offer],
) -> Ware:
    item = next(item for item in sale.items if item.sku == sku)
    offer = known.get(sku)
    ware = Ware(sku=sku, name=item.name, price=item.price, available=available, bar=bar)
    if offer is None:
        return msgspec.structs.replace(ware, product_id=sku)
    return msgspec.structs.replace(
        ware,
        product_id=offer.product_id,
        options=offer.options,
        category_path=offer.category_path,
        weight_grams=offer.weight_grams,
        image=offer.image,
    )
