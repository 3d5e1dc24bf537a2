"""Stripe's webhook signatures: HMAC-SHA256 over a timestamp and the raw bytes. Pure.

Source: docs.stripe.com/webhooks#verify-manually.
"""

import hmac
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

HEADER: Final = "Stripe-Signature"
SCHEME: Final = "v1"
WINDOW_SECONDS: Final = 300
PARTS_MAX: Final = 32  # Of a header: one per secret in rotation.


def signature_header(secrets: Sequence[str], body: bytes, timestamp: int) -> str:
    """The header, with a signature by each secret, as while one replaces another."""
    signatures = (f"{SCHEME}={digest(secret, str(timestamp), body)}" for secret in secrets)
    return ",".join([f"t={timestamp}", *signatures])


def is_genuine(header: str, secrets: Sequence[str], body: bytes, now_ms: int) -> bool:
    """Whether any signature is by any of the secrets, and of these minutes."""
    parts = [part.strip().partition("=") for part in header.split(",")[:PARTS_MAX]]
    times = [value for name, _, value in parts if name == "t"]
    given = [value.encode(errors="surrogateescape") for name, _, value in parts if name == SCHEME]
    if len(times) != 1 or not _is_timely(times[0], now_ms):
        return False
    wanted = [digest(secret, times[0], body).encode() for secret in secrets]
    return any(hmac.compare_digest(one, other) for one in given for other in wanted)


def digest(secret: str, timestamp: str, body: bytes) -> str:
    return hmac.new(secret.encode(), timestamp.encode() + b"." + body, sha256).hexdigest()


def _is_timely(timestamp: str, now_ms: int) -> bool:
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        return False
    return abs(now_ms - int(timestamp) * 1000) <= WINDOW_SECONDS * 1000
