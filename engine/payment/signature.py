"""Signs and verifies messages with HMAC-SHA256 over a timestamp and the raw bytes."""

import hmac
from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from engine.errors import DoorbusterError

TIMESTAMP_HEADER: Final = "Sandbox-Timestamp"
SIGNATURE_HEADER: Final = "Sandbox-Signature"
WINDOW_SECONDS: Final = 300  # How far two clocks may be apart, and how long a copy can be replayed.


class BadSignature(DoorbusterError):
    """A message is unsigned, forged or too old."""


def sign(secret: str, body: bytes, now_ms: int) -> dict[str, str]:
    """The headers that go with `body`."""
    timestamp = str(now_ms // 1000)
    return {TIMESTAMP_HEADER: timestamp, SIGNATURE_HEADER: _digest(secret, timestamp, body)}


def verify(secret: str, headers: Mapping[str, str], body: bytes, now_ms: int) -> None:
    """Raises BadSignature. `headers` must not mind the case of a name, or spell it as above."""
    timestamp = headers.get(TIMESTAMP_HEADER, "")
    signature = headers.get(SIGNATURE_HEADER, "")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise BadSignature("The message carries no timestamp.")
    given = signature.encode(errors="surrogateescape")  # Headers may hold any bytes.
    if not hmac.compare_digest(given, _digest(secret, timestamp, body).encode()):
        raise BadSignature("The signature does not fit the message.")
    if abs(now_ms - int(timestamp) * 1000) > WINDOW_SECONDS * 1000:
        raise BadSignature("The message is too old, or from the future.")


def request_bytes(method: str, path: str, body: bytes) -> bytes:
    """What is signed of a request, so that one cannot be replayed at another address."""
    return f"{method} {path}\n".encode() + body


def _digest(secret: str, timestamp: str, body: bytes) -> str:
    return hmac.new(secret.encode(), timestamp.encode() + b"." + body, sha256).hexdigest()
