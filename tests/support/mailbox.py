"""What users find in their mailbox, before any server has it: the newest mail of a kind."""

from typing import Any

from engine.store.database import Pool


async def newest_mail(pool: Pool, kind: str, to: str) -> dict[str, Any]:
    """The content of the newest mail of that kind to that address."""
    content: dict[str, Any] | None = await pool.fetchval(
        "SELECT content FROM mails WHERE kind = $1 AND recipient = $2 ORDER BY mail_id DESC LIMIT 1",
        kind,
        to,
    )
    assert content is not None, f"no {kind} to {to}"
    return content


async def count_mails(pool: Pool, kind: str) -> int:
    count: int = await pool.fetchval("SELECT count(*) FROM mails WHERE kind = $1", kind)
    return count
