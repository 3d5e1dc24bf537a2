"""Stores shipments: the wish for one, what the carrier made of it, and what became of the order.

Whole orders only: one order is one parcel. Everybody locks the order first, then its shipment.
Asks no carrier; that is `shipper`.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from api.carriers.protocol import Parcel
from api.orders.moves import Standing, lock_standing, move_order, note_event
from engine.errors import Conflict, UnknownReservation
from engine.model import OrderStatus, public_id
from engine.store.database import Connection
from engine.store.resolutions import OrderKey
from engine.store.sales import log_audit


class ShipmentState(StrEnum):
    """The life of a shipment. What is lower on the page, down to delivered, comes later."""

    REQUESTED = "requested"  # Wished for; the carrier is asked by the worker.
    CREATED = "created"  # The carrier took it on: the order is shipped.
    PICKED_UP = "picked_up"
    IN_TRANSIT = "in_transit"
    OUT_FOR_DELIVERY = "out_for_delivery"
    DELIVERED = "delivered"
    REFUSED = "refused"  # The carrier will not: the order waits to be shipped otherwise.
    CANCELLED = "cancelled"  # The order was refunded before the parcel left.


class Shipment(msgspec.Struct, frozen=True):
    """A shipment, as Postgres keeps it."""

    shipment_id: str
    sale_id: str
    reservation_id: str
    idempotency_key: str
    carrier: str
    method_id: str | None
    address: dict[str, Any]
    weight_grams: int
    state: str
    cancel_wanted: bool
    tracking_number: str | None
    detail: str | None
    requested_by: str
    attempts: int
    created_at: datetime

    @property
    def key(self) -> OrderKey:
        return OrderKey(self.sale_id, self.reservation_id)

    @property
    def parcel(self) -> Parcel:
        order_id = public_id(self.sale_id, self.reservation_id)
        return Parcel(self.shipment_id, order_id, self.address, self.weight_grams)


COLUMNS: Final = ", ".join(Shipment.__struct_fields__)


class Wish(msgspec.Struct, frozen=True):
    """What an operator asks for. No method or address: as in the order's checkout."""

    carrier: str | None
    method_id: str | None
    address: dict[str, Any] | None
    idempotency_key: str
    actor: str
    carriers: frozenset[str]  # that there are


async def request_shipment(
    connection: Connection, key: OrderKey, wish: Wish, shipment_id: str
) -> tuple[Shipment, bool]:
    """(the shipment, whether it is new). Belongs into a transaction.

    Raises UnknownReservation, Conflict `not_shippable` or `idempotency_mismatch`.
    """
    order = await lock_standing(connection, key)
    if order is None:
        raise UnknownReservation("There is no such order.")
    earlier = await _find_by_key(connection, key, wish.idempotency_key)
    if earlier is not None:
        return _replay(earlier, wish), False
    if order.status != OrderStatus.PAID or order.refund_under_way:
        refunding = " and is being refunded" if order.refund_under_way else ""
        raise Conflict("not_shippable", f"The order is {order.status}{refunding}.")
    if live := await _live(connection, key):
        raise Conflict("not_shippable", f"Shipment {live} is under way.")
    shipment = await _add(connection, key, wish, shipment_id)
    await log_audit(
        connection,
        actor=wish.actor,
        action="request_shipment",
        sale_id=key.sale_id,
        detail={"order_id": public_id(*key), "shipment_id": shipment_id},
    )
    return shipment, True


async def _find_by_key(connection: Connection, key: OrderKey, text: str) -> Shipment | None:
    row = await connection.fetchrow(
        f"""
        SELECT {COLUMNS} FROM shipments
        WHERE sale_id = $1 AND reservation_id = $2 AND idempotency_key = $3
        """,  # noqa: S608
        *key,
        text,
    )
    return Shipment(**row) if row else None


def _replay(earlier: Shipment, wish: Wish) -> Shipment:
    """What the wish leaves to the checkout cannot differ from what it said then."""
    said = (
        (wish.carrier, earlier.carrier),
        (wish.method_id, earlier.method_id),
        (wish.address, earlier.address),
    )
    if any(now is not None and now != then for now, then in said):
        raise Conflict("idempotency_mismatch", "The key was used for another shipment.")
    return earlier


async def _live(connection: Connection, key: OrderKey) -> str | None:
    found: str | None = await connection.fetchval(
        """
        SELECT shipment_id FROM shipments
        WHERE sale_id = $1 AND reservation_id = $2 AND state NOT IN ('refused', 'cancelled')
        """,
        *key,
    )
    return found


async def _add(connection: Connection, key: OrderKey, wish: Wish, shipment_id: str) -> Shipment:
    terms = await _terms(connection, key)
    method_id = wish.method_id or terms["method_id"]
    address = wish.address or terms["address"]
    carrier = wish.carrier or await connection.fetchval(
        "SELECT carrier FROM shipping_methods WHERE method_id = $1", method_id
    )
    if address is None:
        raise Conflict("not_shippable", "The order was bought without an address: give one.")
    if carrier is None:
        raise Conflict("not_shippable", "The order names no shipping method: give a carrier.")
    if carrier not in wish.carriers:
        raise Conflict("not_shippable", f"There is no carrier {carrier}: give another.")
    row = await connection.fetchrow(
        f"""
        INSERT INTO shipments (shipment_id, sale_id, reservation_id, idempotency_key, carrier,
                               method_id, address, weight_grams, requested_by)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING {COLUMNS}
        """,  # noqa: S608
        shipment_id,
        *key,
        wish.idempotency_key,
        carrier,
        method_id,
        address,
        terms["weight_grams"],
        wish.actor,
    )
    return Shipment(**row)


async def _terms(connection: Connection, key: OrderKey) -> Any:
    """Where the order goes, how, and what it weighs; SKUs outside of the catalogue weigh nothing."""
    return await connection.fetchrow(
        """
        SELECT c.address, c.shipping_method AS method_id, (
            SELECT coalesce(sum(item.value::bigint * skus.weight_grams), 0)::bigint
            FROM jsonb_each_text(o.items) AS item JOIN skus ON skus.sku = item.key) AS weight_grams
        FROM orders o LEFT JOIN checkouts c USING (sale_id, reservation_id)
        WHERE sale_id = $1 AND reservation_id = $2
        """,
        *key,
    )


async def take_to_ask(
    connection: Connection, *, count: int, lease_seconds: float
) -> list[tuple[Shipment, bool]]:
    """Leases those of which the carrier is to be asked something, the longest due first, each with
    whether its order may still be shipped."""
    rows = await connection.fetch(
        f"""
        WITH taken AS (
            UPDATE shipments SET due_at = now() + make_interval(secs => $2), attempts = attempts + 1
            WHERE shipment_id = ANY (ARRAY(
                SELECT shipment_id FROM shipments
                WHERE (state = 'requested' OR cancel_wanted) AND due_at <= now()
                ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED))
            RETURNING {COLUMNS}
        )
        SELECT taken.*, status = 'paid' AND NOT refund_under_way(sale_id, reservation_id) AS shippable
        FROM taken JOIN orders USING (sale_id, reservation_id)
        """,  # noqa: S608
        count,
        lease_seconds,
    )
    return [(_read(row), row["shippable"]) for row in rows]


async def take_unheard(
    connection: Connection, *, after_seconds: float, count: int
) -> list[tuple[str, str]]:
    """(shipment_id, carrier) of parcels under way of which nothing was heard for so long. They count
    as heard of, so that the others have their turn."""
    rows = await connection.fetch(
        """
        UPDATE shipments SET heard_at = now()
        WHERE shipment_id = ANY (ARRAY(
            SELECT shipment_id FROM shipments
            WHERE state IN ('created', 'picked_up', 'in_transit', 'out_for_delivery')
              AND heard_at < now() - make_interval(secs => $1)
            ORDER BY heard_at LIMIT $2 FOR UPDATE SKIP LOCKED))
        RETURNING shipment_id, carrier
        """,
        after_seconds,
        count,
    )
    return [(row["shipment_id"], row["carrier"]) for row in rows]


async def lock_shipment(
    connection: Connection, key: OrderKey, shipment_id: str
) -> tuple[Standing, Shipment]:
    """(its order, the shipment), both locked until the transaction ends, in that order."""
    order = await lock_standing(connection, key)
    assert order is not None, key
    row = await connection.fetchrow(
        f"SELECT {COLUMNS} FROM shipments WHERE shipment_id = $1 FOR UPDATE",  # noqa: S608
        shipment_id,
    )
    return order, Shipment(**row)


async def accept(connection: Connection, shipment: Shipment, tracking_number: str) -> None:
    """The carrier took it on. An order that is refunded meanwhile does not leave: it is cancelled."""
    order, now = await lock_shipment(connection, shipment.key, shipment.shipment_id)
    await connection.execute(
        "UPDATE shipments SET tracking_number = $2, detail = NULL WHERE shipment_id = $1",
        shipment.shipment_id,
        tracking_number,
    )
    if now.state != ShipmentState.REQUESTED:
        return  # Its events were faster than this answer.
    if now.cancel_wanted or order.refund_under_way or order.status != OrderStatus.PAID:
        await connection.execute(
            "UPDATE shipments SET cancel_wanted = true, due_at = now() WHERE shipment_id = $1",
            shipment.shipment_id,
        )
        return
    await start(connection, msgspec.structs.replace(now, tracking_number=tracking_number), order)


async def start(connection: Connection, shipment: Shipment, order: Standing) -> None:
    """Requested → created, and the order is shipped. Both are locked."""
    await connection.execute(
        """
        UPDATE shipments SET state = 'created', cancel_wanted = false, heard_at = now()
        WHERE shipment_id = $1
        """,
        shipment.shipment_id,
    )
    if not await move_order(connection, shipment.key, OrderStatus.PAID, OrderStatus.SHIPPED):
        return  # Refunded: it leaves all the same, because the carrier has it.
    await _note(connection, shipment, "shipment.created", order.user_id)
    await log_audit(
        connection,
        actor=shipment.requested_by,
        action="ship",
        sale_id=shipment.sale_id,
        detail={
            "order_id": public_id(*shipment.key),
            "shipment_id": shipment.shipment_id,
            "carrier": shipment.carrier,
        },
    )


async def drop(
    connection: Connection, shipment: Shipment, state: ShipmentState, detail: str | None
) -> None:
    """It comes to nothing: the carrier refused it, or it was cancelled in time."""
    order, now = await lock_shipment(connection, shipment.key, shipment.shipment_id)
    if now.state not in {ShipmentState.REQUESTED, ShipmentState.CREATED}:
        return
    await connection.execute(
        """
        UPDATE shipments SET state = $2, detail = $3, cancel_wanted = false WHERE shipment_id = $1
        """,
        shipment.shipment_id,
        state,
        detail,
    )
    await _note(connection, now, f"shipment.{state}", order.user_id)


async def keep(connection: Connection, shipment: Shipment) -> None:
    """It could not be cancelled any more: the carrier has it."""
    order, now = await lock_shipment(connection, shipment.key, shipment.shipment_id)
    await connection.execute(
        """
        UPDATE shipments SET cancel_wanted = false, detail = 'too late to cancel'
        WHERE shipment_id = $1
        """,
        shipment.shipment_id,
    )
    if now.state == ShipmentState.REQUESTED:
        await start(connection, now, order)


async def postpone(
    connection: Connection, shipments: Sequence[Shipment], seconds: float, why: str
) -> None:
    """Asks again later."""
    await connection.execute(
        """
        UPDATE shipments SET due_at = now() + make_interval(secs => $2), detail = $3
        WHERE shipment_id = ANY ($1::text[])
        """,
        [shipment.shipment_id for shipment in shipments],
        seconds,
        why,
    )


async def _note(connection: Connection, shipment: Shipment, kind: str, user_id: str) -> None:
    data = {
        "shipment_id": shipment.shipment_id,
        "carrier": shipment.carrier,
        "tracking_number": shipment.tracking_number,
    }
    await note_event(connection, shipment.key, kind, user_id, data)


def _read(row: Any) -> Shipment:
    return Shipment(**{name: row[name] for name in Shipment.__struct_fields__})
