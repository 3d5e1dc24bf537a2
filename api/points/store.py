"""Points in Postgres: rules, balances, lines. What a move does to them, 0014_points.sql decides."""

from api.pricing.quote import PointsRule
from engine.store.database import Connection


async def spending_rule(connection: Connection, currency: str) -> PointsRule | None:
    """What points are worth in that currency; None where they cannot be spent."""
    row = await connection.fetchrow(
        "SELECT points_per_major, share_max_percent FROM points_rules WHERE currency = $1",
        currency,
    )
    return PointsRule(*row) if row else None
