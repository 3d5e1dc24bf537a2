"""Lists mails, sent or not, and has those sent again that were given up. Sends none itself."""

from typing import Final

import msgspec

from api.mail.templates import Mail
from engine.store.database import Pool, postgres_errors
from engine.store.sales import log_audit

RETRIED_MAX: Final = 10_000  # At once; a longer outage needs another call.


class Listed(Mail, frozen=True):
    """A mail and what became of it."""

    state: str
    last_error: str | None


_COLUMNS: Final = ", ".join(Listed.__struct_fields__)


async def list_mails(
    pool: Pool, *, state: str | None = None, before: int | None = None, rows_max: int
) -> list[Listed]:
    """The newest first, from below `before`; only those in that state, if one is named."""
    with postgres_errors():
        rows = await pool.fetch(
            f"SELECT {_COLUMNS} FROM mails WHERE ($1::text IS NULL OR state = $1)"  # noqa: S608
            " AND ($2::bigint IS NULL OR mail_id < $2) ORDER BY mail_id DESC LIMIT $3",
            state,
            before,
            rows_max,
        )
    return [msgspec.convert(dict(row), Listed) for row in rows]


async def retry_failed(pool: Pool, actor: str) -> int:
    """Puts those up again that were given up, the oldest first; how many."""
    with postgres_errors():
        async with pool.acquire() as connection, connection.transaction():
            done: str = await connection.execute(
                "UPDATE mails SET state = 'waiting', attempts = 0, due_at = now(), ended_at = NULL"
                " WHERE mail_id IN (SELECT mail_id FROM mails WHERE state = 'failed'"
                " ORDER BY mail_id LIMIT $1 FOR UPDATE SKIP LOCKED)",
                RETRIED_MAX,
            )
            count = int(done.rpartition(" ")[2])
            await log_audit(
                connection,
                actor=actor,
                action="mails_retried",
                sale_id=None,
                detail={"count": count},
            )
    return count
