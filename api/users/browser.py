"""Sessions of browsers: cookies that no script reads, and the defence against forged requests.

Names who calls; whether the token in the cookie is good, `api.tokens` says.
"""

import hmac
from base64 import urlsafe_b64encode
from datetime import datetime
from http.cookies import CookieError
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from multidict import istr

from api.problems import Code, Refusal

# `__Host-`: only this host sets them, over TLS (or on localhost), for all paths (RFC 6265bis §4.1.3).
SESSION_COOKIE: Final = "__Host-session"
REFRESH_COOKIE: Final = "__Host-refresh"
CSRF_HEADER: Final = istr("X-CSRF-Token")
SET_COOKIE: Final = istr("Set-Cookie")

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES: Final = frozenset({"same-origin", "none"})
_FORGED: Final = "The request came from another site."
_LACKS: Final = "Send the session's csrf_token as X-CSRF-Token."

Cookies = tuple[tuple[str, str], ...]


class Browser:
    """What browsers are given and bring back. The session cookie is `<session id>.<access token>`."""

    def __init__(self, secret: str, public_url: str | None) -> None:
        self._key = hmac.digest(secret.encode(), b"doorbuster csrf", "sha256")
        self._origin = _origin(public_url) if public_url else None

    def csrf_token(self, session_id: str) -> str:
        """The same for as long as the session goes on; tells nothing of it."""
        digest = hmac.digest(self._key, session_id.encode(), "sha256")
        return urlsafe_b64encode(digest).decode().rstrip("=")

    def authorization(self, request: web.BaseRequest) -> str | None:
        """What stands for an Authorization header: that itself, else what the session cookie holds.

        Raises Refusal where a browser's unsafe call may be forged.
        """
        header = request.headers.get("Authorization")
        if header is not None:
            return header
        session_id, token = session_of(request)
        if session_id is None:
            return None
        if request.method not in _SAFE_METHODS:
            self.refuse_forged(request)
            if not self._is_ours(request, session_id):
                raise Refusal(Code.CSRF_REQUIRED, _LACKS)
        return f"Bearer {token}"

    def refresh_token(self, request: web.BaseRequest) -> str | None:
        """What the refresh cookie holds. Raises Refusal where the call may be forged.

        A page that was closed has forgotten its csrf_token: here a browser's own word that the
        call comes from our origin will do.
        """
        token = cookie(request, REFRESH_COOKIE)
        if token is None:
            return None
        self.refuse_forged(request)
        same_origin = request.headers.get("Sec-Fetch-Site") == "same-origin"
        if not same_origin and not self._is_ours(request, token.partition(".")[0]):
            raise Refusal(Code.CSRF_REQUIRED, _LACKS)
        return token

    def _is_ours(self, request: web.BaseRequest, session_id: str) -> bool:
        shown = request.headers.get(CSRF_HEADER, "")
        wanted = self.csrf_token(session_id)
        return hmac.compare_digest(shown.encode("utf-8", "surrogateescape"), wanted.encode())

    def refuse_forged(self, request: web.BaseRequest) -> None:
        """Raises Refusal if the browser says that another site made the request."""
        site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
        if site in _OWN_SITES or (site is None and origin is None):
            return
        # A neighbour under the same domain ("same-site") has to be named, too.
        if site != "cross-site" and origin is not None and self._is_own(request, origin):
            return
        raise Refusal(Code.CSRF_REQUIRED, _FORGED)

    def _is_own(self, request: web.BaseRequest, origin: str) -> bool:
        host = urlsplit_host(origin)
        return origin == self._origin or (host is not None and host == request.headers.get("Host"))


def session_of(request: web.BaseRequest) -> tuple[str | None, str]:
    """The session id and the access token of the session cookie; (None, "") where there is none."""
    session_id, dot, token = (cookie(request, SESSION_COOKIE) or "").partition(".")
    return (session_id, token) if dot else (None, "")


def cookie(request: web.BaseRequest, name: str) -> str | None:
    if "Cookie" not in request.headers:
        return None
    try:
        value = request.cookies.get(name)
    except CookieError:
        return None
    # Anyone may send any bytes; what we gave out was plain.
    return value if value is not None and value.isascii() and value.isprintable() else None


def session_cookies(
    session_id: str, token: str, token_seconds: int, refresh_token: str, refresh_seconds: int
) -> Cookies:
    """What a browser is given. The refresh cookie never leaves with a visit from another site."""
    return (
        (SET_COOKIE, written(SESSION_COOKIE, f"{session_id}.{token}", token_seconds, "Lax")),
        (SET_COOKIE, written(REFRESH_COOKIE, refresh_token, refresh_seconds, "Strict")),
    )


def cleared_cookies() -> Cookies:
    return (
        (SET_COOKIE, written(SESSION_COOKIE, "", 0, "Lax")),
        (SET_COOKIE, written(REFRESH_COOKIE, "", 0, "Strict")),
    )


def written(name: str, value: str, seconds: int, same_site: str) -> str:
    """A Set-Cookie header. Values are ours: base64 and dots, nothing to be quoted."""
    return f"{name}={value}; Max-Age={seconds}; Path=/; Secure; HttpOnly; SameSite={same_site}"


def seconds_until(end: datetime, now_ms: int) -> int:
    return max(int(end.timestamp() - now_ms / 1000), 0)


def urlsplit_host(url: str) -> str | None:
    try:
        return urlsplit(url).netloc or None
    except ValueError:
        return None


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
