"""Coupons as operators make, list and withdraw them. Every change is in the audit log."""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final

from api.promotions.bodies import CodesBody
from api.promotions.coupons import random_code
from engine.errors import Conflict
from engine.ids import Ids
from engine.store.database import Connection
from engine.store.sales import log_audit

CODES_OF_PROMOTION_MAX: Final = 100_000  # One export is one answer of a few megabytes.
_LOGGED_MAX: Final = 100

# Those for everybody are counted here: at checkout they shall not wait for each other.
_COLUMNS: Final = """code, uses_max, owner_id, withdrawn_at, created_at,
    CASE WHEN uses_max IS NOT NULL THEN used ELSE (
        SELECT count(*) FROM redemptions WHERE redemptions.code = coupons.code AND state = 'taken'
    ) END AS used"""

Row = Mapping[str, Any]


async def add_codes(
    connection: Connection, actor: str, promotion_id: str, body: CodesBody, ids: Ids
) -> list[str] | None:
    """The codes, or None if there is no such promotion. Raises Conflict."""
    by_code = await connection.fetchval(
        "SELECT by_code FROM promotions WHERE promotion_id = $1 FOR NO KEY UPDATE", promotion_id
    )
    if by_code is None:
        return None
    if not by_code:
        raise Conflict("conflict", "This promotion applies without a code.")
    await _check_room(connection, promotion_id, body.count)
    codes = [body.code] if body.code else [_code(body.prefix, ids) for _ in range(body.count)]
    made = await _insert(connection, promotion_id, codes, body.uses_max)
    if len(made) < len(codes):  # Of random ones: two of 2^60 are the same, so ask again.
        raise Conflict("code_taken", "There is a coupon of such a code already.")
    await log_audit(
        connection,
        actor=actor,
        action="coupons_created",
        sale_id=None,
        detail={
            "promotion_id": promotion_id,
            "count": len(made),
            "uses_max": body.uses_max,
            "codes": made[:_LOGGED_MAX],
        },
    )
    return made


async def withdraw_code(
    connection: Connection, actor: str, promotion_id: str, code: str
) -> Row | None:
    """The coupon, which is good for nothing from now on; None if the promotion has no such one."""
    row: Row | None = await connection.fetchrow(
        "UPDATE coupons SET withdrawn_at = coalesce(withdrawn_at, now())"  # noqa: S608  # constant
        " WHERE promotion_id = $1 AND code = $2"
        f" RETURNING {_COLUMNS}",
        promotion_id,
        code,
    )
    if row is not None:
        await log_audit(
            connection,
            actor=actor,
            action="coupon_withdrawn",
            sale_id=None,
            detail={"promotion_id": promotion_id, "code": code},
        )
    return row


async def list_codes(
    connection: Connection, promotion_id: str, *, after: str | None, rows_max: int
) -> list[Row]:
    """By code, from above `after` on."""
    rows: list[Row] = await connection.fetch(
        f"SELECT {_COLUMNS} FROM coupons"  # noqa: S608  # constant
        " WHERE promotion_id = $1 AND ($2::text IS NULL OR code > $2) ORDER BY code LIMIT $3",
        promotion_id,
        after,
        rows_max,
    )
    return rows


def codes_as_csv(rows: list[Row]) -> bytes:
    """What marketing sends out. No field needs quoting."""
    lines = ["code,uses_max,used,claimed,withdrawn"]
    lines += (
        f"{row['code']},{row['uses_max'] or ''},{row['used']},"
        f"{_yes(row['owner_id'] is not None)},{_yes(row['withdrawn_at'] is not None)}"
        for row in rows
    )
    return ("\r\n".join(lines) + "\r\n").encode()


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _code(prefix: str, ids: Ids) -> str:
    number = blake2b(ids.new("coupon").encode(), digest_size=8).digest()
    return random_code(prefix, int.from_bytes(number))


async def _check_room(connection: Connection, promotion_id: str, count: int) -> None:
    there = await connection.fetchval(
        "SELECT count(*) FROM coupons WHERE promotion_id = $1", promotion_id
    )
    if there + count > CODES_OF_PROMOTION_MAX:
        raise Conflict("conflict", f"A promotion has at most {CODES_OF_PROMOTION_MAX} codes.")


async def _insert(
    connection: Connection, promotion_id: str, codes: list[str], uses_max: int | None
) -> list[str]:
    rows = await connection.fetch(
        "INSERT INTO coupons (code, promotion_id, uses_max)"
        " SELECT code, $1, $2 FROM unnest($3::text[]) AS code ORDER BY code"
        " ON CONFLICT DO NOTHING RETURNING code",
        promotion_id,
        uses_max,
        codes,
    )
    return [row["code"] for row in rows]
