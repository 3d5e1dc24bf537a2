"""Promotions as operators make, change and stop them. Every change is in the audit log.

What was promised is never edited: other terms are another revision, and what was redeemed points
at its own.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import asyncpg
import msgspec

from api.moments import in_utc
from api.promotions.bodies import PromotionBody, PromotionChange
from api.promotions.terms import Terms, as_stored, check_terms
from engine.errors import Conflict, Invalid
from engine.store.database import Connection
from engine.store.sales import log_audit

REVISIONS_SHOWN_MAX: Final = 200

Row = Mapping[str, Any]

_SELECT: Final = """
    SELECT promotions.promotion_id, revision, terms, by_code, public, active, valid_from,
           valid_until, per_user_max, promotions.uses_max, created_at,
           CASE WHEN promotion_counts.uses_max IS NOT NULL THEN used ELSE (
               SELECT count(*) FROM (
                   SELECT FROM redemptions
                   WHERE redemptions.promotion_id = promotions.promotion_id AND state = 'taken'
                   LIMIT 100000) AS taken) END AS used
    FROM promotions JOIN promotion_revisions USING (promotion_id, revision)
    JOIN promotion_counts USING (promotion_id)
"""


async def add_promotion(
    connection: Connection, actor: str, promotion_id: str, body: PromotionBody, now: datetime
) -> None:
    """Raises Invalid."""
    check_terms(body.terms)
    since, until = _validity(body.valid_from or now, body.valid_until)
    await connection.execute(
        """
        INSERT INTO promotions (promotion_id, kind, by_code, public, new_buyers_only, priority,
                                valid_from, valid_until, per_user_max, uses_max)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        """,
        promotion_id,
        body.terms.kind,
        body.by_code,
        body.public,
        body.terms.new_buyers_only,
        body.terms.priority,
        since,
        until,
        _per_user_max(body),
        body.uses_max,
    )
    await connection.execute(
        "INSERT INTO promotion_counts (promotion_id, uses_max) VALUES ($1, $2)",
        promotion_id,
        body.uses_max,
    )
    await _add_revision(connection, actor, promotion_id, 1, body.terms)
    await _log(connection, actor, "promotion_created", promotion_id, body)


async def change_promotion(
    connection: Connection, actor: str, promotion_id: str, body: PromotionChange
) -> bool:
    """False if there is no such promotion. Raises Invalid, and Conflict for a cap below what is used."""
    check_terms(body.terms)
    since, until = _validity(body.valid_from, body.valid_until)
    known = await find_promotion(connection, promotion_id, lock=True)
    if known is None:
        return False
    revision = known["revision"]
    if as_stored(known["terms"]) != body.terms:
        revision += 1
        await _add_revision(connection, actor, promotion_id, revision, body.terms)
    await connection.execute(
        """
        UPDATE promotions SET revision = $2, kind = $3, public = $4, new_buyers_only = $5,
            priority = $6, valid_from = $7, valid_until = $8, per_user_max = $9, uses_max = $10
        WHERE promotion_id = $1
        """,
        promotion_id,
        revision,
        body.terms.kind,
        body.public,
        body.terms.new_buyers_only,
        body.terms.priority,
        since,
        until,
        _per_user_max(body),
        body.uses_max,
    )
    await _set_cap(connection, promotion_id, body.uses_max)
    await _log(connection, actor, "promotion_changed", promotion_id, body)
    return True


async def set_active(
    connection: Connection, actor: str, promotion_id: str, *, active: bool
) -> bool:
    """False if there is no such promotion; setting it again changes nothing."""
    was = await connection.fetchval(
        "SELECT active FROM promotions WHERE promotion_id = $1 FOR NO KEY UPDATE", promotion_id
    )
    if was is None:
        return False
    if was != active:
        await connection.execute(
            "UPDATE promotions SET active = $2 WHERE promotion_id = $1", promotion_id, active
        )
        action = "promotion_activated" if active else "promotion_deactivated"
        await _log(connection, actor, action, promotion_id, None)
    return True


async def find_promotion(
    connection: Connection, promotion_id: str, *, lock: bool = False
) -> Row | None:
    locking = " FOR NO KEY UPDATE OF promotions" if lock else ""
    row: Row | None = await connection.fetchrow(
        f"{_SELECT} WHERE promotions.promotion_id = $1{locking}", promotion_id
    )
    return row


async def list_promotions(
    connection: Connection, *, active: bool | None, after: str | None, rows_max: int
) -> list[Row]:
    """By id, from above `after` on."""
    rows: list[Row] = await connection.fetch(
        _SELECT + " WHERE ($1::boolean IS NULL OR active = $1)"
        " AND ($2::text IS NULL OR promotions.promotion_id > $2)"
        " ORDER BY promotions.promotion_id LIMIT $3",
        active,
        after,
        rows_max,
    )
    return rows


async def list_revisions(connection: Connection, promotion_id: str) -> list[Row]:
    rows: list[Row] = await connection.fetch(
        "SELECT revision, terms, actor, at FROM promotion_revisions WHERE promotion_id = $1"
        " ORDER BY revision DESC LIMIT $2",
        promotion_id,
        REVISIONS_SHOWN_MAX,
    )
    return rows


async def list_redemptions(
    connection: Connection,
    promotion_id: str,
    *,
    before: tuple[datetime, str] | None,
    rows_max: int,
) -> list[Row]:
    """Newest first, from below that moment and reservation on."""
    moment, reservation_id = before or (None, None)
    rows: list[Row] = await connection.fetch(
        "SELECT * FROM redemptions WHERE promotion_id = $1"
        " AND ($2::timestamptz IS NULL OR (taken_at, reservation_id) < ($2, $3::text))"
        " ORDER BY taken_at DESC, reservation_id DESC LIMIT $4",
        promotion_id,
        moment,
        reservation_id,
        rows_max,
    )
    return rows


def _per_user_max(body: PromotionBody | PromotionChange) -> int | None:
    """Who is new is so for several checkouts at once, until one of them is an order: one counts."""
    return 1 if body.terms.new_buyers_only else body.per_user_max


def _validity(since: datetime, until: datetime | None) -> tuple[datetime, datetime | None]:
    since = in_utc("valid_from", since)
    if until is not None and (until := in_utc("valid_until", until)) <= since:
        raise Invalid("valid_until", "is not after valid_from")
    return since, until


async def _add_revision(
    connection: Connection, actor: str, promotion_id: str, revision: int, terms: Terms
) -> None:
    await connection.execute(
        "INSERT INTO promotion_revisions (promotion_id, revision, terms, actor)"
        " VALUES ($1, $2, $3, $4)",
        promotion_id,
        revision,
        terms,
        actor,
    )


async def _set_cap(connection: Connection, promotion_id: str, uses_max: int | None) -> None:
    """Uses are counted while there is a cap: whoever sets one waits for those who redeem, and counts."""
    await connection.execute(
        "SELECT FROM promotion_counts WHERE promotion_id = $1 FOR UPDATE", promotion_id
    )
    try:
        async with connection.transaction():
            await connection.execute(
                """
                UPDATE promotion_counts SET uses_max = $2, used = CASE
                    WHEN uses_max IS NOT NULL THEN used
                    ELSE (SELECT count(*) FROM redemptions
                          WHERE promotion_id = $1 AND state = 'taken') END
                WHERE promotion_id = $1
                """,
                promotion_id,
                uses_max,
            )
    except asyncpg.CheckViolationError:
        raise Conflict("conflict", f"More than {uses_max} are redeemed already.") from None


async def _log(
    connection: Connection, actor: str, action: str, promotion_id: str, body: object
) -> None:
    detail: dict[str, object] = {"promotion_id": promotion_id}
    if body is not None:
        detail |= msgspec.to_builtins(body)
    await log_audit(connection, actor=actor, action=action, sale_id=None, detail=detail)
