"""Resolves orders in Postgres: pay, cancel, expire, refund, rereserve. Knows nothing of Redis.

The row decides the winner: whoever locks it first while its status still allows the move.
Callers hold a transaction; Redis follows through the outbox rows written in it.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from typing import Final, NamedTuple

import asyncpg

from engine.model import OrderStatus
from engine.store.database import Connection
from engine.store.orders import is_oversold

RESOLVE_ORDERS: Final = (files("engine.store") / "statements" / "resolve_orders.sql").read_text()


class OrderKey(NamedTuple):
    """Names one order."""

    sale_id: str
    reservation_id: str


class Resolved(NamedTuple):
    """An order that moved."""

    sale_id: str
    reservation_id: str
    user_id: str

    @property
    def key(self) -> OrderKey:
        return OrderKey(self.sale_id, self.reservation_id)


class Resolution(NamedTuple):
    """One kind of move: what it does to the order, to the counters and to Redis."""

    origins: tuple[OrderStatus, ...]
    target: OrderStatus
    ordered: int  # sign of the change of `ordered`
    sold: int  # sign of the change of `sold`
    ledger_reason: str
    outbox_kind: str | None
    outbox_reason: str | None = None


PAY: Final = Resolution((OrderStatus.AWAITING_PAYMENT,), OrderStatus.PAID, 0, 1, "paid", "confirm")
CANCEL: Final = Resolution(
    (OrderStatus.AWAITING_PAYMENT,),
    OrderStatus.CANCELLED,
    -1,
    0,
    "cancelled",
    "release",
    "released",
)
EXPIRE: Final = Resolution(
    (OrderStatus.AWAITING_PAYMENT,), OrderStatus.EXPIRED, -1, 0, "expired", "release", "expired"
)
REFUND: Final = Resolution(
    (OrderStatus.PAID, OrderStatus.SHIPPED, OrderStatus.DELIVERED),
    OrderStatus.REFUNDED,
    -1,
    -1,
    "refunded",
    "release",
    "refunded",
)
# Redis took the units first (rereserve.lua), so there is nothing left to tell it.
RERESERVE: Final = Resolution((OrderStatus.EXPIRED,), OrderStatus.PAID, 1, 1, "rereserved", None)


async def resolve(
    connection: Connection,
    resolution: Resolution,
    orders: Iterable[OrderKey],
    reason: str | None = None,
) -> list[Resolved]:
    """Moves those orders whose status still allows it; returns them. One atomic step.

    Belongs into a transaction that has locked the orders (`lock_orders`).
    """
    keys = list(orders)
    if not keys:
        return []
    rows = await connection.fetch(
        RESOLVE_ORDERS,
        [key.sale_id for key in keys],
        [key.reservation_id for key in keys],
        list(resolution.origins),
        resolution.target,
        reason,
        resolution.ordered,
        resolution.sold,
        resolution.ledger_reason,
        resolution.outbox_kind,
        resolution.outbox_reason,
    )
    return [Resolved(*row) for row in rows]


async def rereserve(connection: Connection, order: OrderKey) -> bool:
    """Expired → paid, or False if it is not expired or Postgres has no units left for it."""
    try:
        async with connection.transaction():
            return bool(await resolve(connection, RERESERVE, [order], "paid_late"))
    except asyncpg.CheckViolationError as error:
        if not is_oversold(error):
            raise
        return False


async def hold_epoch(connection: Connection, sale_id: str, epoch: int) -> bool:
    """Keeps a sale from being fenced until the transaction ends; False if its stock is another now.

    To be asked after the orders are locked and before anything is resolved: so go the locks
    everywhere, orders, then sales, then SKUs.
    """
    held = await connection.fetchval(
        """
        SELECT true FROM sales WHERE sale_id = $1 AND epoch = $2 AND fenced IS NULL FOR SHARE
        """,
        sale_id,
        epoch,
    )
    return bool(held)


async def lock_units(connection: Connection, orders: Sequence[OrderKey]) -> None:
    """Locks the counters of all SKUs of these orders, in the order in which everybody does.

    For a transaction that resolves more than once: each resolution locks its own SKUs in that order,
    but two of them one after the other would not.
    """
    await connection.execute(
        """
        SELECT FROM sale_items WHERE (sale_id, sku) IN (
            SELECT sale_id, jsonb_object_keys(items) FROM orders
            JOIN unnest($1::text[], $2::text[]) AS wanted(sale_id, reservation_id)
                USING (sale_id, reservation_id))
        ORDER BY sale_id, sku FOR UPDATE
        """,
        [key.sale_id for key in orders],
        [key.reservation_id for key in orders],
    )


async def lock_orders(connection: Connection, orders: Sequence[OrderKey]) -> None:
    """Waits for these orders and keeps them until the transaction ends.

    Always in the same order, so that two batches never wait for each other in a circle.
    """
    await connection.execute(
        """
        SELECT FROM orders
        JOIN unnest($1::text[], $2::text[]) AS wanted(sale_id, reservation_id)
            USING (sale_id, reservation_id)
        ORDER BY sale_id, reservation_id FOR NO KEY UPDATE OF orders
        """,
        [key.sale_id for key in orders],
        [key.reservation_id for key in orders],
    )


async def find_order(connection: Connection, order: OrderKey) -> asyncpg.Record | None:
    """Owner and status, locked until the transaction ends."""
    return await connection.fetchrow(
        """
        SELECT user_id, status FROM orders
        WHERE sale_id = $1 AND reservation_id = $2 FOR NO KEY UPDATE
        """,
        *order,
    )


async def add_cancelled(
    connection: Connection,
    order: OrderKey,
    *,
    user_id: str,
    items: Mapping[str, int],
    amount_minor: int,
    currency: str,
    reason: str,
    reserved_at: datetime,
    reserved_until: datetime,
) -> bool:
    """Stores a reservation that was never drained as a cancelled order, with its release.

    It never counted as ordered, so no counter changes. False if the order is stored already.
    """
    row = await connection.fetchrow(
        """
        WITH added AS (
            INSERT INTO orders (sale_id, reservation_id, user_id, items, amount_minor, currency,
                                status, status_reason, reserved_at, reserved_until)
            SELECT $1, $2, $3, $4, coalesce(terms.amount_minor, $5), coalesce(terms.currency, $6),
                   'cancelled', $7, $8, $9
            FROM (VALUES ($1, $2)) AS ended(sale_id, reservation_id)
            LEFT JOIN checkouts terms USING (sale_id, reservation_id)
            ON CONFLICT DO NOTHING RETURNING sale_id, reservation_id, user_id
        )
        INSERT INTO outbox (kind, sale_id, reference, user_id, reason)
        SELECT 'release', sale_id, reservation_id, user_id, 'released' FROM added
        RETURNING reference
        """,
        *order,
        user_id,
        items,
        amount_minor,
        currency,
        reason,
        reserved_at,
        reserved_until,
    )
    return row is not None


async def lock_overdue(
    connection: Connection, now: datetime, *, count: int, grace_seconds: float
) -> list[OrderKey]:
    """Orders past their deadline, oldest first, locked; those in others' hands are passed over.

    One with an open payment is left alone until the provider was asked after the deadline, or
    until `grace_seconds` after it.
    """
    rows = await connection.fetch(
        """
        SELECT sale_id, reservation_id FROM orders
        WHERE status = 'awaiting_payment' AND reserved_until <= $1
          AND (reserved_until <= $1 - make_interval(secs => $3) OR NOT EXISTS (
              SELECT FROM payments
              WHERE payments.sale_id = orders.sale_id
                AND payments.reservation_id = orders.reservation_id
                AND payments.status IN ('created', 'pending')
                AND payments.updated_at < orders.reserved_until))
        ORDER BY reserved_until LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
        """,
        now,
        count,
        grace_seconds,
    )
    return [OrderKey(*row) for row in rows]
