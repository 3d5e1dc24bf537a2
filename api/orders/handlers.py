"""The calls on orders. A buyer sees and cancels only that buyer's own."""

from aiohttp import web

from api.answers import Answer, personal
from api.front import Front, order_ids
from api.language import language_of
from api.orders.bodies import (
    Filters,
    OrderDetail,
    OrdersBody,
    OrdersQuery,
    OrderSummary,
    Selection,
    summary_fields,
)
from api.orders.detail import order_detail
from api.orders.history import find_orders
from api.orders.lines import line_bodies, names_of
from api.orders.pages import PageEnd, page_end_decoder
from api.orders.store import Order, OrderBook
from api.paging import cursor, cursor_text
from api.payments.undrained import order_on_its_way
from api.problems import Code, Refusal
from api.queries import read_query
from api.routing import Route
from api.spec import Access, Spec
from engine.admission.limit import Priority
from engine.store.database import postgres_errors


async def list_orders(front: Front, request: web.Request) -> Answer:
    query = read_query(request, OrdersQuery)
    end = cursor(request, page_end_decoder)
    wanted = selection(query, end, user_id=front.caller(request).user_id, sku_part=query.q)
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            orders = await find_orders(connection, wanted)
            names = await names_of(connection, ((each.sale_id, each.items) for each in orders))
    language = language_of(request)
    summaries = [
        OrderSummary(
            **summary_fields(order),
            lines=line_bodies(order.sale_id, order.items, names, language),
        )
        for order in orders
    ]
    return personal(OrdersBody(summaries, next_page(orders, query.limit)))


async def show_order(front: Front, request: web.Request) -> Answer:
    order = await own_order(front, request)
    return personal(await _detail(front, request, order))


async def cancel_order(front: Front, request: web.Request) -> Answer:
    identity = front.caller(request)
    sale_id, reservation_id = order_ids(request, "order")
    await front.bodies.none(request)
    await front.engine.orders.cancel(sale_id, reservation_id, identity.user_id)
    order = await OrderBook(front.engine.pool).find(sale_id, reservation_id)
    if order is None:
        raise Refusal(Code.NOT_FOUND)
    return personal(await _detail(front, request, order))


async def own_order(front: Front, request: web.Request) -> Order:
    """The order in the path, if it is the caller's own. Raises Refusal."""
    identity = front.caller(request)
    sale_id, reservation_id = order_ids(request, "order")
    order = await OrderBook(front.engine.pool).find(sale_id, reservation_id)
    if order is None:
        order = await order_on_its_way(front, request, sale_id, reservation_id)
    if order is None or order.user_id != identity.user_id:
        raise Refusal(Code.NOT_FOUND)
    return order


async def _detail(front: Front, request: web.Request, order: Order) -> OrderDetail:
    payments = await OrderBook(front.engine.pool).payments_of(order)
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            return await order_detail(connection, order, payments, language_of(request))


def selection(
    query: Filters, end: PageEnd | None, *, user_id: str | None, sku_part: str | None = None
) -> Selection:
    """What a query asks for, from the page's end before it on."""
    return Selection(
        rows_max=query.limit,
        user_id=user_id,
        statuses=None if query.status is None else [status.value for status in query.status],
        sale_id=query.sale,
        since=query.from_,
        until=query.to,
        sku_part=sku_part,
        before=(end.reserved_at, end.reservation_id) if end else None,
    )


def next_page(orders: list[Order], size: int) -> str | None:
    """Where the next page begins; None if this one is not full."""
    if len(orders) < size:
        return None
    return cursor_text(PageEnd(orders[-1].reserved_at, orders[-1].reservation_id))


ROUTES = (
    Route(
        "GET",
        "/v1/orders",
        list_orders,
        priority=Priority.PAYMENT,
        access=Access.CALLER,
        spec=Spec(
            tag="Orders",
            summary="One's own orders, newest first",
            answers={200: OrdersBody},
            query=OrdersQuery,
        ),
    ),
    Route(
        "GET",
        "/v1/orders/{order}",
        show_order,
        priority=Priority.PAYMENT,
        access=Access.CALLER,
        spec=Spec(
            tag="Orders",
            summary="One order in full: payments, timeline, shipments, returns, terms",
            description="`unavailable` while the order of a fresh reservation is being stored.",
            answers={200: OrderDetail},
            codes=(Code.NOT_FOUND,),
        ),
    ),
    Route(
        "POST",
        "/v1/orders/{order}/cancel",
        cancel_order,
        priority=Priority.PAYMENT,
        access=Access.CALLER,
        spec=Spec(
            tag="Orders",
            summary="Cancel an order that is not paid",
            description="Cancelling again changes nothing. What is paid and not shipped is refunded "
            "with POST /v1/payments/{payment}/refunds; what is shipped comes back as a return.",
            answers={200: OrderDetail},
            codes=(Code.NOT_FOUND, Code.UNKNOWN_SALE, Code.NOT_CANCELLABLE, Code.BODY_TOO_LARGE),
        ),
    ),
)
