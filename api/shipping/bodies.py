"""What shipping looks like to buyers and to operators, and what they may say of it."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec

from api.answers import time_text
from api.orders.lines import LineBody
from api.shipping.shipments import Shipment
from engine.model import SALE_ID, Money, public_id
from engine.sales.sale import epoch_ms

METHOD_ID: Final = r"^[a-z0-9](?:[a-z0-9-]{0,46}[a-z0-9])?\Z"
MethodId = Annotated[str, msgspec.Meta(pattern=METHOD_ID)]
SaleId = Annotated[str, msgspec.Meta(pattern=rf"^(?:{SALE_ID.pattern})\Z")]
Country = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{2}\Z")]
Currency = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z")]
CarrierName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_-]{1,32}\Z")]
Line = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]{1,100}\Z")]
OptionalLine = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]{0,100}\Z")]


class ShipTo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a parcel goes, for orders that were bought without an address or moved since."""

    name: Line
    phone: Line
    country: Country
    city: Line
    street: Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]{1,300}\Z")]
    region: OptionalLine = ""
    postal_code: OptionalLine = ""


class ShipmentWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body that asks for a shipment; what it leaves out is as at the checkout."""

    carrier: CarrierName | None = None
    method_id: MethodId | None = None
    address: ShipTo | None = None


class TrackingBody(msgspec.Struct, frozen=True):
    """One thing that happened to a parcel."""

    state: str
    label: str
    place: str
    at: str


class ShipmentBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """A shipment, as the buyer sees it."""

    shipment_id: str
    order_id: str
    carrier: str
    state: str
    created_at: str
    method_id: str | None = None
    tracking_number: str | None = None
    tracking: list[TrackingBody] = []


class OperatorShipmentBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """A shipment, as operators see it. `detail`: what the carrier said last that was not good."""

    shipment_id: str
    order_id: str
    carrier: str
    state: str
    created_at: str
    requested_by: str
    address: dict[str, Any]
    weight_grams: int
    attempts: int
    method_id: str | None = None
    tracking_number: str | None = None
    detail: str | None = None


class QueuedOrder(msgspec.Struct, frozen=True, omit_defaults=True):
    """A paid order that waits to be sent. No address: it was bought without one."""

    order_id: str
    sale_id: str
    user_id: str
    lines: list[LineBody]
    amount: Money
    created_at: str
    method_id: str | None = None
    address: dict[str, Any] | None = None


class QueueBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """A page of the fulfilment queue."""

    orders: list[QueuedOrder]
    next: str | None = None


def operator_shipment_body(shipment: Shipment) -> OperatorShipmentBody:
    return OperatorShipmentBody(
        shipment_id=shipment.shipment_id,
        order_id=public_id(*shipment.key),
        carrier=shipment.carrier,
        state=shipment.state,
        created_at=time_text(epoch_ms(shipment.created_at)),
        requested_by=shipment.requested_by,
        address=shipment.address,
        weight_grams=shipment.weight_grams,
        attempts=shipment.attempts,
        method_id=shipment.method_id,
        tracking_number=shipment.tracking_number,
        detail=shipment.detail,
    )


def queued_order(row: Mapping[str, Any], lines: list[LineBody]) -> QueuedOrder:
    return QueuedOrder(
        order_id=public_id(row["sale_id"], row["reservation_id"]),
        sale_id=row["sale_id"],
        user_id=row["user_id"],
        lines=lines,
        amount=Money(row["amount_minor"], row["currency"]),
        created_at=time_text(epoch_ms(row["reserved_at"])),
        method_id=row["method_id"],
        address=row["address"],
    )
