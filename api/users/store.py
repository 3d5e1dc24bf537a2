"""Keeps users in Postgres."""

from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from engine.errors import Conflict
from engine.store.database import Pool, postgres_errors


class User(msgspec.Struct, frozen=True):
    """A registered user, as Postgres keeps one."""

    user_id: str
    email: str
    password_hash: str
    name: str
    role: str
    created_at: datetime


class Users:
    """The users table."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(self, user_id: str, email: str, password_hash: str, name: str) -> User:
        """A new buyer: nobody registers as anything else. Raises Conflict('email_taken')."""
        try:
            with postgres_errors():
                row = await self._pool.fetchrow(
                    "INSERT INTO users (user_id, email, password_hash, name)"
                    " VALUES ($1, $2, $3, $4) RETURNING *",
                    user_id,
                    email,
                    password_hash,
                    name,
                )
        except asyncpg.UniqueViolationError as error:
            raise Conflict("email_taken", "This e-mail is registered already.") from error
        return _user(row)

    async def by_email(self, email: str) -> User | None:
        """Capital letters make no difference."""
        with postgres_errors():
            row = await self._pool.fetchrow(
                "SELECT * FROM users WHERE lower(email) = lower($1)", email
            )
        return _user(row) if row else None

    async def by_id(self, user_id: str) -> User | None:
        with postgres_errors():
            row = await self._pool.fetchrow("SELECT * FROM users WHERE user_id = $1", user_id)
        return _user(row) if row else None


def _user(row: Any) -> User:
    return User(**{name: row[name] for name in User.__struct_fields__})
