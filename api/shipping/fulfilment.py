"""The calls of those who pack: what waits to be sent, and sending it."""

from typing import Final

import msgspec
from aiohttp import web

from api.answers import Answer, personal
from api.carriers.registry import known_carriers
from api.front import Front, order_ids
from api.language import language_of
from api.orders.lines import line_bodies, names_of
from api.orders.pages import LIMIT, After, Limit, PageEnd, page_end_decoder
from api.paging import cursor, cursor_text
from api.problems import Code, FieldError, Refusal, invalid
from api.queries import read_query
from api.reservations.decision import check_key
from api.routing import Route
from api.shipping.bodies import (
    MethodId,
    OperatorShipmentBody,
    QueueBody,
    SaleId,
    ShipmentWish,
    operator_shipment_body,
    queued_order,
)
from api.shipping.shipments import Shipment, Wish, request_shipment
from api.shipping.store import fetch_queue, method_exists, shipments_of
from api.spec import IDEMPOTENCY_KEY, Access, Spec
from engine.admission.limit import Priority
from engine.store.database import postgres_errors
from engine.store.resolutions import OrderKey

_wish_decoder: Final = msgspec.json.Decoder(ShipmentWish)


class QueueQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which part of the queue."""

    sale: SaleId | None = None
    method: MethodId | None = None
    limit: Limit = LIMIT
    after: After | None = None


class ShipmentsBody(msgspec.Struct, frozen=True):
    """All shipments of one order, oldest first."""

    shipments: list[OperatorShipmentBody]


async def show_queue(front: Front, request: web.Request) -> Answer:
    query = read_query(request, QueueQuery)
    end = cursor(request, page_end_decoder)
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            rows = await fetch_queue(
                connection,
                sale_id=query.sale,
                method_id=query.method,
                after=(end.reserved_at, end.reservation_id) if end else None,
                rows_max=query.limit,
            )
            names = await names_of(connection, ((row["sale_id"], row["items"]) for row in rows))
    language = language_of(request)
    orders = [
        queued_order(row, line_bodies(row["sale_id"], row["items"], names, language))
        for row in rows
    ]
    last = PageEnd(rows[-1]["reserved_at"], rows[-1]["reservation_id"]) if rows else None
    return personal(QueueBody(orders, cursor_text(last) if len(rows) == query.limit else None))


async def ask_for_shipment(front: Front, request: web.Request) -> Answer:
    """202: the carrier is asked by the worker, and the order is shipped once it has accepted."""
    actor = front.caller(request).user_id
    key = OrderKey(*order_ids(request, "order"))
    idempotency_key = check_key(request.headers.get("Idempotency-Key"))
    body = await front.bodies.optional_json(request, _wish_decoder, ShipmentWish())
    engine = front.engine
    carriers = frozenset(known_carriers(engine.settings, engine.clock))
    if body.carrier and body.carrier not in carriers:
        raise Refusal.of(invalid([FieldError("carrier", "there is no such carrier")]))
    address = None if body.address is None else msgspec.structs.asdict(body.address)
    wish = Wish(body.carrier, body.method_id, address, idempotency_key, actor, carriers)
    shipment, new = await _request(front, key, wish)
    return personal(operator_shipment_body(shipment), 202 if new else 200)


async def _request(front: Front, key: OrderKey, wish: Wish) -> tuple[Shipment, bool]:
    with postgres_errors():
        async with front.engine.pool.acquire() as connection, connection.transaction():
            if wish.method_id and not await method_exists(connection, wish.method_id):
                raise Refusal.of(invalid([FieldError("method_id", "there is no such method")]))
            return await request_shipment(connection, key, wish, front.engine.ids.new("shp"))


async def list_shipments(front: Front, request: web.Request) -> Answer:
    key = OrderKey(*order_ids(request, "order"))
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            found = await shipments_of(connection, key)
    return personal(ShipmentsBody([operator_shipment_body(shipment) for shipment in found]))


_KEY_REQUIRED: Final = IDEMPOTENCY_KEY._replace(required=True)

ROUTES = (
    Route(
        "GET",
        "/v1/admin/fulfilment",
        show_queue,
        access=Access.OPERATOR,
        spec=Spec(
            tag="Fulfilment",
            summary="Paid orders that wait to be sent, oldest first",
            description="Orders with a shipment under way, an open return or a refund under way "
            "are passed over.",
            answers={200: QueueBody},
            query=QueueQuery,
        ),
    ),
    Route(
        "POST",
        "/v1/admin/orders/{order}/shipments",
        ask_for_shipment,
        priority=Priority.PAYMENT,
        access=Access.OPERATOR,
        spec=Spec(
            tag="Fulfilment",
            summary="Send an order: one order is one parcel",
            description="What the body leaves out is as at the checkout. The carrier is asked by "
            "the worker; the order is `shipped` once it has accepted. Repeated with the same key, "
            "it is answered with the same shipment.",
            answers={202: OperatorShipmentBody, 200: OperatorShipmentBody},
            body=ShipmentWish,
            body_required=False,
            headers=(_KEY_REQUIRED,),
            codes=(
                Code.NOT_FOUND,
                Code.NOT_SHIPPABLE,
                Code.IDEMPOTENCY_MISMATCH,
                Code.BODY_TOO_LARGE,
            ),
        ),
    ),
    Route(
        "GET",
        "/v1/admin/orders/{order}/shipments",
        list_shipments,
        access=Access.SUPPORT,
        spec=Spec(
            tag="Fulfilment",
            summary="All shipments of an order, those included that came to nothing",
            answers={200: ShipmentsBody},
            codes=(Code.NOT_FOUND,),
        ),
    ),
)
