"""What orders look like in lists and in full, to their buyers and to support."""

from datetime import datetime
from typing import Annotated, Any

import msgspec

from api.moments import Moment, check_moments
from api.orders.lines import LineBody
from api.orders.pages import LIMIT, After, Limit
from api.orders.store import Order, OrderBody, order_body
from api.orders.timeline import TimelineEntry
from api.returns.bodies import ReturnBody
from api.shipping.bodies import SaleId, ShipmentBody
from engine.model import USER_ID, OrderStatus

STATUSES_MAX = len(OrderStatus)


class TermsBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """On which terms a cart became the order: the quote as it was told, and where it goes."""

    quote: dict[str, Any]
    language: str
    address: dict[str, Any] | None = None
    shipping_method: str | None = None


class OrderSummary(OrderBody, frozen=True, omit_defaults=True, kw_only=True):
    """An order in a list. `lines` are its items by name, in the language asked for."""

    lines: list[LineBody]


class OrderDetail(OrderSummary, frozen=True, omit_defaults=True, kw_only=True):
    """An order in full. No terms: it was bought in a sale without a cart."""

    timeline: list[TimelineEntry]
    shipments: list[ShipmentBody]
    returns: list[ReturnBody]
    terms: TermsBody | None = None


class SupportOrder(OrderSummary, frozen=True, omit_defaults=True, kw_only=True):
    """An order in a list of everybody's."""

    user_id: str


class SupportDetail(OrderDetail, frozen=True, omit_defaults=True, kw_only=True):
    """An order in full, with whose it is."""

    user_id: str


class OrdersBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """A page of one's own orders, newest first."""

    orders: list[OrderSummary]
    next: str | None = None


class SupportOrdersBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """A page of everybody's orders, newest first."""

    orders: list[SupportOrder]
    next: str | None = None


class Filters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which orders: in any of these statuses, of a sale (`shop`: outside of sales), ordered within."""

    status: Annotated[list[OrderStatus], msgspec.Meta(max_length=STATUSES_MAX)] | None = None
    sale: SaleId | None = None
    from_: Moment | None = msgspec.field(default=None, name="from")
    to: Moment | None = None
    limit: Limit = LIMIT
    after: After | None = None

    def __post_init__(self) -> None:
        check_moments(self.from_, self.to)


class OrdersQuery(Filters, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`q`: a part of a SKU that is in the order."""

    q: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None


class SupportQuery(Filters, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`user`: whose. Without it and without `from`, the orders of the last seven days."""

    user: Annotated[str, msgspec.Meta(pattern=rf"^(?:{USER_ID.pattern})\Z")] | None = None


class Selection(msgspec.Struct, frozen=True):
    """Orders to find, newest first. `before`: the time and id of the one above them."""

    rows_max: int
    user_id: str | None = None
    statuses: list[str] | None = None
    sale_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    sku_part: str | None = None
    before: tuple[datetime, str] | None = None


def summary_fields(order: Order) -> dict[str, Any]:
    """What every form of an order says of it, by field."""
    body = order_body(order)
    return {name: getattr(body, name) for name in OrderBody.__struct_fields__}
