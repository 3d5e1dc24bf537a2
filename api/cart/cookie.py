"""Tells guests apart by a signed cookie. Knows no cart."""

import base64
import hashlib
import hmac
import re
from typing import Final

from aiohttp import web

# The prefix binds it to this host, over TLS, for every path (RFC 6265bis §4.1.3.2).
NAME: Final = "__Host-cart"
_ATTRIBUTES: Final = "; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age="
_PURPOSE: Final = b"doorbuster guest cart 1"
_MAC_BYTES: Final = 16  # 128 bits: nobody guesses a signature over HTTP.
_VALUE = re.compile(r"([A-Za-z0-9_-]{1,64})[.]([A-Za-z0-9_-]{22})")


class GuestCookies:
    """Writes and reads the cookie. The key is the engine's secret, for this purpose alone."""

    def __init__(self, secret: str, days: int) -> None:
        self._key = hmac.digest(secret.encode(), _PURPOSE, hashlib.sha256)
        self._seconds = days * 86_400

    def read(self, request: web.Request) -> str | None:
        """The guest's id; None without a cookie, or with one that is not ours."""
        found = _VALUE.fullmatch(request.cookies.get(NAME, ""))
        if found is None or not hmac.compare_digest(found[2], self._signature(found[1])):
            return None
        return found[1]

    def write(self, guest_id: str) -> tuple[str, str]:
        """The header that gives it to a browser."""
        value = f"{NAME}={guest_id}.{self._signature(guest_id)}"
        return "Set-Cookie", f"{value}{_ATTRIBUTES}{self._seconds}"

    def clear(self) -> tuple[str, str]:
        """The header that takes it away."""
        return "Set-Cookie", f"{NAME}={_ATTRIBUTES}0"

    def _signature(self, guest_id: str) -> str:
        mac = hmac.digest(self._key, guest_id.encode(), hashlib.sha256)[:_MAC_BYTES]
        return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
