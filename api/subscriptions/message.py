"""What other systems are sent: the event as JSON, signed as Standard Webhooks asks. Pure.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from standardwebhooks import Webhook

from api.answers import time_text
from engine.model import public_id
from engine.sales.sale import epoch_ms

SECRET_BYTES: Final = 32  # The specification wants 24 to 64.
SECRET_PREFIX: Final = "whsec_"  # noqa: S105  # As the specification has it.


class Message(msgspec.Struct, frozen=True):
    """The body of a delivery."""

    type: str
    timestamp: str
    data: dict[str, Any]


def new_secret(random_bytes: bytes) -> str:
    """A signing secret as both sides keep it."""
    return SECRET_PREFIX + base64.b64encode(random_bytes).decode()


def message_id(event_id: int) -> str:
    """The same for every attempt and every subscription: receivers drop what they had."""
    return f"evt_{event_id}"


def message_body(row: Mapping[str, Any]) -> bytes:
    """The event of a row with type, at, sale_id, reservation_id, user_id and data."""
    about: dict[str, Any] = {}
    if row["reservation_id"] is not None:
        about["order_id"] = public_id(row["sale_id"], row["reservation_id"])
    if row["sale_id"] is not None:
        about["sale_id"] = row["sale_id"]
    if row["user_id"] is not None:
        about["user_id"] = row["user_id"]
    at = time_text(epoch_ms(row["at"]))
    return msgspec.json.encode(Message(row["type"], at, about | row["data"]))


def signed_headers(
    event_id: int, body: bytes, secrets: Sequence[str], now: datetime
) -> dict[str, str]:
    """The headers that go with `body`; a signature for each secret, the newest first."""
    name, text = message_id(event_id), body.decode()
    return {
        "webhook-id": name,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(Webhook(each).sign(name, now, text) for each in secrets),
    }
