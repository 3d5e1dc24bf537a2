"""Sends what was put up, again and again until it is taken or given up. Leaves the way to `senders`."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from jinja2 import TemplateError

from api.mail.senders import Delivery, MailFailed, Sender
from api.mail.templates import Mail
from engine import metrics
from engine.polling import poll
from engine.store.database import Pool, postgres_errors

logger = logging.getLogger(__name__)

BATCH_MAX: Final = 50  # One after the other over one connection, well within the lease.
LEASE_SECONDS: Final = 600.0  # Nobody else takes a mail meanwhile: it is not sent twice.
IDLE_SECONDS: Final = 0.5
ATTEMPTS_MAX: Final = 10  # The last about 4 hours after the first.
RETRY_SECONDS: Final = 30.0  # Doubles with every attempt, up to the next.
RETRY_SECONDS_MAX: Final = 3600.0
ERROR_LENGTH_MAX: Final = 500

_COLUMNS: Final = ", ".join(Mail.__struct_fields__)
_TAKE: Final = f"""
    UPDATE mails SET due_at = now() + make_interval(secs => $2), attempts = attempts + 1
    WHERE mail_id = ANY (ARRAY(
        SELECT mail_id FROM mails WHERE state = 'waiting' AND due_at <= now()
        ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED))
    RETURNING {_COLUMNS}
    """  # noqa: S608


class Mailer:
    """The loop that empties the mails table. Several may run: none takes another's."""

    def __init__(self, pool: Pool, sender: Sender) -> None:
        self._pool = pool
        self._sender = sender
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Sends until stopped. Raises StoreUnavailable: call it again."""
        await poll(self.send_once, self._stopped, IDLE_SECONDS)

    async def send_once(self) -> int:
        """Takes at most a batch, with no connection of Postgres held while it is sent."""
        mails = await self._take()
        if mails:
            await self._send_all(mails)
        return len(mails)

    def stop(self) -> None:
        """Makes `run` return after the mail it is at. Idempotent, safe before start."""
        self._stopped.set()

    async def _take(self) -> list[Mail]:
        with postgres_errors():
            rows = await self._pool.fetch(_TAKE, BATCH_MAX, LEASE_SECONDS)
        return sorted((Mail(*row) for row in rows), key=lambda mail: mail.mail_id)

    async def _send_all(self, mails: Sequence[Mail]) -> None:
        left = list(mails)
        try:
            async with self._sender.deliver() as delivery:
                while left and not self._stopped.is_set():
                    await self._send(delivery, left[0])
                    del left[0]
        except MailFailed as error:  # The server cannot be reached: nobody's mail is to blame.
            logger.warning("Mails wait: %s", error, extra={"action": "mails_wait"})
            await self._postpone(left, str(error))
        else:
            await self._give_back(left)

    async def _send(self, delivery: Delivery, mail: Mail) -> None:
        try:
            await delivery.send(mail)
        except MailFailed as error:
            await self._fail(mail, str(error), for_good=error.for_good)
        except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
            # It can never be written: those behind it must not wait for it.
            await self._fail(mail, f"{type(error).__name__}: {error}", for_good=True)
        else:
            await self._end(mail, "sent", None, forget=self._sender.forgets)

    async def _fail(self, mail: Mail, error: str, *, for_good: bool) -> None:
        if for_good or mail.attempts >= ATTEMPTS_MAX:
            logger.error(
                "Mail %d (%s) is given up: %s",
                mail.mail_id,
                mail.kind,
                error,
                extra={"action": "mail_failed"},
            )
            await self._end(mail, "failed", error, forget=False)
        else:
            await self._postpone([mail], error)

    async def _end(self, mail: Mail, state: str, error: str | None, *, forget: bool) -> None:
        metrics.mails.labels(state).inc()
        with postgres_errors():
            await self._pool.execute(
                "UPDATE mails SET state = $2, last_error = $3, ended_at = now(),"
                " content = CASE WHEN $4 THEN '{}' ELSE content END WHERE mail_id = $1",
                mail.mail_id,
                state,
                error and error[:ERROR_LENGTH_MAX],
                forget,
            )

    async def _postpone(self, mails: Sequence[Mail], error: str) -> None:
        """Tries again later; a mail that was never tried, for want of a server, is not given up."""
        with postgres_errors():
            await self._pool.execute(
                "UPDATE mails SET attempts = least(attempts, $3), last_error = $2,"
                " due_at = now() + make_interval(secs => least($4 * 2 ^ least(attempts - 1, 20), $5))"
                " WHERE mail_id = ANY ($1::bigint[])",
                [mail.mail_id for mail in mails],
                error[:ERROR_LENGTH_MAX],
                ATTEMPTS_MAX - 1,
                RETRY_SECONDS,
                RETRY_SECONDS_MAX,
            )

    async def _give_back(self, mails: Sequence[Mail]) -> None:
        """What a stop left unsent is due at once."""
        with postgres_errors():
            await self._pool.execute(
                "UPDATE mails SET due_at = now(), attempts = attempts - 1"
                " WHERE mail_id = ANY ($1::bigint[])",
                [mail.mail_id for mail in mails],
            )
