"""Writes mails: a template by kind and language, plain text. Sends nothing.

A template's first line is the subject; the text follows an empty line.
"""

from datetime import datetime
from decimal import Decimal
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from functools import lru_cache
from importlib.resources import files
from typing import Final

import msgspec
from babel.numbers import format_currency, get_currency_precision
from jinja2 import Environment, FunctionLoader, StrictUndefined

from api.language import locale_of

SUBJECT_LENGTH_MAX: Final = 200


class Mail(msgspec.Struct, frozen=True):
    """A mail that is to be sent."""

    mail_id: int
    kind: str
    recipient: str
    language: str
    content: dict[str, object]
    attempts: int
    created_at: datetime


class Written(msgspec.Struct, frozen=True):
    """A mail as its reader sees it."""

    subject: str
    text: str


def write(mail: Mail) -> Written:
    """Raises jinja2.TemplateError if a value is missing that the template tells."""
    template = _environment(mail.language).get_template(f"{mail.kind}.{mail.language}.txt")
    subject, _, text = template.render(mail.content).partition("\n\n")
    # A name with a line break must not become a header of its own.
    return Written(" ".join(subject.split())[:SUBJECT_LENGTH_MAX], text.strip() + "\n")


def message(mail: Mail, sender: str) -> EmailMessage:
    """The mail as SMTP takes it. Sent again, it has the same Message-ID: readers show it once.

    Raises ValueError for an address that is none: it never becomes another header.
    """
    written = write(mail)
    name, address = parseaddr(sender)
    domain = address.rpartition("@")[2]
    made = EmailMessage(policy=SMTP)
    made["From"] = Address(display_name=name, addr_spec=address)
    made["To"] = Address(addr_spec=mail.recipient)
    made["Subject"] = written.subject
    made["Date"] = format_datetime(mail.created_at)
    made["Message-ID"] = f"<{mail.mail_id}.{int(mail.created_at.timestamp())}@{domain}>"
    made["Auto-Submitted"] = "auto-generated"  # RFC 3834: no holiday notes, please.
    made["Content-Language"] = mail.language
    made.set_content(written.text)
    return made


@lru_cache
def _environment(language: str) -> Environment:
    # Plain text: nothing to escape. Templates are ours; values only fill their gaps.
    environment = Environment(  # noqa: S701
        loader=FunctionLoader(_read),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    locale = locale_of(language)

    def money(amount_minor: int, currency: str) -> str:
        amount = Decimal(amount_minor).scaleb(-get_currency_precision(currency))
        return format_currency(amount, currency, locale=locale)

    environment.filters["money"] = money
    return environment


def _read(name: str) -> str:
    return files("api.mail").joinpath("templates", name).read_text("utf-8")
