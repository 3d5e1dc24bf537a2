"""Lists and dismisses dead letters: what was given up and waits for a person."""

from collections.abc import Sequence
from typing import Any

from engine.store.database import Connection, postgres_errors
from engine.store.sales import log_audit

LISTED_MAX = 200  # Newest first; whoever has more has another problem.


async def list_letters(connection: Connection) -> Sequence[Any]:
    """letter_id, source, sale_id, reference, error, at, body of those not dismissed."""
    with postgres_errors():
        rows: Sequence[Any] = await connection.fetch(
            """
            SELECT letter_id, source, sale_id, reference, error, at, body FROM dead_letters
            WHERE dismissed_at IS NULL ORDER BY letter_id DESC LIMIT $1
            """,
            LISTED_MAX,
        )
    return rows


async def dismiss_letter(connection: Connection, letter_id: int, actor: str, reason: str) -> bool:
    """Ends a letter's alarm, with its audit line; False if no such letter waits. Nothing is deleted."""
    with postgres_errors():
        async with connection.transaction():
            row = await connection.fetchrow(
                """
                UPDATE dead_letters SET dismissed_at = now()
                WHERE letter_id = $1 AND dismissed_at IS NULL
                RETURNING source, sale_id, reference
                """,
                letter_id,
            )
            if row is None:
                return False
            await log_audit(
                connection,
                actor=actor,
                action="dismiss_letter",
                sale_id=row["sale_id"],
                detail={
                    "letter_id": letter_id,
                    "source": row["source"],
                    "reference": row["reference"],
                    "reason": reason,
                },
            )
    return True
