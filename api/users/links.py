"""One-time links that prove a mailbox: made here, mailed by the worker, taken back once.

Postgres keeps only their SHA-256; the token itself stands in the mail alone.
"""

import asyncio
import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final
from urllib.parse import urlencode

import msgspec

from api.mail.queue import put_mail
from api.users.store import User, user_by_email
from engine.clock import Clock
from engine.config import Settings
from engine.polling import poll
from engine.store.database import Connection, Pool, postgres_errors

TOKEN_BYTES: Final = 32
TOKEN_LENGTH_MAX: Final = 64
BATCH_MAX: Final = 100
IDLE_SECONDS: Final = 0.5
REPEAT_SECONDS: Final = 60  # Who asks again sooner has a mail on its way.
# Of one user and purpose. Anyone may ask: with so many good links in it, no mailbox gets another.
LIVE_MAX: Final = 3
UNPROVEN_MAX: Final = 6  # Mails a day to a mailbox nobody proved, however often it is registered.


class Purpose(StrEnum):
    """What a link is good for; the kind of its mail, too."""

    VERIFY = "verify"
    RESET = "reset"


LIFETIME: Final = {
    Purpose.VERIFY: timedelta(days=3),  # People read mails after a weekend.
    Purpose.RESET: timedelta(hours=1),
}
_PAGE: Final = {Purpose.VERIFY: "/verify", Purpose.RESET: "/reset"}


class Link(msgspec.Struct, frozen=True):
    """What a token turned out to be."""

    user_id: str
    email: str


def links_url(settings: Settings) -> str | None:
    """The storefront whose pages take the tokens, without a slash at its end.

    None: there is none yet. Mails then tell the token alone, for who calls the API by hand.
    """
    return settings.storefront_url and settings.storefront_url.rstrip("/")


async def mail_link(
    connection: Connection, user: User, purpose: Purpose, url: str | None, now: datetime
) -> None:
    """Makes a link and puts its mail up, in the caller's transaction, unless that would be a flood."""
    assert user.email is not None
    if user.email_verified_at is None and await _is_flooded(connection, user.email):
        return
    token = secrets.token_urlsafe(TOKEN_BYTES)
    await connection.execute(
        "INSERT INTO user_links (token_hash, user_id, purpose, email, expires_at)"
        " VALUES ($1, $2, $3, $4, $5)",
        _hashed(token),
        user.user_id,
        purpose.value,
        user.email,
        now + LIFETIME[purpose],
    )
    link = f"{url}{_PAGE[purpose]}?{urlencode({'token': token})}" if url else ""
    # Whoever registers another's mailbox does not write to it: a name may be an advertisement.
    name = user.name if user.email_verified_at is not None else ""
    values = {"name": name, "token": token, "link": link}
    await put_mail(
        connection, kind=purpose.value, to=user.email, language=user.language, values=values
    )


async def peek_link(
    connection: Connection, purpose: Purpose, token: str, now: datetime
) -> Link | None:
    """What the token is good for, if it still is; it stays so."""
    row = await connection.fetchrow(
        "SELECT user_id, email FROM user_links"
        " WHERE token_hash = $1 AND purpose = $2 AND expires_at > $3",
        _hashed(token),
        purpose.value,
        now,
    )
    return Link(*row) if row else None


async def take_link(
    connection: Connection, purpose: Purpose, token: str, now: datetime
) -> Link | None:
    """As `peek_link`; with the caller's transaction it and its like are used up."""
    row = await connection.fetchrow(
        "DELETE FROM user_links WHERE token_hash = $1 AND purpose = $2 AND expires_at > $3"
        " RETURNING user_id, email",
        _hashed(token),
        purpose.value,
        now,
    )
    if row is None:
        return None
    await drop_links(connection, row["user_id"], purpose)
    return Link(*row)


async def drop_links(connection: Connection, user_id: str, purpose: Purpose | None = None) -> None:
    """Makes a user's links void, those of all purposes if none is named."""
    await connection.execute(
        "DELETE FROM user_links WHERE user_id = $1 AND ($2::text IS NULL OR purpose = $2)",
        user_id,
        purpose,
    )


async def request_link(pool: Pool, purpose: Purpose, email: str) -> None:
    """Notes that a link is wanted. The same work whether or not anybody has this e-mail."""
    with postgres_errors():
        await pool.execute(
            "INSERT INTO link_requests (purpose, email) VALUES ($1, $2)", purpose.value, email
        )


class LinkSender:
    """Makes the links that were asked for, out of sight of those who ask."""

    def __init__(self, pool: Pool, clock: Clock, url: str | None) -> None:
        self._pool = pool
        self._clock = clock
        self._url = url
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Sends until stopped. Raises StoreUnavailable: call it again."""
        await poll(self.send_once, self._stopped, IDLE_SECONDS)

    async def send_once(self) -> int:
        """Answers at most a batch of requests; returns how many."""
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                rows = await connection.fetch(
                    "DELETE FROM link_requests WHERE request_id = ANY (ARRAY("
                    " SELECT request_id FROM link_requests ORDER BY request_id LIMIT $1"
                    " FOR UPDATE SKIP LOCKED)) RETURNING purpose, email",
                    BATCH_MAX,
                )
                for purpose, email in rows:
                    await self._answer(connection, Purpose(purpose), email)
        return len(rows)

    def stop(self) -> None:
        """Makes `run` return after the pass it is in. Idempotent, safe before start."""
        self._stopped.set()

    async def _answer(self, connection: Connection, purpose: Purpose, email: str) -> None:
        user = await user_by_email(connection, email)
        now = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)
        if user is None or not user.may_log_in:
            return
        if purpose is Purpose.VERIFY and user.email_verified_at is not None:
            return
        if not await _has_enough(connection, user, purpose, now):
            await mail_link(connection, user, purpose, self._url, now)


async def _has_enough(connection: Connection, user: User, purpose: Purpose, now: datetime) -> bool:
    """Whether the mailbox has LIVE_MAX good links, or one that was sent just now."""
    sent_since = now - timedelta(seconds=REPEAT_SECONDS)
    live, just_sent = await connection.fetchrow(
        "SELECT count(*), coalesce(max(expires_at) > $4, false) FROM user_links"
        " WHERE user_id = $1 AND purpose = $2 AND expires_at > $3",
        user.user_id,
        purpose.value,
        now,
        sent_since + LIFETIME[purpose],
    )
    return bool(just_sent or live >= LIVE_MAX)


async def _is_flooded(connection: Connection, email: str) -> bool:
    """Whether the mailbox got UNPROVEN_MAX links within a day, be it for accounts that are gone."""
    count: int = await connection.fetchval(
        "SELECT count(*) FROM mails WHERE lower(recipient) = lower($1) AND kind = ANY ($2::text[])"
        " AND created_at > now() - interval '1 day'",
        email,
        [purpose.value for purpose in Purpose],
    )
    return count >= UNPROVEN_MAX


def _hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
