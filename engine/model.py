"""The words of the engine: reservations, orders, outcomes and what may follow what.

Pure values. Leaves every decision about storage and transport to others.
"""

import re
from enum import StrEnum
from typing import Final

import msgspec

import ext

ITEMS_MAX: Final = 20  # Distinct SKUs in one reservation: a cart, not a warehouse.
QUANTITY_MAX: Final = 10_000  # Units of one SKU in one request: more is a typing error.
UNITS_MAX: Final = 1_000_000_000  # Units of one SKU in one sale; Lua counts exactly to 2^53.
RESERVATIONS_PER_BUYER_MAX: Final = 16  # Released ones included; bounds a buyer's record.
IDEMPOTENCY_KEY_MAX: Final = 128

SHOP: Final = "shop"  # In place of a sale id: what is sold outside of sales. See 0008_shop.sql.
SALE_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,46}[a-z0-9])?")
SKU = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,63})")
USER_ID = re.compile(
    r"[!-~]{1,128}"
)  # Printable ASCII: foreign `sub` claims look like many things.
RESERVATION_ID = re.compile(r"[A-Za-z0-9_-]{20}")

# Of (sale_id, user_id, idempotency_key): the same three always give the same id, so a retry is the
# same reservation. The first 120 bits of BLAKE2b (RFC 7693), in base64 without padding.
make_reservation_id: Final = ext.make_reservation_id


class Outcome(StrEnum):
    """The engine's answer to a reserve. The words are those of reserve.lua."""

    RESERVED = "RESERVED"
    DUPLICATE = "DUPLICATE"
    MISMATCH = "MISMATCH"
    SOLD_OUT = "SOLD_OUT"
    ALL_RESERVED = "ALL_RESERVED"
    LIMIT_REACHED = "LIMIT_REACHED"
    NOT_STARTED = "NOT_STARTED"
    ENDED = "ENDED"
    PAUSED = "PAUSED"
    UNKNOWN_SKU = "UNKNOWN_SKU"
    STALE_EPOCH = "STALE_EPOCH"
    TICKET_REQUIRED = "TICKET_REQUIRED"
    TICKET_USED = "TICKET_USED"


class ReservationState(StrEnum):
    """A reservation is reserved, then resolved once."""

    RESERVED = "reserved"
    CONFIRMED = "confirmed"
    RELEASED = "released"
    EXPIRED = "expired"


class OrderStatus(StrEnum):
    """The life of an order in Postgres."""

    AWAITING_PAYMENT = "awaiting_payment"
    PAID = "paid"
    SHIPPED = "shipped"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REFUNDED = "refunded"


# What may follow what. The trigger in 0001_engine.sql refuses the rest; a test holds both together.
ORDER_TRANSITIONS: Final[dict[OrderStatus, frozenset[OrderStatus]]] = {
    OrderStatus.AWAITING_PAYMENT: frozenset(
        {OrderStatus.PAID, OrderStatus.CANCELLED, OrderStatus.EXPIRED}
    ),
    OrderStatus.PAID: frozenset({OrderStatus.SHIPPED, OrderStatus.REFUNDED}),
    OrderStatus.SHIPPED: frozenset({OrderStatus.DELIVERED, OrderStatus.REFUNDED}),
    OrderStatus.DELIVERED: frozenset({OrderStatus.REFUNDED}),
    OrderStatus.CANCELLED: frozenset(),
    # A capture that comes after expiry takes the units again if some are left.
    OrderStatus.EXPIRED: frozenset({OrderStatus.PAID}),
    OrderStatus.REFUNDED: frozenset(),
}

# What an order's status means for the stock in Redis.
STATE_OF_ORDER: Final[dict[OrderStatus, ReservationState]] = {
    OrderStatus.AWAITING_PAYMENT: ReservationState.RESERVED,
    OrderStatus.PAID: ReservationState.CONFIRMED,
    OrderStatus.SHIPPED: ReservationState.CONFIRMED,
    OrderStatus.DELIVERED: ReservationState.CONFIRMED,
    OrderStatus.CANCELLED: ReservationState.RELEASED,
    OrderStatus.EXPIRED: ReservationState.EXPIRED,
    OrderStatus.REFUNDED: ReservationState.RELEASED,
}


class SaleState(StrEnum):
    """Whether a sale lets buyers in. Its window decides within OPEN."""

    OPEN = "open"
    PAUSED = "paused"
    CLOSED = "closed"
    DRAINING = "draining"  # Fenced: the stock is being rebuilt.


class PaymentStatus(StrEnum):
    """The life of a payment. Higher up the page never follows lower down."""

    CREATED = "created"  # Recorded here; the provider may not know of it yet.
    PENDING = "pending"  # The provider has it.
    FAILED = "failed"
    CAPTURED = "captured"
    REFUNDING = "refunding"
    REFUNDED = "refunded"


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Some units of one SKU."""

    sku: str
    quantity: int


Items = tuple[Item, ...]


class Money(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An amount in the currency's smallest unit. `currency` is ISO 4217, as in CNY."""

    amount_minor: int
    currency: str


class ReserveRequest(msgspec.Struct, frozen=True):
    """One buyer's wish, already validated. `items_text` is canonical (see `items_to_text`)."""

    user_id: str
    reservation_id: str
    items_text: str


class Reserved(msgspec.Struct, frozen=True):
    """Units are held. `replayed` says that an earlier request held them."""

    reservation_id: str
    state: ReservationState
    reserved_until_ms: int
    replayed: bool


class Refused(msgspec.Struct, frozen=True):
    """Nothing is held, and why."""

    outcome: Outcome


class Reservation(msgspec.Struct, frozen=True):
    """One line of a buyer's record."""

    reservation_id: str
    state: ReservationState
    reserved_until_ms: int
    items_text: str


def public_id(sale_id: str, reservation_id: str) -> str:
    """What clients see as reservation id and as order id: `<sale>.<reservation>`."""
    return f"{sale_id}.{reservation_id}"


def parse_public_id(text: str) -> tuple[str, str] | None:
    """(sale_id, reservation_id), or None if the text is no such id."""
    sale_id, dot, reservation_id = text.partition(".")
    if dot and SALE_ID.fullmatch(sale_id) and RESERVATION_ID.fullmatch(reservation_id):
        return sale_id, reservation_id
    return None


def items_to_text(items: Items) -> str:
    """Canonical text of items, sorted by SKU: `phone-black*1,phone-white*2`."""
    if len(items) == 1:
        return f"{items[0].sku}*{items[0].quantity}"
    return ",".join(f"{item.sku}*{item.quantity}" for item in sorted(items, key=lambda i: i.sku))


def items_from_text(text: str) -> Items:
    """The inverse of `items_to_text`."""
    pairs = (part.split("*") for part in text.split(","))
    return tuple(Item(sku, int(quantity)) for sku, quantity in pairs)
