"""The sales in Postgres: their rows, counters, ledger lines and the audit log."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from engine.store.database import Connection
from engine.store.rooms import ROOM_JSON

Row = Mapping[str, Any]

_SALE_COLUMNS = """sale_id, name, opens_at, closes_at, per_user_max, reservation_seconds,
    auto_capture, state, revision, epoch, fenced, launched"""


class NewItem(NamedTuple):
    """A row of sale_items to be made."""

    sku: str
    name: dict[str, str]
    price_minor: int
    currency: str
    units: int


async def insert_sale(
    connection: Connection,
    *,
    sale_id: str,
    name: dict[str, str],
    opens_at: datetime,
    closes_at: datetime,
    per_user_max: int,
    reservation_seconds: int,
    auto_capture: bool,
) -> bool:
    """False if there is a sale of that name. It starts open: its window decides."""
    row = await connection.fetchval(
        """
        INSERT INTO sales (sale_id, name, opens_at, closes_at, per_user_max, reservation_seconds,
                           auto_capture, state)
        VALUES ($1, $2, $3, $4, $5, $6, $7, 'open')
        ON CONFLICT DO NOTHING RETURNING sale_id
        """,
        sale_id,
        name,
        opens_at,
        closes_at,
        per_user_max,
        reservation_seconds,
        auto_capture,
    )
    return row is not None


async def insert_items(connection: Connection, sale_id: str, items: Sequence[NewItem]) -> None:
    """The SKUs, in order, each with its 'created' line in the ledger."""
    await connection.execute(
        """
        WITH made AS (
            INSERT INTO sale_items (sale_id, position, sku, name, price_minor, currency, stocked)
            SELECT $1, position, sku, name, price_minor, currency, units
            FROM unnest($2::text[], $3::jsonb[], $4::bigint[], $5::text[], $6::bigint[])
                WITH ORDINALITY AS item (sku, name, price_minor, currency, units, position)
            RETURNING sku, stocked
        )
        INSERT INTO ledger (sale_id, sku, counter, units, reason)
        SELECT $1, sku, 'stocked', stocked, 'created' FROM made
        """,
        sale_id,
        [item.sku for item in items],
        [item.name for item in items],
        [item.price_minor for item in items],
        [item.currency for item in items],
        [item.units for item in items],
    )


async def fetch_sale_rows(
    connection: Connection, sale_id: str | None = None, *, rows_max: int
) -> list[tuple[Row, list[Row]]]:
    """One sale or all, newest window first, each with its SKUs in order, of one instant.

    `room` is the settings of its waiting room, or None.
    """
    rows = await connection.fetch(
        f"""
        SELECT {_SALE_COLUMNS}, items, (
            SELECT {ROOM_JSON} FROM sale_rooms room WHERE room.sale_id = sales.sale_id) AS room
        FROM sales JOIN LATERAL (
            SELECT jsonb_agg(jsonb_build_object('sku', sku, 'name', name, 'units', stocked,
                'price', jsonb_build_object('amount_minor', price_minor, 'currency', currency))
                ORDER BY position) AS items
            FROM sale_items WHERE sale_items.sale_id = sales.sale_id) AS listed ON true
        WHERE $1::text IS NULL OR sale_id = $1
        ORDER BY opens_at DESC, sale_id LIMIT $2
        """,  # noqa: S608  # constant lists of columns
        sale_id,
        rows_max,
    )
    return [(row, row["items"] or []) for row in rows]


class SaleStanding(NamedTuple):
    """Where a sale stands, for those who go through all of them."""

    sale_id: str
    launched: bool
    fenced: bool


async def fetch_standings(connection: Connection) -> list[SaleStanding]:
    """Every sale there is, newest window first. Small rows, so there is no bound on them."""
    rows = await connection.fetch(
        """
        SELECT sale_id, launched, fenced IS NOT NULL FROM sales ORDER BY opens_at DESC, sale_id
        """
    )
    return [SaleStanding(*row) for row in rows]


async def fetch_revisions(connection: Connection) -> list[Row]:
    """What Redis should know of every sale that is not fenced: sale_id, epoch, revision, launched."""
    rows: list[Row] = await connection.fetch(
        "SELECT sale_id, epoch, revision, launched FROM sales WHERE fenced IS NULL"
    )
    return rows


async def lock_sale(connection: Connection, sale_id: str) -> Row | None:
    """The sale's row, locked until the transaction ends, or None."""
    row: Row | None = await connection.fetchrow(
        f"SELECT {_SALE_COLUMNS} FROM sales WHERE sale_id = $1 FOR UPDATE",  # noqa: S608
        sale_id,
    )
    return row


async def update_settings(
    connection: Connection, sale_id: str, *, state: str, opens_at: datetime, closes_at: datetime
) -> None:
    """Writes settings and counts the change."""
    await connection.execute(
        """
        UPDATE sales SET state = $2, opens_at = $3, closes_at = $4, revision = revision + 1
        WHERE sale_id = $1
        """,
        sale_id,
        state,
        opens_at,
        closes_at,
    )


async def mark_launched(connection: Connection, sale_id: str) -> None:
    """From here on a sale that is missing in Redis is a loss, not a novelty."""
    await connection.execute(
        "UPDATE sales SET launched = true WHERE sale_id = $1 AND NOT launched", sale_id
    )


async def find_restock(connection: Connection, sale_id: str, key: str) -> Row | None:
    """The restock made with this key before: sku and units."""
    row: Row | None = await connection.fetchrow(
        """
        SELECT sku, units FROM ledger
        WHERE sale_id = $1 AND reference = $2 AND reason = 'restocked'
        """,
        sale_id,
        key,
    )
    return row


async def add_stock(
    connection: Connection, sale_id: str, sku: str, units: int, key: str | None
) -> int | None:
    """Raises a SKU's stocked units, with its ledger line and a new revision of the sale.

    Returns the new total, or None if the sale has no such SKU.
    """
    total: int | None = await connection.fetchval(
        """
        WITH raised AS (
            UPDATE sale_items SET stocked = stocked + $3 WHERE sale_id = $1 AND sku = $2
            RETURNING stocked
        ), line AS (
            INSERT INTO ledger (sale_id, sku, counter, units, reason, reference)
            SELECT $1, $2, 'stocked', $3, 'restocked', $4 FROM raised
        ), revised AS (
            UPDATE sales SET revision = revision + 1
            WHERE sale_id = $1 AND EXISTS (SELECT FROM raised)
        )
        SELECT stocked FROM raised
        """,
        sale_id,
        sku,
        units,
        key,
    )
    return total


async def log_audit(
    connection: Connection,
    *,
    actor: str,
    action: str,
    sale_id: str | None,
    detail: dict[str, object],
) -> None:
    """Who changed what, in one sale or in all. Belongs into the transaction of the change."""
    await connection.execute(
        "INSERT INTO audit_log (actor, action, sale_id, detail) VALUES ($1, $2, $3, $4)",
        actor,
        action,
        sale_id,
        detail,
    )
