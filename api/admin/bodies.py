"""What operators send and get that is no sale, as types. The engine reads sale documents itself."""

from datetime import datetime
from typing import Annotated

import msgspec

from api.admin.audit import AuditEntry
from api.paging import PageQuery
from api.reservations.decision import SkuText
from engine.admission.room.settings import RoomChanges
from engine.model import QUANTITY_MAX, SALE_ID, UNITS_MAX
from engine.sales.document import (
    CURRENCY,
    LANGUAGE,
    LANGUAGES_MAX,
    NAME_CHARACTERS_MAX,
    PRICE_MINOR_MAX,
    RESERVATION_SECONDS_MAX,
    SKUS_MAX,
)

SaleId = Annotated[str, msgspec.Meta(pattern=rf"^(?:{SALE_ID.pattern})$")]
Names = Annotated[
    dict[
        Annotated[str, msgspec.Meta(pattern=rf"^(?:{LANGUAGE.pattern})$")],
        Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_CHARACTERS_MAX)],
    ],
    msgspec.Meta(
        min_length=1, max_length=LANGUAGES_MAX, examples=[{"en": "Phone, black", "zh-CN": "手机"}]
    ),
]


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The price of one unit, tax included."""

    amount_minor: Annotated[int, msgspec.Meta(ge=0, le=PRICE_MINOR_MAX)]
    currency: Annotated[str, msgspec.Meta(pattern=rf"^{CURRENCY.pattern}$")]


class NewSaleItem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One SKU of a sale: `units` are put up in all. One currency for the whole sale."""

    sku: SkuText
    name: Names
    units: Annotated[int, msgspec.Meta(ge=1, le=UNITS_MAX)]
    price: Price


class NewSale(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sale document. `room` describes its waiting room: a room that is described is on."""

    sale_id: SaleId
    name: Names
    opens_at: Annotated[datetime, msgspec.Meta(tz=True)]
    closes_at: Annotated[datetime, msgspec.Meta(tz=True)]
    per_user_max: Annotated[int, msgspec.Meta(ge=1, le=QUANTITY_MAX)]
    reservation_seconds: Annotated[int, msgspec.Meta(ge=1, le=RESERVATION_SECONDS_MAX)]
    items: Annotated[tuple[NewSaleItem, ...], msgspec.Meta(min_length=1, max_length=SKUS_MAX)]
    auto_capture: bool = False
    room: RoomChanges | None = None


class AuditQuery(PageQuery, frozen=True, forbid_unknown_fields=True):
    """A page of the audit log."""

    sale: SaleId | None = None


class AuditPage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Newest first; `next` where there is more."""

    entries: list[AuditEntry]
    next: str | None = None
