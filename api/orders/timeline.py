"""What happened to an order, in words for its buyer. Events that mean nothing to a buyer are left out."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from api.answers import time_text
from api.language import pick
from api.orders.store import Order
from engine.sales.sale import epoch_ms
from engine.store.database import Connection

EVENTS_MAX: Final = 200  # Of one order: retries of payments are the most of them.
STATED: Final = frozenset({"shipment.moved", "return.decided"})  # Whose state makes the difference.

_CREATED: Final = "order.created"
_LABELS: Final[dict[str, dict[str, str]]] = {
    "order.created": {"en": "Ordered", "zh-CN": "已下单"},
    "order.paid": {"en": "Paid", "zh-CN": "已付款"},
    "order.shipped": {"en": "Shipped", "zh-CN": "已发货"},
    "order.delivered": {"en": "Delivered", "zh-CN": "已签收"},
    "order.cancelled": {"en": "Cancelled", "zh-CN": "已取消"},
    "order.expired": {"en": "Not paid in time", "zh-CN": "超时未付款"},
    "order.refunded": {"en": "Refunded", "zh-CN": "已退款"},
    "payment.failed": {"en": "The payment failed", "zh-CN": "付款失败"},
    "payment.captured": {"en": "The payment was received", "zh-CN": "付款已收到"},
    "payment.refunding": {"en": "The refund is under way", "zh-CN": "退款处理中"},
    "payment.refunded": {"en": "The payment was refunded", "zh-CN": "款项已退回"},
    "shipment.created": {"en": "The carrier expects the parcel", "zh-CN": "已通知快递取件"},
    "shipment.cancelled": {"en": "The shipment was cancelled", "zh-CN": "发货已取消"},
    "shipment.moved picked_up": {"en": "The carrier has the parcel", "zh-CN": "快递已揽收"},
    "shipment.moved in_transit": {"en": "The parcel is on its way", "zh-CN": "运输中"},
    "shipment.moved out_for_delivery": {"en": "Out for delivery", "zh-CN": "派送中"},
    "shipment.moved delivered": {"en": "The parcel was delivered", "zh-CN": "包裹已送达"},
    "return.requested": {"en": "You asked to return it", "zh-CN": "已申请退货"},
    "return.decided approved": {"en": "The return was approved", "zh-CN": "退货申请已通过"},
    "return.decided rejected": {"en": "The return was refused", "zh-CN": "退货申请未通过"},
    "return.received": {"en": "The returned goods arrived", "zh-CN": "退货已收到"},
    "return.refunded": {"en": "The return was refunded", "zh-CN": "退货已退款"},
}


class TimelineEntry(msgspec.Struct, frozen=True):
    """One thing that happened. `label` is in the language asked for."""

    type: str
    label: str
    at: str


async def timeline_of(connection: Connection, order: Order, language: str) -> list[TimelineEntry]:
    """Oldest first, from its making on."""
    rows = await connection.fetch(
        """
        SELECT type, data, at FROM events
        -- That it was made is told by the order itself; the event is there only if others want it.
        WHERE sale_id = $1 AND reservation_id = $2 AND type <> 'order.created'
        ORDER BY event_id LIMIT $3
        """,
        order.sale_id,
        order.reservation_id,
        EVENTS_MAX,
    )
    made = TimelineEntry(
        _CREATED, label_of(_CREATED, {}, language), time_text(epoch_ms(order.reserved_at))
    )
    return [made, *(entry for row in rows if (entry := _entry(row, language)) is not None)]


def label_of(kind: str, data: Mapping[str, Any], language: str) -> str:
    """Empty for what buyers are not told."""
    name = f"{kind} {data.get('state', '')}" if kind in STATED else kind
    return pick(_LABELS.get(name, {}), language)


def _entry(row: Mapping[str, Any], language: str) -> TimelineEntry | None:
    label = label_of(row["type"], row["data"], language)
    return TimelineEntry(row["type"], label, time_text(epoch_ms(row["at"]))) if label else None
