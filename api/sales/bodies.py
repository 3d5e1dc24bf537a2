"""What a sale looks like to buyers and to operators."""

import msgspec

from api.answers import time_text
from engine.inventory import StockSnapshot
from engine.model import Money, SaleState
from engine.sales import Sale, SaleItem


class ItemBody(msgspec.Struct, frozen=True):
    """One SKU, as buyers see it. `available` is null while nobody knows."""

    sku: str
    name: dict[str, str]
    price: Money
    stocked: int
    available: int | None


class SaleBody(msgspec.Struct, frozen=True):
    """A sale, as buyers see it."""

    sale_id: str
    name: dict[str, str]
    state: str
    opens_at: str
    closes_at: str
    server_time: str
    per_user_max: int
    reservation_seconds: int
    items: list[ItemBody]


class SalesBody(msgspec.Struct, frozen=True):
    """The newest sales."""

    sales: list[SaleBody]


class OperatorItemBody(ItemBody, frozen=True):
    """One SKU with all three counters of Redis."""

    reserved: int | None
    sold: int | None


class OperatorSaleBody(msgspec.Struct, frozen=True):
    """A sale, as operators see it."""

    sale_id: str
    name: dict[str, str]
    state: str
    opens_at: str
    closes_at: str
    server_time: str
    per_user_max: int
    reservation_seconds: int
    auto_capture: bool
    revision: int
    epoch: int
    launched: bool
    fenced: str | None
    items: list[OperatorItemBody]


class OperatorSalesBody(msgspec.Struct, frozen=True):
    """All sales."""

    sales: list[OperatorSaleBody]


def sale_body(sale: Sale, stock: StockSnapshot | None, now_ms: int) -> SaleBody:
    """`stock` is None while Redis does not answer."""
    live = stock if is_live(sale, stock) else None
    return SaleBody(
        sale_id=sale.sale_id,
        name=sale.name,
        state=sale.phase(now_ms, fenced_in_redis=live is None).value,
        opens_at=time_text(sale.opens_at_ms),
        closes_at=time_text(sale.closes_at_ms),
        server_time=time_text(now_ms),
        per_user_max=sale.per_user_max,
        reservation_seconds=sale.reservation_seconds,
        items=[_item_body(item, live) for item in sale.items],
    )


def operator_sale_body(sale: Sale, stock: StockSnapshot | None, now_ms: int) -> OperatorSaleBody:
    live = stock if is_live(sale, stock) else None
    return OperatorSaleBody(
        sale_id=sale.sale_id,
        name=sale.name,
        state=sale.phase(now_ms, fenced_in_redis=live is None).value,
        opens_at=time_text(sale.opens_at_ms),
        closes_at=time_text(sale.closes_at_ms),
        server_time=time_text(now_ms),
        per_user_max=sale.per_user_max,
        reservation_seconds=sale.reservation_seconds,
        auto_capture=sale.auto_capture,
        revision=sale.revision,
        epoch=sale.epoch,
        launched=sale.launched,
        fenced=sale.fenced,
        items=[_operator_item_body(item, live) for item in sale.items],
    )


def is_live(sale: Sale, stock: StockSnapshot | None) -> bool:
    """Whether Redis holds this very generation of the stock, unfenced."""
    return stock is not None and stock.epoch == sale.epoch and stock.state is not SaleState.DRAINING


def _item_body(item: SaleItem, stock: StockSnapshot | None) -> ItemBody:
    counters = stock.stock.get(item.sku) if stock else None
    return ItemBody(
        sku=item.sku,
        name=item.name,
        price=item.price,
        stocked=counters.stocked if counters else item.units,
        available=counters.available if counters else None,
    )


def _operator_item_body(item: SaleItem, stock: StockSnapshot | None) -> OperatorItemBody:
    shown = _item_body(item, stock)
    counters = stock.stock.get(item.sku) if stock else None
    return OperatorItemBody(
        sku=shown.sku,
        name=shown.name,
        price=shown.price,
        stocked=shown.stocked,
        available=shown.available,
        reserved=counters.reserved if counters else None,
        sold=counters.sold if counters else None,
    )
