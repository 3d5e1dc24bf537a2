"""The calls on orders. A buyer sees and cancels only that buyer's own."""

from datetime import datetime
from typing import Annotated, Final

import msgspec
from aiohttp import web

from api.answers import Answer, personal
from api.front import Front, order_ids
from api.orders.store import Order, OrderBook, order_body
from api.paging import cursor, cursor_text, page_size
from api.payments.handlers import refuse_undrained
from api.problems import Code, Refusal
from api.routing import Route
from api.spec import Access
from engine.admission.limit import Priority
from engine.model import RESERVATION_ID


class PageEnd(msgspec.Struct, frozen=True, array_like=True):
    """The last order of a page."""

    reserved_at: Annotated[datetime, msgspec.Meta(tz=True)]
    reservation_id: Annotated[str, msgspec.Meta(pattern=rf"^(?:{RESERVATION_ID.pattern})\Z")]


_end_decoder: Final = msgspec.json.Decoder(PageEnd)


async def list_orders(front: Front, request: web.Request) -> Answer:
    identity = front.caller(request)
    size = page_size(request)
    end = cursor(request, _end_decoder)
    before = (end.reserved_at, end.reservation_id) if end else None
    orders = await OrderBook(front.engine.pool).of_user(identity.user_id, size, before)
    page: dict[str, object] = {"orders": [order_body(order) for order in orders]}
    if len(orders) == size:
        page["next"] = cursor_text(PageEnd(orders[-1].reserved_at, orders[-1].reservation_id))
    return personal(page)


async def show_order(front: Front, request: web.Request) -> Answer:
    order = await own_order(front, request)
    return personal(await _detail(front, order))


async def cancel_order(front: Front, request: web.Request) -> Answer:
    identity = front.caller(request)
    sale_id, reservation_id = order_ids(request, "order")
    await front.bodies.none(request)
    await front.engine.orders.cancel(sale_id, reservation_id, identity.user_id)
    order = await OrderBook(front.engine.pool).find(sale_id, reservation_id)
    if order is None:
        raise Refusal(Code.NOT_FOUND)
    return personal(await _detail(front, order))


async def own_order(front: Front, request: web.Request) -> Order:
    """The order in the path, if it is the caller's own. Raises Refusal."""
    identity = front.caller(request)
    sale_id, reservation_id = order_ids(request, "order")
    order = await OrderBook(front.engine.pool).find(sale_id, reservation_id)
    if order is None:
        await refuse_undrained(front, identity, sale_id, reservation_id)
    if order is None or order.user_id != identity.user_id:
        raise Refusal(Code.NOT_FOUND)
    return order


async def _detail(front: Front, order: Order) -> object:
    return order_body(order, await OrderBook(front.engine.pool).payments_of(order))


ROUTES = (
    Route("GET", "/v1/orders", list_orders, priority=Priority.PAYMENT, access=Access.CALLER),
    Route("GET", "/v1/orders/{order}", show_order, priority=Priority.PAYMENT, access=Access.CALLER),
    Route(
        "POST",
        "/v1/orders/{order}/cancel",
        cancel_order,
        priority=Priority.PAYMENT,
        access=Access.CALLER,
    ),
)
