"""Keeps reconciliations: who wants one, what it found. Compares nothing."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta, timezone
from importlib.resources import files
from typing import Any, Final

import msgspec

from api.reconciliation.compare import Difference, Kept
from engine.model import PaymentStatus
from engine.payment.provider import StatementLine
from engine.store.database import Connection, Pool, postgres_errors
from engine.store.sales import log_audit

FETCH_KEPT: Final = (files("api.reconciliation") / "fetch_kept.sql").read_text("utf-8")
DIFFERENCES_MAX: Final = 10_000  # Kept; more are counted: something is wrong with the day itself.
DAILY: Final = "daily"
ATTEMPTS_MAX: Final = 24
RETRY_SECONDS: Final = 1800.0  # Bills are late by hours, not by seconds.
LEASE_SECONDS: Final = 600.0  # A statement of half a million lines is read and compared by then.


class Reconciliation(msgspec.Struct, frozen=True):
    """One comparison, wanted or made."""

    reconciliation_id: int
    provider: str
    day: date
    asked_by: str
    state: str
    lines: int | None
    differences: int | None
    error: str | None
    created_at: datetime
    finished_at: datetime | None
    attempts: int


class KeptDifference(msgspec.Struct, frozen=True):
    """A difference as it is listed."""

    number: int
    kind: str
    payment_id: str
    provider_ref: str | None
    ours: dict[str, Any] | None
    theirs: dict[str, Any] | None


class Reconciliations:
    """The table of that name."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def want(
        self, provider: str, day: date, asked_by: str, *, taken: bool = False
    ) -> Reconciliation:
        """Puts one up, with its place in the audit log: for the worker, or `taken` by the caller."""
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                row = await connection.fetchrow(
                    "INSERT INTO reconciliations (provider, day, asked_by, due_at)"
                    " VALUES ($1, $2, $3, now() + make_interval(secs => $4)) RETURNING *",
                    provider,
                    day,
                    asked_by,
                    LEASE_SECONDS if taken else 0.0,
                )
                await log_audit(
                    connection,
                    actor=asked_by,
                    action="reconcile",
                    sale_id=None,
                    detail={"provider": provider, "day": day.isoformat()},
                )
        return _read(row)

    async def want_daily(self, provider: str, day: date) -> bool:
        """Puts the day's own up, once; False if it was there."""
        with postgres_errors():
            row = await self._pool.fetchrow(
                "INSERT INTO reconciliations (provider, day, asked_by) VALUES ($1, $2, $3)"
                " ON CONFLICT DO NOTHING RETURNING 1",
                provider,
                day,
                DAILY,
            )
        return row is not None

    async def take(self, providers: Sequence[str]) -> Reconciliation | None:
        """Leases the oldest that is due, of a provider that can be asked."""
        with postgres_errors():
            row = await self._pool.fetchrow(
                """
                UPDATE reconciliations
                SET attempts = attempts + 1, due_at = now() + make_interval(secs => $2)
                WHERE reconciliation_id = (
                    SELECT reconciliation_id FROM reconciliations
                    WHERE state = 'wanted' AND due_at <= now() AND provider = ANY ($1::text[])
                    ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
                RETURNING *
                """,
                list(providers),
                LEASE_SECONDS,
            )
        return None if row is None else _read(row)

    async def kept(
        self, provider: str, day: date, offset_hours: int, lines: Sequence[StatementLine]
    ) -> list[Kept]:
        """Our payments that have to do with a statement."""
        zone = timezone(timedelta(hours=offset_hours))
        begin = datetime(day.year, day.month, day.day, tzinfo=zone)
        with postgres_errors():
            rows = await self._pool.fetch(
                FETCH_KEPT,
                provider,
                begin,
                begin + timedelta(days=1),
                [line.payment_id for line in lines if line.payment_id],
                [line.provider_ref for line in lines if not line.payment_id],
            )
        return [Kept(**{**row, "status": PaymentStatus(row["status"])}) for row in rows]

    async def finish(
        self, reconciliation_id: int, lines: int, differences: Sequence[Difference]
    ) -> None:
        """Writes what was found."""
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(
                    "UPDATE reconciliations SET state = 'done', lines = $2, differences = $3,"
                    " error = NULL, finished_at = now()"
                    " WHERE reconciliation_id = $1 AND state = 'wanted'",
                    reconciliation_id,
                    lines,
                    len(differences),
                )
                await _add(connection, reconciliation_id, differences[:DIFFERENCES_MAX])

    async def fail(self, wanted: Reconciliation, error: str, *, for_good: bool) -> None:
        """Counts an attempt that came to nothing; it is tried again, for half a day."""
        over = for_good or wanted.attempts >= ATTEMPTS_MAX
        with postgres_errors():
            await self._pool.execute(
                "UPDATE reconciliations SET error = $2, due_at = now() + make_interval(secs => $3),"
                " state = CASE WHEN $4 THEN 'failed' ELSE state END,"
                " finished_at = CASE WHEN $4 THEN now() END WHERE reconciliation_id = $1",
                wanted.reconciliation_id,
                error[:500],
                RETRY_SECONDS,
                over,
            )

    async def find(self, reconciliation_id: int) -> Reconciliation | None:
        with postgres_errors():
            row = await self._pool.fetchrow(
                "SELECT * FROM reconciliations WHERE reconciliation_id = $1", reconciliation_id
            )
        return None if row is None else _read(row)

    async def list(
        self, provider: str | None, before: int | None, rows_max: int
    ) -> list[Reconciliation]:
        """Newest first, of one provider or of all, from the one below `before` on."""
        with postgres_errors():
            rows = await self._pool.fetch(
                "SELECT * FROM reconciliations WHERE ($1::text IS NULL OR provider = $1)"
                " AND ($2::bigint IS NULL OR reconciliation_id < $2)"
                " ORDER BY reconciliation_id DESC LIMIT $3",
                provider,
                before,
                rows_max,
            )
        return [_read(row) for row in rows]

    async def differences(
        self, reconciliation_id: int, after: int, rows_max: int
    ) -> tuple[KeptDifference, ...]:
        """In their order, from the one above `after` on."""
        with postgres_errors():
            rows = await self._pool.fetch(
                "SELECT number, kind, payment_id, provider_ref, ours, theirs"
                " FROM reconciliation_differences WHERE reconciliation_id = $1 AND number > $2"
                " ORDER BY number LIMIT $3",
                reconciliation_id,
                after,
                rows_max,
            )
        return tuple(KeptDifference(**row) for row in rows)


async def _add(
    connection: Connection, reconciliation_id: int, differences: Sequence[Difference]
) -> None:
    await connection.executemany(
        "INSERT INTO reconciliation_differences VALUES ($1, $2, $3, $4, $5, $6, $7)"
        " ON CONFLICT DO NOTHING",
        [
            (
                reconciliation_id,
                number,
                found.kind.value,
                found.payment_id,
                found.provider_ref,
                found.ours,
                found.theirs,
            )
            for number, found in enumerate(differences, 1)
        ],
    )


def _read(row: Any) -> Reconciliation:
    return Reconciliation(**{name: row[name] for name in Reconciliation.__struct_fields__})
