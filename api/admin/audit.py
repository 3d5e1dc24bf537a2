"""Reads the audit log from Postgres. The engine writes it."""

from datetime import datetime
from typing import Any

import msgspec

from engine.store.database import Pool, postgres_errors


class AuditEntry(msgspec.Struct, frozen=True):
    """Who changed what, and when."""

    entry_id: int
    actor: str
    action: str
    sale_id: str | None
    detail: Any
    at: datetime


async def read_audit(
    pool: Pool, sale_id: str | None, before: int | None, rows_max: int
) -> list[AuditEntry]:
    """Newest first, of one sale or of all, from the entry below `before` on."""
    with postgres_errors():
        rows = await pool.fetch(
            "SELECT entry_id, actor, action, sale_id, detail, at FROM audit_log"
            " WHERE ($1::text IS NULL OR sale_id = $1) AND ($2::bigint IS NULL OR entry_id < $2)"
            " ORDER BY entry_id DESC LIMIT $3",
            sale_id,
            before,
            rows_max,
        )
    return [AuditEntry(**row) for row in rows]
