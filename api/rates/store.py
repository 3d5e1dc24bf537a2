"""Exchange rates in Postgres: data with a date, never overwritten silently."""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal

import msgspec

from engine.store.database import Connection, Pool, postgres_errors
from engine.store.sales import log_audit


class Rate(msgspec.Struct, frozen=True):
    """From that day on 1 unit of `base` is `rate` units of `quote`, until a newer one."""

    base: str
    quote: str
    valid_on: date
    rate: Decimal
    source: str


class Rates:
    """The exchange rates."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def valid_on(self, day: date, base: str | None, quote: str | None) -> list[Rate]:
        """The newest rate of every pair that is valid on that day."""
        with postgres_errors():
            rows = await self._pool.fetch(
                """
                SELECT DISTINCT ON (base, quote) base, quote, valid_on, rate, source
                FROM exchange_rates
                WHERE valid_on <= $1 AND ($2::text IS NULL OR base = $2::char(3))
                  AND ($3::text IS NULL OR quote = $3::char(3))
                ORDER BY base, quote, valid_on DESC
                """,
                day,
                base,
                quote,
            )
        return [Rate(**row) for row in rows]

    async def put(self, rates: Sequence[Rate], actor: str) -> int:
        """Writes rates down, in place of those of the same day; how many were not so before."""
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                return await put_rates(connection, rates, actor)


async def put_rates(connection: Connection, rates: Sequence[Rate], actor: str) -> int:
    """As `Rates.put`, in the caller's transaction."""
    changed = await connection.fetch(
        """
        INSERT INTO exchange_rates AS known (base, quote, valid_on, rate, source)
        SELECT * FROM unnest($1::text[], $2::text[], $3::date[], $4::numeric[], $5::text[])
        ORDER BY 1, 2, 3
        ON CONFLICT (base, quote, valid_on) DO UPDATE
        SET rate = excluded.rate, source = excluded.source
        WHERE (known.rate, known.source) IS DISTINCT FROM (excluded.rate, excluded.source)
        RETURNING base, quote, valid_on, rate
        """,
        *([getattr(rate, name) for rate in rates] for name in Rate.__struct_fields__),
    )
    if changed:
        detail: dict[str, object] = {"rates": [_told(*row) for row in changed]}
        await log_audit(
            connection, actor=actor, action="put_exchange_rates", sale_id=None, detail=detail
        )
    return len(changed)


def rate_text(rate: Decimal) -> str:
    """Without zeros that say nothing: 0.1404, 7."""
    return f"{rate.normalize():f}"


def _told(base: str, quote: str, valid_on: date, rate: Decimal) -> str:
    return f"{base}/{quote} {rate_text(rate)} from {valid_on}"
