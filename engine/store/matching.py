"""Joins what was copied from Redis with the orders, in temporary tables of one connection."""

from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple

from engine.store.database import Connection

SECONDS_MAX: Final = 300.0  # A million orders take seconds; a loaded machine more.


class Suspect(NamedTuple):
    """One reservation on which Redis and Postgres do not agree at first sight."""

    invariant: int
    reservation_id: str
    user_id: str
    problem: str


async def create_tables(connection: Connection) -> None:
    """`seen`: the buyers' records. `streamed`: what waits in the stream."""
    await connection.execute(
        """
        CREATE TEMP TABLE seen (
            user_id text COLLATE "C" NOT NULL,
            reservation_id text COLLATE "C" NOT NULL,
            state text COLLATE "C" NOT NULL,
            items jsonb NOT NULL
        );
        CREATE TEMP TABLE streamed (reservation_id text COLLATE "C" NOT NULL);
        """
    )


async def drop_tables(connection: Connection) -> None:
    """Undoes `create_tables`, unless the connection is gone and they with it."""
    if not connection.is_closed():
        await connection.execute("DROP TABLE IF EXISTS seen, streamed")


async def copy_seen(connection: Connection, lines: AsyncIterator[bytes]) -> None:
    """Replaces `seen`. Lines as COPY takes them: user, reservation, state, items as JSON."""
    await connection.execute("TRUNCATE seen")
    await connection.copy_to_table("seen", source=lines, timeout=SECONDS_MAX)
    await connection.execute("ANALYZE seen", timeout=SECONDS_MAX)


async def copy_streamed(connection: Connection, lines: AsyncIterator[bytes]) -> None:
    """Replaces `streamed`. Lines: one reservation id each."""
    await connection.execute("TRUNCATE streamed")
    await connection.copy_to_table("streamed", source=lines, timeout=SECONDS_MAX)
    await connection.execute("ANALYZE streamed", timeout=SECONDS_MAX)


async def find_suspects(
    connection: Connection,
    sale_id: str,
    since_ms: int | None,
    only: Sequence[str] | None,
    *,
    rows_max: int,
) -> list[Suspect]:
    """Where `seen` and the orders differ; of `only` these reservations, if given.

    Excused is what an outbox message will still bring to Redis, and, if `seen` began to be read at
    `since_ms`, the orders reserved after that.
    """
    rows = await connection.fetch(
        """
        WITH moving AS MATERIALIZED (
            SELECT reference AS reservation_id FROM outbox
            WHERE sale_id = $1 AND kind IN ('confirm', 'release')
          UNION
            SELECT payments.reservation_id FROM outbox JOIN payments ON payment_id = reference
            WHERE outbox.sale_id = $1 AND kind = 'late_capture'
        ), matched AS (
            SELECT coalesce(orders.reservation_id, seen.reservation_id) AS reservation_id,
                   coalesce(seen.user_id, orders.user_id) AS user_id,
                   orders.user_id AS owner, seen.state, status,
                   seen.items AS wished, orders.items AS ordered, reserved_at
            FROM (SELECT reservation_id, user_id, items, status, reserved_at FROM orders
                  WHERE sale_id = $1 AND ($3::text[] IS NULL OR reservation_id = ANY ($3))) AS orders
            FULL JOIN (SELECT reservation_id, user_id, state, items FROM seen
                       WHERE $3::text[] IS NULL OR reservation_id = ANY ($3)) AS seen
            ON seen.reservation_id = orders.reservation_id
        ), judged AS (
            SELECT reservation_id, user_id, CASE
                WHEN status IS NULL AND state IN ('r', 'c')
                    THEN '3 is in Redis, but neither an order nor in the stream'
                WHEN status IS NULL THEN NULL
                WHEN state IS NULL AND ($2::bigint IS NULL OR reserved_at < to_timestamp($2 / 1000.0))
                    THEN '8 is an order (' || status || ') that Redis does not hold'
                WHEN state IS NULL THEN NULL
                WHEN user_id <> owner THEN '5 belongs to two buyers'
                WHEN wished <> ordered THEN '5 has other items in Redis than in its order'
                WHEN state <> CASE status WHEN 'awaiting_payment' THEN 'r'
                                          WHEN 'cancelled' THEN 'x' WHEN 'refunded' THEN 'x'
                                          WHEN 'expired' THEN 'e' ELSE 'c' END
                    THEN '3 is an order (' || status || ') with state ' || state || ' in Redis'
                END AS problem
            FROM matched
        )
        SELECT reservation_id, user_id, problem FROM judged
        WHERE problem IS NOT NULL
          AND NOT (problem LIKE '3 is in %' AND reservation_id IN (SELECT reservation_id FROM streamed))
          AND NOT (problem LIKE '3 is an order%'
                   AND reservation_id IN (SELECT reservation_id FROM moving))
        LIMIT $4
        """,
        sale_id,
        since_ms,
        only,
        rows_max,
        timeout=SECONDS_MAX,
    )
    return [
        Suspect(int(problem[0]), reservation_id, user_id, problem[2:])
        for reservation_id, user_id, problem in rows
    ]
