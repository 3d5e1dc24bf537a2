"""Points in Postgres: rules, balances, lines. What a move does to them, 0014_points.sql decides."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from api.moments import moment_text
from api.points.bodies import Balance, DeductionBody, Expiring, GrantBody, RuleBody
from api.pricing.money import minor_per_major
from api.pricing.quote import PointsRule
from engine.errors import Conflict
from engine.store.database import Connection
from engine.store.sales import log_audit

Row = Mapping[str, Any]


async def spending_rule(connection: Connection, currency: str) -> PointsRule | None:
    """What points are worth in that currency; None where they cannot be spent."""
    row = await connection.fetchrow(
        "SELECT points_per_major, share_max_percent FROM points_rules WHERE currency = $1",
        currency,
    )
    return PointsRule(*row) if row else None


async def balance_of(connection: Connection, user_id: str, at: datetime) -> Balance:
    """What a user has at that moment: overdue points count no more, taken away already or not."""
    row = await connection.fetchrow(
        """
        SELECT balance, owed, (
            SELECT coalesce(sum(points_left), 0)::bigint FROM point_lots lots
            WHERE lots.user_id = $1 AND points_left > 0 AND expires_at <= $2) AS overdue
        FROM point_balances WHERE user_id = $1
        """,
        user_id,
        at,
    )
    if row is None:
        return Balance(0, 0, None)
    following = await connection.fetchrow(
        """
        SELECT expires_at, sum(points_left)::bigint AS points FROM point_lots
        WHERE user_id = $1 AND points_left > 0 AND expires_at > $2
        GROUP BY expires_at ORDER BY expires_at LIMIT 1
        """,
        user_id,
        at,
    )
    expiring = following and Expiring(following["points"], moment_text(following["expires_at"]))
    return Balance(row["balance"] - row["overdue"], row["owed"], expiring)


async def lines_of(
    connection: Connection, user_id: str, *, before: int | None, rows_max: int
) -> list[Row]:
    """Newest first, from below the line `before` on."""
    rows: list[Row] = await connection.fetch(
        "SELECT line_id, kind, points, sale_id, reservation_id, reason, expires_at, at"
        " FROM point_lines WHERE user_id = $1 AND ($2::bigint IS NULL OR line_id < $2)"
        " ORDER BY line_id DESC LIMIT $3",
        user_id,
        before,
        rows_max,
    )
    return rows


async def grant(
    connection: Connection,
    actor: str,
    user_id: str,
    body: GrantBody,
    *,
    key: str | None,
    at: datetime,
) -> None:
    """Gives points, once per key, with the audit entry. Raises Conflict for a key of other points."""
    if await _is_done(connection, user_id, key, body.points):
        return
    days = body.valid_days
    await connection.execute(
        "SELECT book_points(ARRAY[($1, 'granted', $2, NULL, NULL, $3, $4, $5)::point_move])",
        user_id,
        body.points,
        body.reason,
        key,
        None if days is None else at + timedelta(days=days),
    )
    await _log(connection, actor, "points_granted", user_id, body)


async def deduct(
    connection: Connection,
    actor: str,
    user_id: str,
    body: DeductionBody,
    *,
    key: str | None,
    at: datetime,
) -> None:
    """Takes points that are there, as `grant` gives. Raises Conflict `points_short`."""
    if await _is_done(connection, user_id, key, -body.points):
        return
    if not await connection.fetchval(
        "SELECT spend_points(($1, 'deducted', $2, NULL, NULL, $3, $4, NULL)::point_move, $5)",
        user_id,
        -body.points,
        body.reason,
        key,
        at,
    ):
        raise Conflict("points_short", f"There are fewer than {body.points} points.")
    await _log(connection, actor, "points_deducted", user_id, body)


async def list_rules(connection: Connection) -> list[Row]:
    rows: list[Row] = await connection.fetch("SELECT * FROM points_rules ORDER BY currency")
    return rows


async def put_rule(connection: Connection, actor: str, currency: str, body: RuleBody) -> Row:
    """The rule, in place of the one that the currency had."""
    row: Row = await connection.fetchrow(
        """
        INSERT INTO points_rules (currency, minor_per_major, earned_per_major, points_per_major,
                                  share_max_percent, valid_days)
        VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (currency) DO UPDATE
            SET earned_per_major = $3, points_per_major = $4, share_max_percent = $5,
                valid_days = $6, updated_at = now()
        RETURNING *
        """,
        currency,
        minor_per_major(currency),
        Decimal(body.earned_per_thousand) / 1000,
        body.points_per_major,
        body.share_max_percent,
        body.valid_days,
    )
    detail: dict[str, object] = {"currency": currency, "rule": body}
    await log_audit(connection, actor=actor, action="points_rule_set", sale_id=None, detail=detail)
    return row


async def remove_rule(connection: Connection, actor: str, currency: str) -> Row | None:
    """The rule that was there."""
    row: Row | None = await connection.fetchrow(
        "DELETE FROM points_rules WHERE currency = $1 RETURNING *", currency
    )
    if row is not None:
        await log_audit(
            connection,
            actor=actor,
            action="points_rule_removed",
            sale_id=None,
            detail={"currency": currency},
        )
    return row


async def expire(connection: Connection, at: datetime, *, users_max: int) -> int:
    """Takes overdue points away; from how many users."""
    users: int = await connection.fetchval(
        """
        SELECT expire_points(ARRAY(
            SELECT DISTINCT user_id FROM (
                SELECT user_id FROM point_lots WHERE points_left > 0 AND expires_at <= $1
                ORDER BY expires_at LIMIT $2) AS overdue), $1)
        """,
        at,
        users_max,
    )
    return users


async def _is_done(connection: Connection, user_id: str, key: str | None, points: int) -> bool:
    """Whether this was done with this key before. Those with the same key take turns."""
    if key is None:
        return False
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 14))", user_id)
    done = await connection.fetchval(
        "SELECT points FROM point_lines WHERE user_id = $1 AND reference = $2", user_id, key
    )
    if done is not None and done != points:
        raise Conflict("idempotency_mismatch", "The key was used for other points.")
    return done is not None


async def _log(
    connection: Connection, actor: str, action: str, user_id: str, body: GrantBody | DeductionBody
) -> None:
    detail: dict[str, object] = {
        "user_id": user_id,
        "points": body.points,
        "reason": body.reason,
    }
    await log_audit(connection, actor=actor, action=action, sale_id=None, detail=detail)
