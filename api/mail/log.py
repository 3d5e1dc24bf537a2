"""Lists mails, sent or not. Sends none."""

from datetime import datetime
from typing import Final

import msgspec

from api.mail.templates import Mail
from engine.store.database import Pool, postgres_errors


class Listed(Mail, frozen=True):
    """A mail and what became of it."""

    state: str
    last_error: str | None
    ended_at: datetime | None


_COLUMNS: Final = ", ".join(Listed.__struct_fields__)


async def list_mails(pool: Pool, *, failed: bool, rows_max: int) -> list[Listed]:
    """The newest first; only those that were given up, if so wished."""
    with postgres_errors():
        rows = await pool.fetch(
            f"SELECT {_COLUMNS} FROM mails WHERE NOT $1 OR state = 'failed'"  # noqa: S608
            " ORDER BY mail_id DESC LIMIT $2",
            failed,
            rows_max,
        )
    return [msgspec.convert(dict(row), Listed) for row in rows]


async def retry_failed(pool: Pool) -> int:
    """Puts those up again that were given up; how many."""
    with postgres_errors():
        done: str = await pool.execute(
            "UPDATE mails SET state = 'waiting', attempts = 0, due_at = now(), ended_at = NULL"
            " WHERE state = 'failed'"
        )
    return int(done.rpartition(" ")[2])
