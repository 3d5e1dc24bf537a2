"""What Postgres says of a crowd's orders. Reads only."""

import msgspec

from engine.model import parse_public_id
from engine.store.database import Pool, postgres_errors


class StoredOrders(msgspec.Struct, frozen=True):
    """The orders of one crowd in one sale, and what still has to happen to them."""

    stored: int = 0
    paid: int = 0
    awaiting_payment: int = 0
    messages: int = 0  # outbox rows of the sale: captures, confirms, releases


class SaleUnits(msgspec.Struct, frozen=True):
    """Units of the whole sale."""

    stocked: int
    ordered: int
    sold: int


def crowd_name(seed: int) -> str:
    """What the user ids of a crowd begin with; no other crowd's do."""
    return f"r{seed:x}-"


async def count_orders(pool: Pool, sale_id: str, crowd: str) -> StoredOrders:
    """Raises StoreUnavailable."""
    # The ids of the crowd are those from `crowd` up to the next character after its hyphen.
    with postgres_errors():
        row = await pool.fetchrow(
            """
            SELECT count(*) AS stored,
                   count(*) FILTER (WHERE status IN ('paid', 'shipped', 'delivered')) AS paid,
                   count(*) FILTER (WHERE status = 'awaiting_payment') AS awaiting_payment,
                   (SELECT count(*) FROM outbox WHERE sale_id = $1) AS messages
            FROM orders WHERE sale_id = $1 AND user_id >= $2 AND user_id < $3
            """,
            sale_id,
            crowd,
            crowd[:-1] + chr(ord(crowd[-1]) + 1),
        )
    return StoredOrders(**row)


async def missing_orders(pool: Pool, public_ids: set[str]) -> list[str]:
    """Those of the acknowledged reservations that are no order in Postgres. Raises StoreUnavailable."""
    parsed = {public: parse_public_id(public) for public in sorted(public_ids)}
    known = {public: pair for public, pair in parsed.items() if pair is not None}
    with postgres_errors():
        rows = await pool.fetch(
            """
            SELECT sale_id, reservation_id FROM orders
            JOIN unnest($1::text[], $2::text[]) AS promised (sale_id, reservation_id)
            USING (sale_id, reservation_id)
            """,
            [sale_id for sale_id, _ in known.values()],
            [reservation_id for _, reservation_id in known.values()],
        )
    found = {(row["sale_id"], row["reservation_id"]) for row in rows}
    return [public for public, pair in parsed.items() if pair not in found]


async def count_units(pool: Pool, sale_id: str) -> SaleUnits:
    """Raises StoreUnavailable."""
    with postgres_errors():
        row = await pool.fetchrow(
            """
            SELECT sum(stocked)::bigint AS stocked, sum(ordered)::bigint AS ordered,
                   sum(sold)::bigint AS sold
            FROM sale_items WHERE sale_id = $1
            """,
            sale_id,
        )
    return SaleUnits(**row)
