"""What a log-in is answered with: tokens for programs, cookies for browsers."""

from typing import Final

import msgspec

from api.answers import NO_STORE, SECURITY_HEADERS, Answer, Headers, personal, time_text
from api.front import Front
from api.users.bodies import SessionBody, user_body
from api.users.browser import Cookies, cleared_cookies, session_cookies
from api.users.sessions import Opened
from api.users.store import role_of

_NO_CONTENT: Final[Headers] = (*SECURITY_HEADERS, NO_STORE)


def granted(front: Front, opened: Opened, *, by_cookie: bool, status: int = 200) -> Answer:
    """The session as its client may know it. A browser's tokens are in cookies alone."""
    body = _session_body(front, opened)
    if by_cookie:
        csrf_token = front.browser.csrf_token(opened.session_id)
        shown = msgspec.structs.replace(body, csrf_token=csrf_token)
        return personal(shown, status, *cookies_of(front, opened))
    shown = msgspec.structs.replace(
        body,
        token=_access_token(front, opened),
        token_type="Bearer",  # noqa: S106
        refresh_token=opened.refresh_token,
    )
    return personal(shown, status)


def cookies_of(front: Front, opened: Opened) -> Cookies:
    settings = front.engine.settings
    return session_cookies(
        opened.session_id,
        _access_token(front, opened),
        settings.access_token_seconds,
        opened.refresh_token,
        settings.refresh_token_seconds,
    )


def no_content(*headers: tuple[str, str]) -> Answer:
    """204."""
    return Answer(204, b"", (*_NO_CONTENT, *headers))


def logged_out() -> Answer:
    """204, and a browser forgets its cookies."""
    return no_content(*cleared_cookies())


def _session_body(front: Front, opened: Opened) -> SessionBody:
    return SessionBody(
        session_id=opened.session_id,
        expires_at=time_text((opened.issued_at + _seconds(front)) * 1000),
        refresh_expires_at=time_text(int(opened.expires_at.timestamp()) * 1000),
        user=user_body(opened.user),
    )


def _access_token(front: Front, opened: Opened) -> str:
    user = opened.user
    return front.tokens.issue(
        user.user_id, role_of(user), _seconds(front), issued_at=opened.issued_at
    )


def _seconds(front: Front) -> int:
    return front.engine.settings.access_token_seconds
