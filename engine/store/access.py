"""The access rules in Postgres. What they mean, engine/admission/access.py knows."""

from datetime import datetime
from typing import NamedTuple

from engine.store.database import Connection, Pool


class RuleRow(NamedTuple):
    """A row of access_rules, without its id."""

    subject: str
    verdict: str
    sale_id: str | None
    reason: str
    actor: str
    created_at: datetime
    expires_at: datetime | None


class RulesVersion(NamedTuple):
    """Another one whenever a rule was added, replaced or removed: ids only grow."""

    rules: int
    newest: int


_COLUMNS = ", ".join(RuleRow._fields)


async def lock_rules(connection: Connection) -> None:
    """Changes take turns until the transaction ends, so that they can be counted."""
    await connection.execute("LOCK TABLE access_rules IN SHARE ROW EXCLUSIVE MODE")


async def delete_expired_rules(connection: Connection, now: datetime) -> None:
    await connection.execute("DELETE FROM access_rules WHERE expires_at <= $1", now)


async def delete_rule(connection: Connection, subject: str, sale_id: str | None) -> RuleRow | None:
    """The rule that was there."""
    row = await connection.fetchrow(
        f"DELETE FROM access_rules WHERE subject = $1 AND sale_id IS NOT DISTINCT FROM $2"  # noqa: S608
        f" RETURNING {_COLUMNS}",
        subject,
        sale_id,
    )
    return RuleRow(*row) if row else None


async def insert_rule(connection: Connection, rule: RuleRow) -> int | None:
    """Its id, or None if there is no such sale."""
    rule_id: int | None = await connection.fetchval(
        f"INSERT INTO access_rules ({_COLUMNS})"  # noqa: S608
        " SELECT $1, $2, $3, $4, $5, $6::timestamptz, $7::timestamptz"
        " WHERE $3::text IS NULL OR EXISTS (SELECT FROM sales WHERE sale_id = $3)"
        " RETURNING rule_id",
        *rule,
    )
    return rule_id


async def count_rules(connection: Connection) -> int:
    count: int = await connection.fetchval("SELECT count(*) FROM access_rules")
    return count


async def fetch_rules_version(pool: Pool) -> RulesVersion:
    row = await pool.fetchrow("SELECT count(*), coalesce(max(rule_id), 0) FROM access_rules")
    return RulesVersion(*row)


async def fetch_rules(
    pool: Pool, now: datetime, *, before: int | None, rows_max: int
) -> list[tuple[int, RuleRow]]:
    """A page of those that count at that moment, with their ids: newest first, from below `before`."""
    rows = await pool.fetch(
        f"SELECT rule_id, {_COLUMNS} FROM access_rules"  # noqa: S608
        " WHERE (expires_at IS NULL OR expires_at > $1) AND ($2::bigint IS NULL OR rule_id < $2)"
        " ORDER BY rule_id DESC LIMIT $3",
        now,
        before,
        rows_max,
    )
    return [(row[0], RuleRow(*row[1:])) for row in rows]
