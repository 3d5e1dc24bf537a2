"""Keeps checkouts: the terms on which a cart becomes an order, and how far it got.

started → placed, or → dropped with what was redeemed given back; a dropped one may start again.
"""

from datetime import datetime, timedelta
from importlib.resources import files
from typing import Any, Final

import msgspec

from api.cart.store import CartLine
from api.promotions.store import give_back
from engine.store.database import Connection

_SQL: Final = files("api.cart") / "sql"
_START: Final = (_SQL / "start_checkout.sql").read_text()
STARTED: Final = "started"
PLACED: Final = "placed"
DROPPED: Final = "dropped"


class Checkout(msgspec.Struct, frozen=True):
    """One, as it is kept."""

    sale_id: str
    reservation_id: str
    user_id: str
    idempotency_key: str
    request_hash: bytes
    amount_minor: int
    currency: str
    quote: dict[str, Any]
    address: dict[str, Any] | None
    shipping_method: str | None
    language: str | None
    redeems: bool
    state: str

    @property
    def lines(self) -> list[CartLine]:
        """As they stood in the cart, at the prices that were told."""
        return [
            CartLine(
                self.sale_id,
                line["sku"],
                line["quantity"],
                line["unit_price_minor"],
                self.currency,
            )
            for line in self.quote["lines"]
        ]

    @property
    def units(self) -> dict[str, int]:
        """What it takes, by SKU."""
        return {line["sku"]: line["quantity"] for line in self.quote["lines"]}


_COLUMNS: Final = ", ".join(Checkout.__struct_fields__)


async def find_checkout(connection: Connection, user_id: str, key: str) -> Checkout | None:
    """The one that a buyer began with this key."""
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM checkouts WHERE user_id = $1 AND idempotency_key = $2",  # noqa: S608
        user_id,
        key,
    )
    return Checkout(**dict(row)) if row else None


async def start_checkout(connection: Connection, checkout: Checkout) -> bool:
    """Writes it down; False if there is one with this key that was not dropped."""
    row = await connection.fetchval(_START, *msgspec.structs.astuple(checkout))
    return row is not None


async def place_checkout(connection: Connection, sale_id: str, reservation_id: str) -> bool:
    """Started → placed, told as `checkout.placed`; False if it was not started (any more)."""
    row = await connection.fetchrow(
        """
        WITH placed AS (
            UPDATE checkouts SET state = 'placed'
            WHERE sale_id = $1 AND reservation_id = $2 AND state = 'started'
            RETURNING sale_id, reservation_id, user_id, amount_minor, currency
        )
        INSERT INTO events (type, sale_id, reservation_id, user_id, data)
        SELECT 'checkout.placed', sale_id, reservation_id, user_id,
               jsonb_build_object('amount_minor', amount_minor, 'currency', currency)
        FROM placed RETURNING event_id
        """,
        sale_id,
        reservation_id,
    )
    return row is not None


async def drop_checkout(connection: Connection, sale_id: str, reservation_id: str) -> bool:
    """Started → dropped, with what it redeemed given back; False if it was not started (any more)."""
    dropped = await connection.fetchval(
        "UPDATE checkouts SET state = 'dropped'"
        " WHERE sale_id = $1 AND reservation_id = $2 AND state = 'started' RETURNING true",
        sale_id,
        reservation_id,
    )
    if dropped:
        await give_back(connection, sale_id, reservation_id)
    return bool(dropped)


async def stale_checkouts(
    connection: Connection, now: datetime, *, seconds: float, count: int
) -> list[Checkout]:
    """Those that were started so long ago and got no further, oldest first. While a sale is rebuilt
    nothing is known of its own, and they keep nobody else's waiting."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM checkouts"  # noqa: S608
        " WHERE state = 'started' AND created_at < $1 AND sale_id NOT IN"
        " (SELECT sale_id FROM sales WHERE fenced IS NOT NULL) ORDER BY created_at LIMIT $2",
        now - timedelta(seconds=seconds),
        count,
    )
    return [Checkout(**dict(row)) for row in rows]
