"""Stores returns. Everybody who changes one locks its order first. Asks for no refund: see `refunds`."""

from datetime import datetime
from typing import Final

from api.orders.moves import Standing, lock_standing, note_event
from api.returns.bodies import Return, ReturnState
from api.returns.mails import mail_decision
from engine.errors import Conflict, UnknownReservation
from engine.model import OrderStatus, public_id
from engine.store.database import Connection
from engine.store.resolutions import OrderKey
from engine.store.sales import log_audit

COLUMNS: Final = ", ".join(Return.__struct_fields__)
OPEN: Final = (ReturnState.REQUESTED, ReturnState.APPROVED, ReturnState.RECEIVED)
RETURNS_MAX: Final = 20  # Of one order, shown.
REQUESTS_MAX: Final = 5  # Of one order: who was rejected so often needs a person.


async def request_return(
    connection: Connection,
    key: OrderKey,
    *,
    user_id: str,
    return_id: str,
    reason: str,
    text: str,
    within_days: int,
) -> Return:
    """Belongs into a transaction. Raises UnknownReservation, Conflict `not_returnable`."""
    order = await lock_standing(connection, key)
    if order is None or order.user_id != user_id:
        raise UnknownReservation("There is no such order.")
    await _check_returnable(connection, key, order, within_days)
    row = await connection.fetchrow(
        f"""
        INSERT INTO returns (return_id, sale_id, reservation_id, user_id, reason, text)
        VALUES ($1, $2, $3, $4, $5, $6) RETURNING {COLUMNS}
        """,  # noqa: S608  # a constant list of columns
        return_id,
        *key,
        user_id,
        reason,
        text,
    )
    made = Return(**row)
    await _note(connection, made, "return.requested", {"reason": reason})
    return made


async def _check_returnable(
    connection: Connection, key: OrderKey, order: Standing, within_days: int
) -> None:
    if order.status not in {OrderStatus.SHIPPED, OrderStatus.DELIVERED}:
        raise Conflict("not_returnable", f"The order is {order.status}.")
    if order.refund_under_way:
        raise Conflict("not_returnable", "The order is being refunded.")
    if order.status == OrderStatus.DELIVERED and await _is_late(connection, key, within_days):
        raise Conflict("not_returnable", f"It was delivered more than {within_days} days ago.")
    earlier = await returns_of(connection, key)
    if any(found.state in OPEN for found in earlier):
        raise Conflict("not_returnable", "A return of this order is open already.")
    if len(earlier) >= REQUESTS_MAX:
        raise Conflict("not_returnable", "A return of this order was rejected too often.")


async def _is_late(connection: Connection, key: OrderKey, within_days: int) -> bool:
    """Counted from when the order was delivered."""
    return bool(
        await connection.fetchval(
            """
            SELECT coalesce(
                (SELECT max(at) FROM events WHERE sale_id = $1 AND reservation_id = $2
                 AND type = 'order.delivered'),
                updated_at) < now() - make_interval(days => $3)
            FROM orders WHERE sale_id = $1 AND reservation_id = $2
            """,
            *key,
            within_days,
        )
    )


async def decide(
    connection: Connection, return_id: str, state: ReturnState, *, actor: str, text: str
) -> Return:
    """Requested → approved or rejected; saying the same again changes nothing.

    Belongs into a transaction. Raises UnknownReservation, Conflict.
    """
    found = await lock_return(connection, return_id)
    if found.state == state:
        return found
    if found.state != ReturnState.REQUESTED:
        raise Conflict("conflict", f"The return is {found.state}.")
    row = await connection.fetchrow(
        f"""
        UPDATE returns SET state = $2, decision = $3, decided_by = $4, decided_at = now()
        WHERE return_id = $1 RETURNING {COLUMNS}
        """,  # noqa: S608
        return_id,
        state,
        text or None,
        actor,
    )
    decided = Return(**row)
    await _note(connection, decided, "return.decided", {"state": state})
    await mail_decision(connection, decided)
    await _audit(
        connection, decided, actor, "approve_return" if state == "approved" else "reject_return"
    )
    return decided


async def receive(connection: Connection, return_id: str, *, actor: str) -> Return:
    """Approved → received: from here on the refund is asked for until it is asked for.

    Again, it changes nothing. Belongs into a transaction. Raises UnknownReservation, Conflict.
    """
    found = await lock_return(connection, return_id)
    if found.state in {ReturnState.RECEIVED, ReturnState.REFUNDED}:
        return found
    if found.state != ReturnState.APPROVED:
        raise Conflict("conflict", f"The return is {found.state}.")
    row = await connection.fetchrow(
        f"""
        UPDATE returns SET state = 'received', received_at = now()
        WHERE return_id = $1 RETURNING {COLUMNS}
        """,  # noqa: S608
        return_id,
    )
    received = Return(**row)
    await _note(connection, received, "return.received", {})
    await _audit(connection, received, actor, "receive_return")
    return received


async def lock_return(connection: Connection, return_id: str) -> Return:
    """Its order is locked until the transaction ends, so it stands still. Raises UnknownReservation."""
    await connection.execute(
        """
        SELECT FROM orders WHERE (sale_id, reservation_id) IN (
            SELECT sale_id, reservation_id FROM returns WHERE return_id = $1)
        FOR NO KEY UPDATE
        """,
        return_id,
    )
    found = await find_return(connection, return_id)
    if found is None:
        raise UnknownReservation("There is no such return.")
    return found


async def find_return(connection: Connection, return_id: str) -> Return | None:
    row = await connection.fetchrow(
        f"SELECT {COLUMNS} FROM returns WHERE return_id = $1",  # noqa: S608
        return_id,
    )
    return Return(**row) if row else None


async def returns_of(connection: Connection, key: OrderKey) -> list[Return]:
    """All returns of an order, oldest first."""
    rows = await connection.fetch(
        f"""
        SELECT {COLUMNS} FROM returns WHERE sale_id = $1 AND reservation_id = $2
        ORDER BY requested_at, return_id LIMIT $3
        """,  # noqa: S608
        *key,
        RETURNS_MAX,
    )
    return [Return(**row) for row in rows]


async def fetch_returns(
    connection: Connection,
    *,
    state: str | None,
    after: tuple[datetime, str] | None,
    rows_max: int,
) -> list[Return]:
    """Oldest first, from the one after `after` (its time and id) on."""
    after_at, after_id = after or (None, "")
    rows = await connection.fetch(
        f"""
        SELECT {COLUMNS} FROM returns
        WHERE ($1::text IS NULL OR state = $1)
          AND ($2::timestamptz IS NULL OR (requested_at, return_id) > ($2, $3))
        ORDER BY requested_at, return_id LIMIT $4
        """,  # noqa: S608
        state,
        after_at,
        after_id,
        rows_max,
    )
    return [Return(**row) for row in rows]


async def _note(connection: Connection, found: Return, kind: str, data: dict[str, object]) -> None:
    key = OrderKey(found.sale_id, found.reservation_id)
    await note_event(connection, key, kind, found.user_id, {"return_id": found.return_id, **data})


async def _audit(connection: Connection, found: Return, actor: str, action: str) -> None:
    await log_audit(
        connection,
        actor=actor,
        action=action,
        sale_id=found.sale_id,
        detail={
            "return_id": found.return_id,
            "order_id": public_id(found.sale_id, found.reservation_id),
        },
    )
