"""Gathers all there is to tell of one order: payments, timeline, shipments, returns, terms."""

from collections.abc import Mapping
from typing import Any

from api.answers import time_text
from api.orders.bodies import OrderDetail, SupportDetail, TermsBody, summary_fields
from api.orders.lines import line_bodies, names_of
from api.orders.store import Order, PaymentRow, payment_body
from api.orders.timeline import label_of, timeline_of
from api.returns.bodies import return_body
from api.returns.store import returns_of
from api.shipping.bodies import ShipmentBody, TrackingBody
from api.shipping.shipments import Shipment
from api.shipping.store import shipments_of, tracking_of
from engine.model import public_id
from engine.sales.sale import epoch_ms
from engine.store.database import Connection
from engine.store.resolutions import OrderKey


async def order_detail(
    connection: Connection, order: Order, payments: list[PaymentRow], language: str
) -> OrderDetail:
    return OrderDetail(**await _fields(connection, order, payments, language))


async def support_detail(
    connection: Connection, order: Order, payments: list[PaymentRow], language: str
) -> SupportDetail:
    fields = await _fields(connection, order, payments, language)
    return SupportDetail(**fields, user_id=order.user_id)


async def _fields(
    connection: Connection, order: Order, payments: list[PaymentRow], language: str
) -> dict[str, Any]:
    key = OrderKey(order.sale_id, order.reservation_id)
    names = await names_of(connection, [(order.sale_id, order.items)])
    return {
        **summary_fields(order),
        "payments": [payment_body(row) for row in payments],
        "lines": line_bodies(order.sale_id, order.items, names, language),
        "timeline": await timeline_of(connection, order, language),
        "shipments": await _shipments(connection, key, language),
        "returns": [return_body(each) for each in await returns_of(connection, key)],
        "terms": await _terms(connection, key),
    }


async def _shipments(connection: Connection, key: OrderKey, language: str) -> list[ShipmentBody]:
    shipments = await shipments_of(connection, key)
    tracking = await tracking_of(connection, key) if shipments else []
    return [
        _shipment(each, [row for row in tracking if _is_of(row, each)], language)
        for each in shipments
    ]


async def _terms(connection: Connection, key: OrderKey) -> TermsBody | None:
    row = await connection.fetchrow(
        """
        SELECT quote, language, address, shipping_method FROM checkouts
        WHERE sale_id = $1 AND reservation_id = $2 AND state <> 'dropped'
        """,
        *key,
    )
    return TermsBody(**row) if row else None


def _is_of(row: Mapping[str, Any], shipment: Shipment) -> bool:
    return bool(row["shipment_id"] == shipment.shipment_id)


def _shipment(shipment: Shipment, tracking: list[Mapping[str, Any]], language: str) -> ShipmentBody:
    return ShipmentBody(
        shipment_id=shipment.shipment_id,
        order_id=public_id(*shipment.key),
        carrier=shipment.carrier,
        state=shipment.state,
        created_at=time_text(epoch_ms(shipment.created_at)),
        method_id=shipment.method_id,
        tracking_number=shipment.tracking_number,
        tracking=[_tracking(row, language) for row in tracking],
    )


def _tracking(row: Mapping[str, Any], language: str) -> TrackingBody:
    return TrackingBody(
        state=row["state"],
        label=label_of("shipment.moved", row, language),
        place=row["place"],
        at=time_text(epoch_ms(row["happened_at"])),
    )
