"""Takes in what carriers tell of parcels. Told twice, late or in any order it comes to the same."""

import logging
from collections.abc import Sequence
from typing import Final

from api.carriers.protocol import TrackingEvent
from api.orders.moves import Standing, move_order, note_event
from api.shipping.shipments import Shipment, ShipmentState, lock_shipment, start
from engine.model import OrderStatus
from engine.store.database import Connection
from engine.store.resolutions import OrderKey

logger = logging.getLogger(__name__)

# A parcel only ever moves down this list.
COURSE: Final = (
    ShipmentState.REQUESTED,
    ShipmentState.CREATED,
    ShipmentState.PICKED_UP,
    ShipmentState.IN_TRANSIT,
    ShipmentState.OUT_FOR_DELIVERY,
    ShipmentState.DELIVERED,
)


async def hear(
    connection: Connection, carrier: str, shipment_id: str, events: Sequence[TrackingEvent]
) -> bool:
    """Stores the events of one shipment with their effect; False if this carrier has no such shipment.

    Belongs into a transaction.
    """
    row = await connection.fetchrow(
        "SELECT sale_id, reservation_id FROM shipments WHERE shipment_id = $1 AND carrier = $2",
        shipment_id,
        carrier,
    )
    if row is None:
        return False
    order, shipment = await lock_shipment(connection, OrderKey(*row), shipment_id)
    if events:
        await _store(connection, carrier, shipment_id, events)
        furthest = max((ShipmentState(event.state) for event in events), key=COURSE.index)
        await _move(connection, shipment, order, furthest)
    return True


async def _store(
    connection: Connection, carrier: str, shipment_id: str, events: Sequence[TrackingEvent]
) -> None:
    await connection.execute(
        """
        INSERT INTO tracking_events (carrier, event_id, shipment_id, state, place, happened_at)
        SELECT $1, event_id, $2, state, place, happened_at
        FROM unnest($3::text[], $4::text[], $5::text[], $6::timestamptz[])
                 AS told(event_id, state, place, happened_at)
        ON CONFLICT DO NOTHING
        """,
        carrier,
        shipment_id,
        [event.event_id for event in events],
        [event.state for event in events],
        [event.place for event in events],
        [event.happened_at for event in events],
    )
    await connection.execute(
        """
        UPDATE shipments SET heard_at = now(), tracking_number = coalesce(tracking_number, $2)
        WHERE shipment_id = $1
        """,
        shipment_id,
        events[0].tracking_number,
    )


async def _move(
    connection: Connection, shipment: Shipment, order: Standing, state: ShipmentState
) -> None:
    if shipment.state not in COURSE:
        logger.warning(
            "Shipment %s is %s and moves all the same.", shipment.shipment_id, shipment.state,
            extra={"action": "ghost_parcel"},
        )  # fmt: skip
        return
    if COURSE.index(state) <= COURSE.index(ShipmentState(shipment.state)):
        return
    if shipment.state == ShipmentState.REQUESTED:
        await start(connection, shipment, order)  # The answer to its creation is late, or lost.
    await connection.execute(
        "UPDATE shipments SET state = $2, cancel_wanted = false WHERE shipment_id = $1",
        shipment.shipment_id,
        state,
    )
    data = {"shipment_id": shipment.shipment_id, "carrier": shipment.carrier, "state": state}
    await note_event(connection, shipment.key, "shipment.moved", order.user_id, data)
    if state is ShipmentState.DELIVERED:
        await move_order(connection, shipment.key, OrderStatus.SHIPPED, OrderStatus.DELIVERED)
