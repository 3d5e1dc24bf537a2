"""Keeps sessions: opened by a log-in, carried on by refresh tokens that rotate, ended.

Leaves access tokens to `api.tokens` and cookies to `browser`.
"""

import hashlib
import hmac
import logging
import secrets
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, Self

import msgspec

from api.users.store import COLUMNS, User, to_user, void_tokens
from engine.clock import Clock
from engine.core import Engine
from engine.ids import Ids
from engine.store.database import Connection, Pool, postgres_errors

logger = logging.getLogger(__name__)

TOKEN_BYTES: Final = 32
REFRESH_LENGTH_MAX: Final = 128
GRACE: Final = timedelta(seconds=10)  # For a retry of a refresh whose answer was lost.
SESSIONS_MAX: Final = 50  # Of one user; the one unused for longest goes.
USER_AGENT_MAX: Final = 256  # Characters kept.


class Session(msgspec.Struct, frozen=True):
    """One log-in of a user, as Postgres keeps it."""

    session_id: str
    by_cookie: bool
    user_agent: str
    created_at: datetime
    used_at: datetime
    expires_at: datetime


_COLUMNS: Final = ", ".join(Session.__struct_fields__)


class Opened(NamedTuple):
    """A session that goes on, and the token that carries it further."""

    user: User
    session_id: str
    refresh_token: str
    expires_at: datetime
    at: datetime

    @property
    def issued_at(self) -> int:
        """The `iat` of its access token, read before its transaction ended.

        Whoever takes the user's role or ends his sessions after it reads the clock later.
        """
        return max(int(self.at.timestamp()), self.user.tokens_from)


class Reused(NamedTuple):
    """A refresh token that was used up: someone else may have it, so the session is over."""

    user_id: str
    tokens_from: int


class Sessions:
    """The sessions table.

    A refresh token is `<session id>.<256 bits>`: the first at random, each next one the HMAC of the
    one before under the engine's secret. So a retry within GRACE gives the same token again, and
    there is never more than one that is good. Any older one, once shown, ends the session
    (RFC 9700 §4.14).
    """

    def __init__(self, pool: Pool, clock: Clock, ids: Ids, secret: str, seconds: int) -> None:
        self._pool = pool
        self._clock = clock
        self._ids = ids
        self._key = hmac.digest(secret.encode(), b"doorbuster refresh tokens", "sha256")
        self._lifetime = timedelta(seconds=seconds)

    @classmethod
    def of(cls, engine: Engine) -> Self:
        settings = engine.settings
        assert settings.secret is not None, "Front.of refuses to go on without it"
        return cls(
            engine.pool, engine.clock, engine.ids, settings.secret, settings.refresh_token_seconds
        )

    async def open(self, user: User, *, by_cookie: bool, user_agent: str) -> Opened | None:
        """A new session; None if the user was blocked meanwhile. Raises StoreUnavailable."""
        session_id, now = self._ids.new("ses"), self._now()
        token = f"{session_id}.{secrets.token_urlsafe(TOKEN_BYTES)}"
        expires_at = now + self._lifetime
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                # Those who block the user or end his sessions wait until this one is there.
                row = await connection.fetchrow(
                    f"SELECT {COLUMNS} FROM users WHERE user_id = $1 FOR SHARE",  # noqa: S608
                    user.user_id,
                )
                current = to_user(row)
                if current is None or not current.may_log_in:
                    return None
                if current.password_hash != user.password_hash:
                    return None  # It was changed after the old one was verified.
                await _make_room(connection, user.user_id)
                await connection.execute(
                    "INSERT INTO sessions (session_id, user_id, refresh_hash, rotated_at, by_cookie,"
                    " user_agent, created_at, used_at, expires_at)"
                    " VALUES ($1, $2, $3, $4, $5, $6, $4, $4, $7)",
                    session_id,
                    user.user_id,
                    _hashed(token),
                    now,
                    by_cookie,
                    _fit(user_agent),
                    expires_at,
                )
        return Opened(current, session_id, token, expires_at, now)

    async def refresh(self, token: str) -> Opened | Reused | None:
        """The session with its next token; None if there is no such session (any more).

        Raises StoreUnavailable.
        """
        session_id = token.partition(".")[0]
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                row = await connection.fetchrow(
                    "SELECT user_id, refresh_hash, previous_hash, rotated_at, expires_at"
                    " FROM sessions WHERE session_id = $1 AND expires_at > $2 FOR UPDATE",
                    session_id,
                    self._now(),
                )
                return None if row is None else await self._turn(connection, row, token)

    async def of_user(self, user_id: str) -> list[Session]:
        """Those that go on, the last used first."""
        with postgres_errors():
            rows = await self._pool.fetch(
                f"SELECT {_COLUMNS} FROM sessions WHERE user_id = $1 AND expires_at > $2"  # noqa: S608
                " ORDER BY used_at DESC, session_id",
                user_id,
                self._now(),
            )
        return [Session(*row) for row in rows]

    async def end(self, user_id: str, session_id: str) -> bool:
        """Whether this user had that session."""
        with postgres_errors():
            ended = await self._pool.fetchval(
                "DELETE FROM sessions WHERE session_id = $1 AND user_id = $2 RETURNING true",
                session_id,
                user_id,
            )
        return bool(ended)

    async def _turn(self, connection: Connection, row: Any, token: str) -> Opened | Reused | None:
        session_id, shown, now = token.partition(".")[0], _hashed(token), self._now()
        following = self._following(token)
        user = User(
            *await connection.fetchrow(
                f"SELECT {COLUMNS} FROM users WHERE user_id = $1",  # noqa: S608
                row["user_id"],
            )
        )
        if not user.may_log_in:
            return None
        if hmac.compare_digest(shown, row["refresh_hash"]):
            expires_at = now + self._lifetime
            await connection.execute(
                "UPDATE sessions SET refresh_hash = $2, previous_hash = $3, rotated_at = $4,"
                " used_at = $4, expires_at = $5 WHERE session_id = $1",
                session_id,
                _hashed(following),
                shown,
                now,
                expires_at,
            )
            return Opened(user, session_id, following, expires_at, now)
        if _is_retry(row, shown, now):
            return Opened(user, session_id, following, row["expires_at"], now)
        await connection.execute("DELETE FROM sessions WHERE session_id = $1", session_id)
        # The user's other sessions go on: they refresh. Access tokens of the thief's do not.
        tokens_from = await void_tokens(connection, user.user_id, self._clock)
        logger.warning(
            "A refresh token was used again: session %s is over.",
            session_id,
            extra={"action": "refresh_token_reused"},
        )
        return Reused(user.user_id, tokens_from)

    def _following(self, token: str) -> str:
        digest = hmac.digest(self._key, token.encode(), "sha256")
        text = urlsafe_b64encode(digest).decode().rstrip("=")
        return f"{token.partition('.')[0]}.{text}"

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)


def _is_retry(row: Any, shown: bytes, now: datetime) -> bool:
    """Whether it is the token before the present one, shown again at once."""
    previous = row["previous_hash"]
    return (
        previous is not None
        and hmac.compare_digest(shown, previous)
        and now - row["rotated_at"] <= GRACE
    )


async def _make_room(connection: Connection, user_id: str) -> None:
    await connection.execute(
        "DELETE FROM sessions WHERE session_id IN (SELECT session_id FROM sessions"
        " WHERE user_id = $1 ORDER BY used_at DESC OFFSET $2)",
        user_id,
        SESSIONS_MAX - 1,
    )


def _hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _fit(user_agent: str) -> str:
    """A header may hold any bytes; a text in Postgres may not, nor one in JSON."""
    told = user_agent.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return told.replace("\x00", "")[:USER_AGENT_MAX]
