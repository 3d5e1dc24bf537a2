"""Reads shipments and the queue of what waits to be sent. Changes nothing."""

from collections.abc import Mapping
from datetime import datetime
from importlib.resources import files
from typing import Any, Final

from api.shipping.shipments import COLUMNS, Shipment
from engine.store.database import Connection
from engine.store.resolutions import OrderKey

_QUEUE: Final = (files("api.shipping") / "queue.sql").read_text()

Row = Mapping[str, Any]

SHIPMENTS_MAX: Final = 20  # Of one order; only the last can be one that was not refused.
EVENTS_MAX: Final = 200


async def fetch_queue(
    connection: Connection,
    *,
    sale_id: str | None,
    method_id: str | None,
    after: tuple[datetime, str] | None,
    rows_max: int,
) -> list[Row]:
    """Oldest first, from the one after `after` (its time and id) on."""
    after_at, after_id = after or (None, "")
    rows: list[Row] = await connection.fetch(
        _QUEUE, sale_id, method_id, after_at, after_id, rows_max
    )
    return rows


async def method_exists(connection: Connection, method_id: str) -> bool:
    return bool(
        await connection.fetchval(
            "SELECT EXISTS (SELECT FROM shipping_methods WHERE method_id = $1)", method_id
        )
    )


async def shipments_of(connection: Connection, key: OrderKey) -> list[Shipment]:
    """The newest of them, oldest first."""
    rows = await connection.fetch(
        f"""
        SELECT {COLUMNS} FROM shipments WHERE sale_id = $1 AND reservation_id = $2
        ORDER BY created_at DESC, shipment_id LIMIT $3
        """,  # noqa: S608  # a constant list of columns
        *key,
        SHIPMENTS_MAX,
    )
    return [Shipment(**row) for row in reversed(rows)]


async def tracking_of(connection: Connection, key: OrderKey) -> list[Row]:
    """What happened to the parcels of an order, oldest first."""
    rows: list[Row] = await connection.fetch(
        """
        SELECT shipment_id, t.state, place, happened_at
        FROM tracking_events t JOIN shipments USING (shipment_id)
        WHERE sale_id = $1 AND reservation_id = $2 ORDER BY happened_at, event_id LIMIT $3
        """,
        *key,
        EVENTS_MAX,
    )
    return rows
