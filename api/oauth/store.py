"""Keeps logins that went to the provider, until they come back, once; and who is who there."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final, Self

import asyncpg
import msgspec

from api.mail.queue import RECIPIENT, RECIPIENT_LENGTH_MAX
from api.oauth.id_token import IdClaims
from api.users.accounts import drop_belongings
from api.users.links import Purpose, links_url, mail_link
from api.users.store import (
    User,
    end_sessions,
    insert_user,
    lock_user,
    update_user,
    user_by_email,
)
from engine.clock import Clock
from engine.core import Engine
from engine.errors import Conflict
from engine.ids import Ids
from engine.store.database import Connection, Pool, postgres_errors

LIFETIME: Final = timedelta(minutes=10)  # To find one's password at the provider.
NAME_LENGTH_MAX: Final = 100
NAMELESS: Final = "-"


class Begun(msgspec.Struct, frozen=True):
    """A login that was sent away, as it has to come back."""

    nonce: str
    verifier: str
    return_to: str
    wants_tokens: bool


class Logins:
    """The tables oauth_logins and identities."""

    def __init__(self, pool: Pool, clock: Clock, ids: Ids, links_url: str | None) -> None:
        self._pool = pool
        self._clock = clock
        self._ids = ids
        self._links_url = links_url

    @classmethod
    def of(cls, engine: Engine) -> Self:
        return cls(engine.pool, engine.clock, engine.ids, links_url(engine.settings))

    async def begin(self, state: str, browser: str, begun: Begun) -> None:
        with postgres_errors():
            await self._pool.execute(
                "INSERT INTO oauth_logins (state_hash, browser_hash, nonce, verifier, return_to,"
                " wants_tokens, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
                _hashed(state),
                _hashed(browser),
                *msgspec.structs.astuple(begun),
                self._now() + LIFETIME,
            )

    async def take(self, state: str, browser: str) -> Begun | None:
        """The login that this very browser began; nobody gets it twice."""
        with postgres_errors():
            row = await self._pool.fetchrow(
                "DELETE FROM oauth_logins"
                " WHERE state_hash = $1 AND browser_hash = $2 AND expires_at > $3"
                " RETURNING nonce, verifier, return_to, wants_tokens",
                _hashed(state),
                _hashed(browser),
                self._now(),
            )
        return Begun(*row) if row else None

    async def user_of(self, claims: IdClaims, language: str) -> User:
        """The user that the provider vouches for; a new one the first time.

        Raises Conflict('email_taken') where somebody has the e-mail that the provider did not verify.
        """
        try:
            return await self._user_of(claims, language)
        except (asyncpg.UniqueViolationError, Conflict):
            # The same person in two windows; or, the second time too, somebody else's e-mail.
            return await self._user_of(claims, language)

    async def _user_of(self, claims: IdClaims, language: str) -> User:
        async with self._transaction() as connection:
            user_id = await connection.fetchval(
                "SELECT user_id FROM identities WHERE issuer = $1 AND subject = $2",
                claims.iss,
                claims.sub,
            )
            if user_id is not None:
                user = await lock_user(connection, user_id)
                assert user is not None, "identities have a foreign key"
                return user
            user = await self._linkable(connection, claims) or await self._new(
                connection, claims, language
            )
            await connection.execute(
                "INSERT INTO identities (issuer, subject, user_id) VALUES ($1, $2, $3)",
                claims.iss,
                claims.sub,
                user.user_id,
            )
        return user

    async def _linkable(self, connection: Connection, claims: IdClaims) -> User | None:
        """The user here who has the same e-mail, if the provider verified it."""
        email = _email_of(claims)
        found = await user_by_email(connection, email) if email and _is_verified(claims) else None
        user = await lock_user(connection, found.user_id) if found else None
        if user is None or user.email is None or user.deleted_at is not None:
            return None
        return user if user.email_verified_at else await self._clear(connection, user, claims)

    async def _clear(self, connection: Connection, user: User, claims: IdClaims) -> User:
        """An account whose e-mail nobody had proven, now its owner's.

        Somebody else may have registered it and wait inside: his password, sessions, links,
        addresses and other logins go, and the name he chose.
        """
        await drop_belongings(connection, user.user_id)
        await end_sessions(connection, user.user_id, self._clock)
        cleared = await update_user(
            connection,
            user.user_id,
            password_hash=None,
            name=_name_of(claims, user.email),
            email_verified_at=self._now(),
        )
        assert cleared is not None, "it is locked"
        return cleared

    async def _new(self, connection: Connection, claims: IdClaims, language: str) -> User:
        email = _email_of(claims)
        verified = email is not None and _is_verified(claims)
        user = await insert_user(
            connection,
            user_id=self._ids.new("usr"),
            email=email,
            password_hash=None,
            name=_name_of(claims, email),
            language=language,
            email_verified_at=self._now() if verified else None,
        )
        if email is not None and not verified:
            await mail_link(connection, user, Purpose.VERIFY, self._links_url, self._now())
        return user

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                yield connection

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)


def _email_of(claims: IdClaims) -> str | None:
    """The e-mail, if a mail can go there."""
    email = claims.email or ""
    fits = len(email) <= RECIPIENT_LENGTH_MAX and RECIPIENT.fullmatch(email)
    return email if fits else None


def _is_verified(claims: IdClaims) -> bool:
    return claims.email_verified is True or claims.email_verified == "true"  # Some write it so.


def _name_of(claims: IdClaims, email: str | None) -> str:
    told = claims.name or (email or "").partition("@")[0]
    printable = "".join(letter for letter in told if letter.isprintable())
    return printable[:NAME_LENGTH_MAX] or NAMELESS


def _hashed(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
