"""The shop's own stock in Postgres: `sale_items`, ledger lines and orders under the sale id 'shop'.

Callers hold a transaction. Decides nothing; see engine/shelf.py.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from typing import Final, NamedTuple

from engine.model import SHOP, OrderStatus
from engine.store.database import Connection
from engine.store.sales import Row

PLACE_ORDER: Final = (files("engine.store") / "statements" / "place_order.sql").read_text()
NO_CURRENCY: Final = "XXX"  # ISO 4217: what these units cost is said by the catalogue.


class NewOrder(NamedTuple):
    """An order of the shop that is to be made."""

    reservation_id: str
    user_id: str
    items: Mapping[str, int]
    amount_minor: int
    currency: str
    reserved_at: datetime
    reserved_until: datetime


class StoredOrder(NamedTuple):
    """What is to be known of an order that was there before."""

    user_id: str
    status: OrderStatus
    reserved_until: datetime


async def place_order(connection: Connection, order: NewOrder) -> tuple[bool, str | None]:
    """(whether it was made now, the first SKU of which too few are left)."""
    row = await connection.fetchrow(PLACE_ORDER, *order)
    return row["placed"], row["short"]


async def fetch_placed(connection: Connection, reservation_id: str) -> StoredOrder | None:
    """The order of that id, if there is one."""
    row = await connection.fetchrow(
        "SELECT user_id, status, reserved_until FROM orders"
        " WHERE sale_id = $1 AND reservation_id = $2",
        SHOP,
        reservation_id,
    )
    if row is None:
        return None
    return StoredOrder(row["user_id"], OrderStatus(row["status"]), row["reserved_until"])


async def put_up(connection: Connection, skus: Sequence[str]) -> None:
    """Makes the rows of SKUs that have none yet, without units."""
    await connection.execute(
        """
        INSERT INTO sale_items (sale_id, sku, position, name, price_minor, currency, stocked)
        SELECT $1, sku, 0, '{}', 0, $3, 0 FROM unnest($2::text[]) AS wanted(sku)
        ORDER BY sku
        ON CONFLICT DO NOTHING
        """,
        SHOP,
        list(skus),
        NO_CURRENCY,
    )


async def change_stocked(
    connection: Connection, units: Mapping[str, int], reason: str, key: str | None
) -> dict[str, int]:
    """Adds signed units to what is stocked, with their ledger lines; the new totals by SKU.

    SKUs without a row are left out. Raises asyncpg.CheckViolationError (see `is_oversold`).
    """
    rows = await connection.fetch(
        """
        WITH change AS (
            SELECT * FROM unnest($2::text[], $3::bigint[]) AS change(sku, units)
        ), locked AS (
            SELECT sku FROM sale_items WHERE sale_id = $1 AND sku IN (SELECT sku FROM change)
            ORDER BY sku FOR UPDATE
        ), raised AS (
            UPDATE sale_items SET stocked = stocked + units FROM change JOIN locked USING (sku)
            WHERE sale_items.sale_id = $1 AND sale_items.sku = change.sku
            RETURNING sale_items.sku, stocked, units
        ), lined AS (
            INSERT INTO ledger (sale_id, sku, counter, units, reason, reference)
            SELECT $1, sku, 'stocked', units, $4, $5 FROM raised WHERE units <> 0
        )
        SELECT sku, stocked FROM raised
        """,
        SHOP,
        list(units),
        list(units.values()),
        reason,
        key,
    )
    return {row["sku"]: row["stocked"] for row in rows}


async def find_change(connection: Connection, reason: str, key: str) -> Row | None:
    """The sku and the signed units of the change that was made with this key before."""
    row: Row | None = await connection.fetchrow(
        "SELECT sku, units FROM ledger WHERE sale_id = $1 AND reference = $2 AND reason = $3",
        SHOP,
        key,
        reason,
    )
    return row


async def lock_stocked(connection: Connection, sku: str) -> int | None:
    """How many units are stocked, sold ones included; None for an SKU that was never put up."""
    stocked: int | None = await connection.fetchval(
        "SELECT stocked FROM sale_items WHERE sale_id = $1 AND sku = $2 FOR UPDATE", SHOP, sku
    )
    return stocked
