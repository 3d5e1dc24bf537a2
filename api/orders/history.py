"""Finds orders: one buyer's, or everybody's for support. Changes nothing."""

from importlib.resources import files
from typing import Final

from api.orders.bodies import Selection
from api.orders.store import Order
from engine.store.database import Connection

_HISTORY: Final = (files("api.orders") / "history.sql").read_text()
_OF_USER: Final = _HISTORY.replace("{whose}", "user_id = $1")
_OF_ALL: Final = _HISTORY.replace("{whose}", "reserved_at >= $1::timestamptz")


async def find_orders(connection: Connection, wanted: Selection) -> list[Order]:
    """Newest first. Without a user there must be a time since when."""
    assert wanted.user_id is not None or wanted.since is not None
    statement = _OF_ALL if wanted.user_id is None else _OF_USER
    before_at, before_id = wanted.before or (None, "")
    rows = await connection.fetch(
        statement,
        wanted.since if wanted.user_id is None else wanted.user_id,
        wanted.statuses,
        wanted.sale_id,
        wanted.since,
        wanted.until,
        wanted.sku_part,
        before_at,
        before_id,
        wanted.rows_max,
    )
    return [Order(**row) for row in rows]
