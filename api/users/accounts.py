"""What happens to an account, each change one transaction with its mail and the end of its sessions.

Leaves hashing to `passwords` and who may ask to the handlers.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final, NamedTuple, Self

from api.mail.queue import put_mail
from api.tokens import Role
from api.users.links import (
    Purpose,
    drop_links,
    links_url,
    mail_link,
    peek_link,
    request_link,
    take_link,
)
from api.users.store import User, end_sessions, insert_user, lock_user, update_user
from engine.clock import Clock
from engine.core import Engine
from engine.errors import Conflict
from engine.ids import Ids
from engine.store.database import Connection, Pool, postgres_errors
from engine.store.sales import log_audit

DELETED_NAME: Final = "-"


class Ended(NamedTuple):
    """A user whose sessions are over: access tokens issued before `tokens_from` are void."""

    user: User
    tokens_from: int


class Accounts:
    """Changes of accounts. Each raises StoreUnavailable."""

    def __init__(self, pool: Pool, clock: Clock, ids: Ids, links_url: str | None) -> None:
        self._pool = pool
        self._clock = clock
        self._ids = ids
        self._links_url = links_url

    @classmethod
    def of(cls, engine: Engine) -> Self:
        return cls(engine.pool, engine.clock, engine.ids, links_url(engine.settings))

    async def register(self, email: str, password_hash: str, name: str, language: str) -> User:
        """A new buyer, and the mail with which he proves the mailbox. Raises Conflict('email_taken')."""
        async with self._transaction() as connection:
            user = await insert_user(
                connection,
                user_id=self._ids.new("usr"),
                email=email,
                password_hash=password_hash,
                name=name,
                language=language,
            )
            await mail_link(connection, user, Purpose.VERIFY, self._links_url, self._now())
        return user

    async def ask_for_link(self, purpose: Purpose, email: str) -> None:
        """Has a link mailed, if the e-mail is somebody's. Says nothing of it, nor takes longer."""
        await request_link(self._pool, purpose, email)

    async def verify_email(self, token: str) -> User | None:
        """The user whose mailbox is proven now; None if the link is not good."""
        async with self._transaction() as connection:
            link = await take_link(connection, Purpose.VERIFY, token, self._now())
            user = await lock_user(connection, link.user_id) if link else None
            if link is None or user is None or user.email != link.email:
                return None
            return await update_user(
                connection, user.user_id, email_verified_at=user.email_verified_at or self._now()
            )

    async def is_reset_good(self, token: str) -> bool:
        """Whether a link would reset a password. Asked before anything is hashed."""
        with postgres_errors():
            return await peek_link(self._pool, Purpose.RESET, token, self._now()) is not None

    async def reset_password(self, token: str, password_hash: str) -> Ended | None:
        """Sets a password by a link, which proves the mailbox too. None if the link is not good.

        Until then somebody else may have had the account, by a login elsewhere: that one goes.
        """
        async with self._transaction() as connection:
            link = await take_link(connection, Purpose.RESET, token, self._now())
            user = await lock_user(connection, link.user_id) if link else None
            if link is None or user is None or user.email != link.email:
                return None
            if user.email_verified_at is None:
                await drop_belongings(connection, user.user_id)
            proven = user.email_verified_at or self._now()
            return await self._set_password(
                connection, user, password_hash=password_hash, email_verified_at=proven
            )

    async def change_password(self, user: User, password_hash: str) -> Ended | None:
        """Sets a password in place of the one that was verified. None if that one is gone already."""
        async with self._transaction() as connection:
            now = await lock_user(connection, user.user_id)
            if now is None or now.password_hash != user.password_hash:
                return None
            return await self._set_password(connection, now, password_hash=password_hash)

    async def rehash(self, user: User, password_hash: str) -> None:
        """Keeps the same password in a better way, unless it was changed meanwhile."""
        with postgres_errors():
            await self._pool.execute(
                "UPDATE users SET password_hash = $3 WHERE user_id = $1 AND password_hash = $2",
                user.user_id,
                user.password_hash,
                password_hash,
            )

    async def change(self, user_id: str, **values: str) -> User | None:
        """Another name or language. None if there is no such user here."""
        with postgres_errors():
            return await update_user(self._pool, user_id, **values)

    async def log_out_everywhere(self, user_id: str) -> int | None:
        """From which `iat` on tokens count; None if there is no such user here."""
        async with self._transaction() as connection:
            if await lock_user(connection, user_id) is None:
                return None
            return await end_sessions(connection, user_id, self._clock)

    async def delete(self, user: User) -> Ended:
        """Forgets the person. The row stays: orders name it, and the law wants those kept."""
        async with self._transaction() as connection:
            await lock_user(connection, user.user_id)  # Nobody logs in meanwhile.
            await drop_belongings(connection, user.user_id)
            tokens_from = await end_sessions(connection, user.user_id, self._clock)
            deleted = await update_user(
                connection,
                user.user_id,
                email=None,
                password_hash=None,
                name=DELETED_NAME,
                email_verified_at=None,
                deleted_at=self._now(),
            )
        assert deleted is not None, "users are never deleted from the table"
        return Ended(deleted, tokens_from)

    async def administer(
        self, actor: str, user_id: str, *, role: Role | None, blocked: bool | None
    ) -> Ended | None:
        """Changes what a user may do; the sessions end. None if there is no such user.

        Raises Conflict where operators would lock themselves out.
        """
        if actor == user_id:
            raise Conflict("conflict", "Another operator has to change this account.")
        async with self._transaction() as connection:
            user = await lock_user(connection, user_id)
            if user is None or user.deleted_at is not None:
                return None
            changes = self._changes(user, role, blocked)
            if not changes:
                return Ended(user, user.tokens_from)
            changed = await update_user(connection, user_id, **changes)
            assert changed is not None, "it is locked"
            tokens_from = await end_sessions(connection, user_id, self._clock)
            blocked = changed.blocked_at is not None
            detail = {"user_id": user_id, "role": changed.role, "blocked": blocked}
            await log_audit(
                connection, actor=actor, action="user_changed", sale_id=None, detail=detail
            )
        return Ended(changed, tokens_from)

    def _changes(self, user: User, role: Role | None, blocked: bool | None) -> dict[str, object]:
        changes: dict[str, object] = {}
        if role is not None and role.value != user.role:
            changes["role"] = role.value
        if blocked is not None and blocked != (user.blocked_at is not None):
            changes["blocked_at"] = self._now() if blocked else None
        return changes

    async def _set_password(self, connection: Connection, user: User, **values: object) -> Ended:
        changed = await update_user(connection, user.user_id, **values)
        assert changed is not None, "it is locked"
        await drop_links(connection, user.user_id, Purpose.RESET)
        tokens_from = await end_sessions(connection, user.user_id, self._clock)
        if changed.email is not None and changed.email_verified_at is not None:
            await put_mail(
                connection,
                kind="password_changed",
                to=changed.email,
                language=changed.language,
                values={"name": changed.name},
            )
        return Ended(changed, tokens_from)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                yield connection

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)


async def drop_belongings(connection: Connection, user_id: str) -> None:
    """Forgets the links, the addresses and the logins elsewhere of a user."""
    await drop_links(connection, user_id)
    await connection.execute("DELETE FROM addresses WHERE user_id = $1", user_id)
    await connection.execute("DELETE FROM identities WHERE user_id = $1", user_id)
