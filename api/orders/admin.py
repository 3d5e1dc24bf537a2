"""The calls of support: everybody's orders, read, and cancelled on behalf of their buyers."""

from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg
import msgspec
from aiohttp import web

from api.answers import Answer, personal
from api.front import Front, order_ids
from api.language import language_of
from api.orders.bodies import (
    SupportDetail,
    SupportOrder,
    SupportOrdersBody,
    SupportQuery,
    summary_fields,
)
from api.orders.detail import support_detail
from api.orders.handlers import next_page, selection
from api.orders.history import find_orders
from api.orders.lines import line_bodies, names_of
from api.orders.pages import page_end_decoder
from api.orders.store import OrderBook
from api.paging import cursor
from api.problems import Code, Refusal
from api.queries import read_query
from api.routing import Route
from api.spec import Access, Spec
from engine.admission.limit import Priority
from engine.errors import Conflict, Unavailable
from engine.model import OrderStatus, public_id
from engine.store.database import Connection, postgres_errors
from engine.store.resolutions import CANCEL, OrderKey, find_order, resolve
from engine.store.sales import log_audit

RECENT: Final = timedelta(days=7)  # Where nobody says whose or since when.
BY_SUPPORT: Final = "by_support"


async def list_all_orders(front: Front, request: web.Request) -> Answer:
    query = read_query(request, SupportQuery)
    wanted = selection(query, cursor(request, page_end_decoder), user_id=query.user)
    if wanted.user_id is None and wanted.since is None:
        now = datetime.fromtimestamp(front.engine.clock.now_ms() / 1000, UTC)
        wanted = msgspec.structs.replace(wanted, since=now - RECENT)
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            orders = await find_orders(connection, wanted)
            names = await names_of(connection, ((each.sale_id, each.items) for each in orders))
    language = language_of(request)
    summaries = [
        SupportOrder(
            **summary_fields(order),
            lines=line_bodies(order.sale_id, order.items, names, language),
            user_id=order.user_id,
        )
        for order in orders
    ]
    return personal(SupportOrdersBody(summaries, next_page(orders, query.limit)))


async def show_any_order(front: Front, request: web.Request) -> Answer:
    return personal(await _detail(front, request, OrderKey(*order_ids(request, "order"))))


async def cancel_for_buyer(front: Front, request: web.Request) -> Answer:
    await front.bodies.none(request)
    key = OrderKey(*order_ids(request, "order"))
    actor = front.caller(request).user_id
    try:
        with postgres_errors():
            async with front.engine.pool.acquire() as connection, connection.transaction():
                await _cancel(connection, key, actor)
    except asyncpg.DeadlockDetectedError:
        raise Unavailable("The order is changing; ask again.") from None
    return personal(await _detail(front, request, key))


async def _cancel(connection: Connection, key: OrderKey, actor: str) -> None:
    """Gives the units back, once, with the audit. Redis follows by the outbox."""
    order = await find_order(connection, key)
    if order is None:
        raise Refusal(Code.NOT_FOUND)
    if order["status"] == OrderStatus.CANCELLED:
        return
    if not await resolve(connection, CANCEL, [key], BY_SUPPORT):
        raise Conflict("not_cancellable", f"The order is {order['status']}.")
    await log_audit(
        connection,
        actor=actor,
        action="cancel_order",
        sale_id=key.sale_id,
        detail={"order_id": public_id(*key), "user_id": order["user_id"]},
    )


async def _detail(front: Front, request: web.Request, key: OrderKey) -> SupportDetail:
    book = OrderBook(front.engine.pool)
    order = await book.find(*key)
    if order is None:
        raise Refusal(Code.NOT_FOUND)
    payments = await book.payments_of(order)
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            return await support_detail(connection, order, payments, language_of(request))


ROUTES = (
    Route(
        "GET",
        "/v1/admin/orders",
        list_all_orders,
        access=Access.SUPPORT,
        spec=Spec(
            tag="Orders",
            summary="Everybody's orders, newest first",
            description="Without `user` and without `from`: those of the last seven days.",
            answers={200: SupportOrdersBody},
            query=SupportQuery,
        ),
    ),
    Route(
        "GET",
        "/v1/admin/orders/{order}",
        show_any_order,
        access=Access.SUPPORT,
        spec=Spec(
            tag="Orders",
            summary="Anybody's order in full",
            answers={200: SupportDetail},
            codes=(Code.NOT_FOUND,),
        ),
    ),
    Route(
        "POST",
        "/v1/admin/orders/{order}/cancel",
        cancel_for_buyer,
        priority=Priority.PAYMENT,
        access=Access.SUPPORT,
        spec=Spec(
            tag="Orders",
            summary="Cancel an unpaid order on behalf of its buyer",
            answers={200: SupportDetail},
            codes=(Code.NOT_FOUND, Code.NOT_CANCELLABLE, Code.BODY_TOO_LARGE),
        ),
    ),
)
