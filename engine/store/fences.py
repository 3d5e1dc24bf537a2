"""The fence in Postgres: which sales are shut, the epochs, and which Redis servers are trusted."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from engine.store.database import Connection
from engine.store.sales import Row

LOCK_CLASS: Final = 0x66_65_6E_63  # "fenc": advisory locks of recoveries, one per sale.


@asynccontextmanager
async def recovery_lock(connection: Connection, sale_id: str) -> AsyncIterator[bool]:
    """Whether this connection is now the only one that recovers the sale or mends its fence."""
    taken = await connection.fetchval(
        "SELECT pg_try_advisory_lock($1, hashtext($2))", LOCK_CLASS, sale_id
    )
    try:
        yield bool(taken)
    finally:
        if taken and not connection.is_closed():
            await connection.execute(
                "SELECT pg_advisory_unlock($1, hashtext($2))", LOCK_CLASS, sale_id
            )


async def fetch_launched(connection: Connection) -> list[Row]:
    """Sales whose stock was put up in Redis: sale_id, epoch, fenced, drained_through."""
    rows: list[Row] = await connection.fetch(
        "SELECT sale_id, epoch, fenced, drained_through FROM sales WHERE launched ORDER BY sale_id"
    )
    return rows


async def fence_sale(connection: Connection, sale_id: str, epoch: int, reason: str) -> bool:
    """Shuts the sale; False if it is shut already or was recovered since `epoch`."""
    row = await connection.fetchval(
        """
        UPDATE sales SET fenced = $3 WHERE sale_id = $1 AND epoch = $2 AND fenced IS NULL
        RETURNING sale_id
        """,
        sale_id,
        epoch,
        reason,
    )
    return row is not None


async def is_fenced(connection: Connection, sale_id: str, epoch: int) -> bool:
    """Whether the sale is still shut at this epoch."""
    return bool(
        await connection.fetchval(
            "SELECT fenced IS NOT NULL FROM sales WHERE sale_id = $1 AND epoch = $2",
            sale_id,
            epoch,
        )
    )


async def raise_epoch(connection: Connection, sale_id: str, above: int) -> int | None:
    """Shuts the sale and gives it an epoch above its own and `above`; None if there is none."""
    epoch: int | None = await connection.fetchval(
        """
        UPDATE sales SET epoch = greatest(epoch, $2) + 1, fenced = coalesce(fenced, 'being recovered')
        WHERE sale_id = $1 RETURNING epoch
        """,
        sale_id,
        above,
    )
    return epoch


async def unfence(connection: Connection, sale_id: str, epoch: int) -> bool:
    """Opens the fence of this epoch; False if the epoch has moved on."""
    row = await connection.fetchval(
        """
        UPDATE sales SET fenced = NULL, launched = true WHERE sale_id = $1 AND epoch = $2
        RETURNING sale_id
        """,
        sale_id,
        epoch,
    )
    return row is not None


async def trust_server(connection: Connection, run_id: str) -> None:
    """Remembers that this Redis server's data is complete."""
    await connection.execute(
        """
        INSERT INTO redis_servers (run_id) VALUES ($1)
        ON CONFLICT (run_id) DO UPDATE
            SET trusted_at = now(), trusted_number = DEFAULT, stopped_at = NULL
        """,
        run_id,
    )


async def mark_server_stopped(connection: Connection, run_id: str) -> None:
    """Remembers that this Redis server was stopped by us, with everything on disk."""
    await connection.execute(
        "UPDATE redis_servers SET stopped_at = now() WHERE run_id = $1", run_id
    )


class ServerStanding(NamedTuple):
    """What is known of a Redis server. One that follows a server that we stopped is trusted too."""

    known: bool
    trusted: bool


async def server_standing(connection: Connection, run_id: str) -> ServerStanding:
    """Whether this server is on record, and whether its data may be believed."""
    row = await connection.fetchrow(
        """
        SELECT known IS NOT NULL AS known, coalesce(known, follows, false) AS trusted FROM (
            SELECT (SELECT stopped_at IS NULL FROM redis_servers WHERE run_id = $1) AS known,
                   (SELECT stopped_at IS NOT NULL FROM redis_servers
                    ORDER BY trusted_number DESC LIMIT 1) AS follows) AS record
        """,
        run_id,
    )
    return ServerStanding(*row)
