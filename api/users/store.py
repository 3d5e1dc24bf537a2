"""Keeps users in Postgres. What belongs together is one transaction of `accounts`."""

from datetime import datetime
from typing import Any, Final

import asyncpg
import msgspec

from api.tokens import Role
from engine.clock import Clock
from engine.errors import Conflict
from engine.store.database import Connection, Pool, postgres_errors


class User(msgspec.Struct, frozen=True):
    """A registered user, as Postgres keeps one."""

    user_id: str
    email: str | None
    password_hash: str | None  # None: logs in with another provider
    name: str
    role: str
    language: str
    email_verified_at: datetime | None
    blocked_at: datetime | None
    deleted_at: datetime | None
    tokens_from: int
    created_at: datetime

    @property
    def may_log_in(self) -> bool:
        return self.blocked_at is None and self.deleted_at is None


COLUMNS: Final = ", ".join(User.__struct_fields__)


class Users:
    """Reads the users table."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def by_email(self, email: str) -> User | None:
        """Capital letters make no difference."""
        with postgres_errors():
            return await user_by_email(self._pool, email)

    async def by_id(self, user_id: str) -> User | None:
        with postgres_errors():
            row = await self._pool.fetchrow(
                f"SELECT {COLUMNS} FROM users WHERE user_id = $1",  # noqa: S608
                user_id,
            )
        return to_user(row)

    async def page(
        self, email: str, before: tuple[datetime, str] | None, rows_max: int
    ) -> list[User]:
        """Those whose e-mail begins so, the newest first, from below (created_at, user_id)."""
        with postgres_errors():
            rows = await self._pool.fetch(
                f"SELECT {COLUMNS} FROM users"  # noqa: S608
                r" WHERE ($1 = '' OR lower(email) LIKE lower($1) || '%')"
                " AND ($2::timestamptz IS NULL OR (created_at, user_id) < ($2, $3))"
                " ORDER BY created_at DESC, user_id DESC LIMIT $4",
                _escaped(email),
                *(before or (None, None)),
                rows_max,
            )
        return [User(*row) for row in rows]


async def user_by_email(connection: Connection, email: str) -> User | None:
    row = await connection.fetchrow(
        f"SELECT {COLUMNS} FROM users WHERE lower(email) = lower($1)",  # noqa: S608
        email,
    )
    return to_user(row)


async def lock_user(connection: Connection, user_id: str) -> User | None:
    """The user, whom nobody else changes until the transaction ends."""
    row = await connection.fetchrow(
        f"SELECT {COLUMNS} FROM users WHERE user_id = $1 FOR UPDATE",  # noqa: S608
        user_id,
    )
    return to_user(row)


async def insert_user(
    connection: Connection,
    *,
    user_id: str,
    email: str | None,
    password_hash: str | None,
    name: str,
    language: str,
    email_verified_at: datetime | None = None,
) -> User:
    """A new buyer: nobody registers as anything else. Raises Conflict('email_taken')."""
    try:
        row = await connection.fetchrow(
            "INSERT INTO users (user_id, email, password_hash, name, language, email_verified_at)"  # noqa: S608
            f" VALUES ($1, $2, $3, $4, $5, $6) RETURNING {COLUMNS}",
            user_id,
            email,
            password_hash,
            name,
            language,
            email_verified_at,
        )
    except asyncpg.UniqueViolationError as error:
        raise Conflict("email_taken", "This e-mail is registered already.") from error
    return User(*row)


async def update_user(connection: Connection, user_id: str, **values: object) -> User | None:
    """Sets columns, named by our own code. None if there is no such user."""
    assert values.keys() <= set(User.__struct_fields__), values.keys()
    changes = ", ".join(f"{name} = ${number}" for number, name in enumerate(values, 2))
    row = await connection.fetchrow(
        f"UPDATE users SET {changes} WHERE user_id = $1 RETURNING {COLUMNS}",  # noqa: S608
        user_id,
        *values.values(),
    )
    return to_user(row)


async def end_sessions(connection: Connection, user_id: str, clock: Clock) -> int:
    """Ends all sessions of a user, and voids the access tokens given until now.

    Returns from which `iat` on they count. The clock is read last: a session that was just carried
    on held its row until its token had its `iat`.
    """
    await connection.execute("DELETE FROM sessions WHERE user_id = $1", user_id)
    return await void_tokens(connection, user_id, clock)


async def void_tokens(connection: Connection, user_id: str, clock: Clock) -> int:
    """Returns from which `iat` on access tokens count.

    One given in this second cannot be told from one given before it, so the next second is the first
    that counts. Tokens given since another void of this second have that very `iat`: one more then.
    """
    tokens_from: int = await connection.fetchval(
        "UPDATE users SET tokens_from = greatest(tokens_from, $2) + 1 WHERE user_id = $1"
        " RETURNING tokens_from",
        user_id,
        clock.now_ms() // 1000,
    )
    return tokens_from


def to_user(row: Any) -> User | None:
    return User(*row) if row else None


def _escaped(text: str) -> str:
    """The text as LIKE takes it literally."""
    return text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")


def role_of(user: User) -> Role:
    return Role(user.role)
