"""Puts mails up to be sent, in the caller's transaction. Leaves writing and sending them to the worker."""

import re
from collections.abc import Mapping
from typing import Final

from api.language import LANGUAGES
from engine.store.database import Connection

# Where a mail can go, as browsers read an e-mail (HTML, "valid e-mail address"): an address becomes a
# header, so there is nothing in it that has a meaning there.
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
RECIPIENT: Final = re.compile(
    rf"[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@{_LABEL}(?:\.{_LABEL}){{0,8}}"
)
RECIPIENT_LENGTH_MAX: Final = 254  # RFC 5321 §4.5.3.1

# What each kind tells; a template may use others if they are there, as `reason`.
NEEDED: Final[Mapping[str, frozenset[str]]] = {
    "verify": frozenset({"name", "token", "link"}),
    "reset": frozenset({"name", "token", "link"}),
    "password_changed": frozenset({"name"}),
    "order_paid": frozenset({"order_id", "amount_minor", "currency"}),
    "order_shipped": frozenset({"order_id"}),  # carrier, tracking_number
    "order_cancelled": frozenset({"order_id"}),  # reason
    "order_refunded": frozenset({"order_id", "amount_minor", "currency"}),
    "return_decided": frozenset({"order_id", "decision"}),  # approved or refused; reason
}


async def put_mail(
    connection: Connection, *, kind: str, to: str, language: str, values: Mapping[str, object]
) -> None:
    """Sends one mail if, and once, the caller's transaction is committed.

    `values` are what NEEDED names for the kind, and more: JSON, money in minor units.
    """
    assert NEEDED[kind] <= values.keys(), f"{kind} lacks {NEEDED[kind] - values.keys()}"
    assert RECIPIENT.fullmatch(to), "registration and providers refuse such an address"
    await connection.execute(
        "INSERT INTO mails (kind, recipient, language, content) VALUES ($1, $2, $3, $4)",
        kind,
        to,
        language if language in LANGUAGES else LANGUAGES[0],
        dict(values),
    )
