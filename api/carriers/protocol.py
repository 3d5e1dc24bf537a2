"""What the shop asks of a carrier. Knows no carrier in particular."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Protocol

import msgspec

from api.moments import Moment, check_moments
from engine.errors import DoorbusterError, Unavailable


class CarrierUnavailable(Unavailable):
    """A carrier did not answer. The parcel may or may not be known to it."""


class CarrierRefused(DoorbusterError):
    """The carrier understood the request and will not do it; repeating it will not help."""


class EventRefused(DoorbusterError):
    """A tracking event is forged, stale or unreadable. Nothing was stored."""


class ParcelState(StrEnum):
    """Where a parcel is, as carriers tell it. What is lower on the page comes later."""

    PICKED_UP = "picked_up"
    IN_TRANSIT = "in_transit"
    OUT_FOR_DELIVERY = "out_for_delivery"
    DELIVERED = "delivered"


class Parcel(msgspec.Struct, frozen=True):
    """What is to be carried. The shipment id makes it idempotent at the carrier."""

    shipment_id: str
    order_id: str
    address: dict[str, Any]
    weight_grams: int


class Label(msgspec.Struct, frozen=True):
    """What goes on the parcel."""

    tracking_number: Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,64}\Z")]


Word = Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,128}\Z")]


class TrackingEvent(msgspec.Struct, frozen=True):
    """One thing that happened to a parcel. Its id is the carrier's, the same at every telling."""

    event_id: Word
    shipment_id: Word
    tracking_number: Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,64}\Z")]
    state: ParcelState
    happened_at: Moment
    place: Annotated[str, msgspec.Meta(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*\Z")] = ""

    def __post_init__(self) -> None:
        check_moments(self.happened_at)


class Carrier(Protocol):
    """One carrier.

    Calls are idempotent by shipment id and may be repeated after CarrierUnavailable, which leaves
    the outcome unknown. CarrierRefused is final.
    """

    @property
    def name(self) -> str:
        """As in `/v1/carriers/<name>/events` and in `shipments.carrier`."""

    async def create(self, parcel: Parcel) -> Label:
        """Takes the parcel on."""

    async def track(self, shipment_id: str) -> list[TrackingEvent]:
        """All that happened to it so far; nothing where there is no such parcel."""

    async def cancel(self, shipment_id: str) -> bool:
        """After True no parcel of that id is ever carried, one not created yet included.

        False: it is too late, the carrier has it.
        """

    def parse_webhook(self, headers: Mapping[str, str], body: bytes, now_ms: int) -> TrackingEvent:
        """Verifies the raw bytes. Raises EventRefused."""
