"""Moves orders on their way to the buyer and notes what else happens to them.

What changes stock or money is `engine.store.resolutions`; what may follow what, the database says.
"""

from collections.abc import Mapping
from typing import NamedTuple

from engine.model import OrderStatus
from engine.store.database import Connection
from engine.store.resolutions import OrderKey, find_order


class Standing(NamedTuple):
    """How an order stands while it is locked."""

    user_id: str
    status: str
    refund_under_way: bool


async def lock_standing(connection: Connection, key: OrderKey) -> Standing | None:
    """Locks the order until the transaction ends; None if there is none.

    Whoever asks for a refund holds the order, too, and changes its payments only. So they are read by
    a statement of its own: one that has waited for the lock still sees them as they were before.
    """
    order = await find_order(connection, key)
    if order is None:
        return None
    refund_under_way = await connection.fetchval("SELECT refund_under_way($1, $2)", *key)
    return Standing(order["user_id"], order["status"], refund_under_way)


async def move_order(
    connection: Connection, key: OrderKey, origin: OrderStatus, target: OrderStatus
) -> bool:
    """False if it is not where it should come from. The order must be locked."""
    moved = await connection.fetchval(
        """
        UPDATE orders SET status = $4, updated_at = now()
        WHERE sale_id = $1 AND reservation_id = $2 AND status = $3 RETURNING true
        """,
        *key,
        origin,
        target,
    )
    return bool(moved)


async def note_event(
    connection: Connection,
    key: OrderKey,
    kind: str,
    user_id: str,
    data: Mapping[str, object],
) -> None:
    """A line of the order's timeline, and of what other systems are told: in the transaction of
    what it tells of."""
    await connection.execute(
        """
        INSERT INTO events (type, sale_id, reservation_id, user_id, data)
        VALUES ($3, $1, $2, $4, $5)
        """,
        *key,
        kind,
        user_id,
        data,
    )
