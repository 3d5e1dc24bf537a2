"""The calls on sessions: log in, refresh, look where one is logged in, log out."""

from typing import Final

import msgspec
from aiohttp import web

from api.answers import Answer, personal, time_text
from api.bodies import NoBody
from api.front import Front
from api.patience import reading
from api.problems import Code, FieldError, Refusal, invalid
from api.routing import Route
from api.spec import Access, Param, Spec
from api.users.accounts import Accounts
from api.users.bodies import (
    CurrentBody,
    LoginBody,
    RefreshBody,
    SessionBody,
    SessionsBody,
    ShownSession,
)
from api.users.browser import session_of
from api.users.granting import granted, logged_out, no_content
from api.users.handlers import body_of_caller
from api.users.sessions import Reused, Session, Sessions
from api.users.store import User, Users

_login_decoder: Final = msgspec.json.Decoder(LoginBody)
_refresh_decoder: Final = msgspec.json.Decoder(RefreshBody)

_OVER: Final = "The session is over: log in again."
_WHICH: Final = "is needed: it says which session ends"


async def log_in(front: Front, request: web.Request) -> Answer:
    front.admit_anonymous(request)
    body = await front.bodies.json(request, _login_decoder)
    if body.cookie:
        front.browser.refuse_forged(request)  # Nobody is logged in as another from elsewhere.
    front.admit_login(body.email)  # Before anything is looked up or hashed.
    user = await _known_by(front, body)
    if not user.may_log_in:
        raise Refusal(Code.ACCOUNT_BLOCKED)
    opened = await Sessions.of(front.engine).open(
        user, by_cookie=body.cookie, user_agent=request.headers.get("User-Agent", "")
    )
    if opened is None:  # Blocked, or another password, in this very moment.
        raise Refusal(Code.WRONG_CREDENTIALS)
    await _rehash(front, user, body.password)
    return granted(front, opened, by_cookie=body.cookie, status=201)


async def refresh(front: Front, request: web.Request) -> Answer:
    front.admit_anonymous(request)
    body = await front.bodies.optional_json(request, _refresh_decoder, RefreshBody())
    by_cookie = body.refresh_token is None
    token = front.browser.refresh_token(request) if by_cookie else body.refresh_token
    if token is None:
        raise Refusal.of(invalid([FieldError("refresh_token", "is needed, or its cookie")]))
    match await Sessions.of(front.engine).refresh(token):
        case None:
            raise Refusal(Code.UNAUTHENTICATED, _OVER)
        case Reused(user_id=user_id, tokens_from=tokens_from):
            front.revocations.note(user_id, tokens_from)
            raise Refusal(Code.UNAUTHENTICATED, _OVER)
        case opened:
            return granted(front, opened, by_cookie=by_cookie)


async def list_sessions(front: Front, request: web.Request) -> Answer:
    user_id = front.caller(request).user_id
    found = await Sessions.of(front.engine).of_user(user_id)
    return personal(SessionsBody([_shown(session) for session in found]))


async def show_current(front: Front, request: web.Request) -> Answer:
    user = await body_of_caller(front, request)
    session_id = _browsers_session(request)
    if session_id is None:
        return personal(CurrentBody(user))
    return personal(CurrentBody(user, session_id, front.browser.csrf_token(session_id)))


async def log_out(front: Front, request: web.Request) -> Answer:
    """Ends the cookie's session, or the one whose refresh token is told.

    Its access token stays good until it expires: the client throws it away.
    """
    user_id = front.caller(request).user_id
    body = await front.bodies.optional_json(request, _refresh_decoder, RefreshBody())
    session_id = _browsers_session(request)
    if body.refresh_token is not None:
        session_id = body.refresh_token.partition(".")[0]
    if session_id is None:
        raise Refusal.of(invalid([FieldError("refresh_token", _WHICH)]))
    await Sessions.of(front.engine).end(user_id, session_id)
    return logged_out()


async def end_session(front: Front, request: web.Request) -> Answer:
    user_id = front.caller(request).user_id
    await front.bodies.none(request)
    if not await Sessions.of(front.engine).end(user_id, request.match_info["session"]):
        raise Refusal(Code.NOT_FOUND)
    return no_content()


async def log_out_everywhere(front: Front, request: web.Request) -> Answer:
    user_id = front.caller(request).user_id
    await front.bodies.none(request)
    tokens_from = await Accounts.of(front.engine).log_out_everywhere(user_id)
    if tokens_from is None:
        raise Refusal(Code.NOT_FOUND, "This user has no account here: the storefront keeps it.")
    front.revocations.note(user_id, tokens_from)
    return logged_out()


async def _known_by(front: Front, body: LoginBody) -> User:
    """The user whose e-mail and password these are, as slow where there is none. Raises Refusal."""
    async with reading():
        user = await Users(front.engine.pool).by_email(body.email)
    matches = await front.passwords.verify(user.password_hash if user else None, body.password)
    if user is None or not matches:
        raise Refusal(Code.WRONG_CREDENTIALS)
    return user


async def _rehash(front: Front, user: User, password: str) -> None:
    """Only now is the password known: kept as one would keep it today."""
    if user.password_hash is not None and front.passwords.is_outdated(user.password_hash):
        await Accounts.of(front.engine).rehash(user, await front.passwords.hash(password))


def _browsers_session(request: web.Request) -> str | None:
    return None if "Authorization" in request.headers else session_of(request)[0]


def _shown(session: Session) -> ShownSession:
    created, used, expires = (
        time_text(int(at.timestamp() * 1000))
        for at in (session.created_at, session.used_at, session.expires_at)
    )
    return ShownSession(
        session.session_id, created, used, expires, session.user_agent, session.by_cookie
    )


_TAG: Final = "Sessions"
_CSRF: Final = Param("X-CSRF-Token", "A browser's csrf_token, where cookies say who calls.")
_COOKIES: Final = Param("Set-Cookie", "`__Host-session` and `__Host-refresh`, for browsers.")

ROUTES = (
    Route(
        "POST",
        "/v1/sessions",
        log_in,
        measured=False,
        access=Access.PUBLIC,
        spec=Spec(
            tag=_TAG,
            summary="Log in",
            description=(
                "Programs get an access token and a refresh token. Browsers say `cookie` and get "
                "both in cookies that no script can read, and a csrf_token for their unsafe calls."
            ),
            body=LoginBody,
            answers={201: SessionBody},
            tells={201: (_COOKIES,)},
            codes=(Code.WRONG_CREDENTIALS, Code.ACCOUNT_BLOCKED, Code.CSRF_REQUIRED),
        ),
    ),
    Route(
        "POST",
        "/v1/sessions/refresh",
        refresh,
        access=Access.PUBLIC,
        spec=Spec(
            tag=_TAG,
            summary="Go on with a session",
            description=(
                "A refresh token is good once: keep the new one. An older one that is shown again "
                "ends the session, for it may be a thief's."
            ),
            body=RefreshBody,
            body_required=False,
            headers=(_CSRF,),
            answers={200: SessionBody},
            tells={200: (_COOKIES,)},
            codes=(Code.UNAUTHENTICATED, Code.CSRF_REQUIRED),
        ),
    ),
    Route(
        "GET",
        "/v1/sessions",
        list_sessions,
        access=Access.CALLER,
        spec=Spec(tag=_TAG, summary="Where am I logged in", answers={200: SessionsBody}),
    ),
    Route(
        "DELETE",
        "/v1/sessions",
        log_out_everywhere,
        access=Access.CALLER,
        spec=Spec(
            tag=_TAG,
            summary="Log out everywhere",
            description="Access tokens that were given are void within about a second.",
            body=NoBody,
            body_required=False,
            answers={204: None},
            tells={204: (_COOKIES,)},
            codes=(Code.NOT_FOUND,),
        ),
    ),
    Route(
        "GET",
        "/v1/sessions/current",
        show_current,
        access=Access.CALLER,
        spec=Spec(
            tag=_TAG,
            summary="Who calls, and a browser's csrf_token",
            answers={200: CurrentBody},
        ),
    ),
    Route(
        "DELETE",
        "/v1/sessions/current",
        log_out,
        access=Access.CALLER,
        spec=Spec(
            tag=_TAG,
            summary="Log out",
            body=RefreshBody,
            body_required=False,
            answers={204: None},
            tells={204: (_COOKIES,)},
        ),
    ),
    Route(
        "DELETE",
        "/v1/sessions/{session}",
        end_session,
        access=Access.CALLER,
        spec=Spec(
            tag=_TAG,
            summary="End one of one's sessions",
            body=NoBody,
            body_required=False,
            answers={204: None},
            codes=(Code.NOT_FOUND,),
        ),
    ),
)
