"""Promotions and coupons as buyers see and claim them. Redeeming them is store.py's."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from api.promotions.coupons import Fault, fault_of
from api.promotions.store import FIND_COUPONS
from engine.errors import Conflict
from engine.store.database import Connection

CLAIMS_MAX: Final = 100  # Coupons in one wallet.
OFFERS_MAX: Final = 100

Row = Mapping[str, Any]


async def public_promotions(connection: Connection, at: datetime) -> list[Row]:
    """What is offered to everybody at that moment; `code` is one for all, where there is one."""
    rows: list[Row] = await connection.fetch(
        """
        SELECT promotions.promotion_id, terms, by_code, valid_from, valid_until, (
            SELECT min(code) FROM coupons
            WHERE coupons.promotion_id = promotions.promotion_id
              AND coupons.uses_max IS NULL AND withdrawn_at IS NULL) AS code
        FROM promotions JOIN promotion_revisions USING (promotion_id, revision)
        JOIN promotion_counts counts USING (promotion_id)
        WHERE active AND public AND valid_from <= $1 AND (valid_until IS NULL OR $1 < valid_until)
          AND (counts.uses_max IS NULL OR counts.used < counts.uses_max)
        ORDER BY by_code, priority, promotions.promotion_id LIMIT $2
        """,
        at,
        OFFERS_MAX,
    )
    return rows


async def find_coupons(connection: Connection, codes: Sequence[str], user_id: str) -> list[Row]:
    """Rows for `fault_of`, with `by_code` and whether this user has claimed them."""
    rows = await connection.fetch(FIND_COUPONS, list(codes), user_id)
    claimed = set(await claimed_codes(connection, user_id))
    return [dict(row) | {"by_code": True, "claimed": row["code"] in claimed} for row in rows]


async def claimed_codes(connection: Connection, user_id: str) -> list[str]:
    """The last claimed first."""
    rows = await connection.fetch(
        "SELECT code FROM coupon_claims WHERE user_id = $1 ORDER BY claimed_at DESC, code LIMIT $2",
        user_id,
        CLAIMS_MAX,
    )
    return [row["code"] for row in rows]


async def claim(connection: Connection, user_id: str, code: str, at: datetime) -> Row:
    """Puts a coupon into a wallet; one for single use is nobody else's from then on.

    The row has `new`: false if it was there before. Raises Conflict by a Fault.
    """
    # Claims of one user take turns, so that they can be counted.
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 13))", user_id)
    # Whoever claims the same code waits here, and then sees whose it is.
    await connection.execute("SELECT FROM coupons WHERE code = $1 FOR NO KEY UPDATE", code)
    found = await find_coupons(connection, [code], user_id)
    if not found:
        raise Conflict(Fault.UNKNOWN, "There is no such coupon.")
    row = found[0]
    if row["claimed"]:
        return {**row, "new": False}
    # A coupon may be claimed before its time.
    fault = fault_of(row, user_id=user_id, currency=None, at=max(at, row["valid_from"]))
    if fault is not None:
        raise Conflict(fault, "This coupon cannot be claimed.")
    if len(await claimed_codes(connection, user_id)) >= CLAIMS_MAX:
        raise Conflict("limit_reached", f"A wallet holds at most {CLAIMS_MAX} coupons.")
    await connection.execute(
        "INSERT INTO coupon_claims (user_id, code) VALUES ($1, $2)", user_id, code
    )
    if row["code_uses_max"] == 1:
        await connection.execute("UPDATE coupons SET owner_id = $2 WHERE code = $1", code, user_id)
    return {**row, "claimed": True, "new": True}
