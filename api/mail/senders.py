"""Hands mails over: to an SMTP server, or in a demo to whoever reads the worker's output."""

import asyncio
from types import TracebackType
from typing import Final, Protocol, Self
from urllib.parse import unquote, urlsplit

import aiosmtplib

from api.mail.templates import Mail, message, write
from engine.config import Settings

TIMEOUT_SECONDS: Final = (
    10.0  # For every step of a conversation; servers that greylist take seconds.
)
PERMANENT: Final = 500  # RFC 5321 §4.2.1: from here on, trying again does not help.


class MailFailed(Exception):
    """A mail was not taken. `for_good`: nor will it ever be."""

    def __init__(self, reason: str, *, for_good: bool = False) -> None:
        super().__init__(reason)
        self.for_good = for_good


class Delivery(Protocol):
    """One open way to hand mails over."""

    async def send(self, mail: Mail) -> None:
        """Raises MailFailed. May send twice what it was not told to have arrived."""

    async def __aenter__(self) -> Self:
        """Raises MailFailed if no mail can be handed over at all."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Sender(Protocol):
    """A way to send mails. `forgets`: what was sent is nowhere else, so its content may go."""

    forgets: bool

    def deliver(self) -> Delivery:
        """For `async with`: as many mails as there are."""


class PrintSender:
    """Prints mails, for demos: links and all."""

    forgets = False  # `doorbuster mails` shows them.

    def deliver(self) -> Delivery:
        return _Printing()


class _Printing:
    async def send(self, mail: Mail) -> None:
        written = write(mail)
        print(f"\n— mail to {mail.recipient} —\n{written.subject}\n\n{written.text}", flush=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...


class SmtpSender:
    """Sends by an SMTP server, with TLS as soon as it offers it, or from the start (`smtps`)."""

    forgets = True

    def __init__(self, url: str, sender: str) -> None:
        parts = urlsplit(url)
        self._sender = sender
        self._tls = parts.scheme == "smtps"
        self._host = parts.hostname or "localhost"
        self._port = parts.port or (465 if self._tls else 587)
        self._username = unquote(parts.username) if parts.username else None
        self._password = unquote(parts.password) if parts.password else None

    def deliver(self) -> Delivery:
        client = aiosmtplib.SMTP(
            hostname=self._host,
            port=self._port,
            username=self._username,
            password=self._password,
            use_tls=self._tls,
            # A password never leaves in the clear: then TLS is a must, not a chance.
            start_tls=None if self._tls or not self._password else True,
            timeout=TIMEOUT_SECONDS,
        )
        return _Conversation(client, self._sender)


class _Conversation:
    """One connection to the server."""

    def __init__(self, client: aiosmtplib.SMTP, sender: str) -> None:
        self._client = client
        self._sender = sender

    async def send(self, mail: Mail) -> None:
        try:
            made = message(mail, self._sender)
        except ValueError as error:
            raise MailFailed(f"It cannot be written: {error}", for_good=True) from error
        try:
            await self._client.send_message(made)
        except aiosmtplib.SMTPException as error:
            raise MailFailed(_told(error), for_good=_is_for_good(error)) from error
        except (OSError, TimeoutError) as error:
            raise MailFailed(_told(error)) from error

    async def __aenter__(self) -> Self:
        try:
            await self._client.connect()
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            self._client.close()
            raise MailFailed(_told(error)) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._client.quit()
        except (aiosmtplib.SMTPException, OSError, TimeoutError, asyncio.CancelledError):
            self._client.close()


def make_sender(settings: Settings) -> Sender:
    if settings.mail_url is None:
        return PrintSender()
    return SmtpSender(settings.mail_url, settings.mail_from)


def _is_for_good(error: aiosmtplib.SMTPException) -> bool:
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        return all(refused.code >= PERMANENT for refused in error.recipients)
    return isinstance(error, aiosmtplib.SMTPResponseException) and error.code >= PERMANENT


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
