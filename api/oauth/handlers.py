"""The two calls of a login with another provider: there, and back."""

import hashlib
import logging
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final, Literal
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from api.answers import NO_STORE, SECURITY_HEADERS, Answer
from api.bodies import PLACE
from api.front import Front
from api.language import language_of
from api.oauth.id_token import Fault, IdClaims
from api.oauth.provider import Code as ProviderCode
from api.oauth.provider import Provider
from api.oauth.store import LIFETIME, Begun, Logins
from api.problems import Code, Refusal
from api.queries import read_query
from api.routing import Route
from api.spec import Access, Param, Spec
from api.users.bodies import SessionBody
from api.users.browser import SET_COOKIE, cookie, written
from api.users.granting import cookies_of, granted
from api.users.sessions import Sessions
from engine.config import Settings

logger = logging.getLogger(__name__)

LOGIN_COOKIE: Final = "__Host-login"
SECRET_BYTES: Final = 32
SCOPE: Final = "openid email profile"
STATE_LENGTH_MAX: Final = 128
CODE_LENGTH_MAX: Final = 4096

# A path of this host: neither `//elsewhere` nor `/\elsewhere`, which browsers take for a host.
ReturnTo = Annotated[str, msgspec.Meta(max_length=500, pattern=r"^/(?![/\\])[!-\[\]-~]*\Z")]

_REDIRECTED: Final = (*SECURITY_HEADERS, NO_STORE)


class LoginQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where to go on afterwards; or `tokens`, for programs, in place of cookies and a redirect."""

    return_to: ReturnTo = "/"
    answer: Literal["cookies", "tokens"] = "cookies"


class CallbackQuery(msgspec.Struct, frozen=True):
    """What the provider sends back (RFC 6749 §4.1.2, RFC 9207); providers add words of their own."""

    state: Annotated[str, msgspec.Meta(max_length=STATE_LENGTH_MAX)] = ""
    code: Annotated[str, msgspec.Meta(max_length=CODE_LENGTH_MAX)] = ""
    iss: Annotated[str, msgspec.Meta(max_length=500)] | None = None
    error: Annotated[str, msgspec.Meta(max_length=100)] | None = None


async def begin_login(front: Front, request: web.Request) -> Answer:
    provider = _provider(front, request)
    front.admit_anonymous(request)
    query = read_query(request, LoginQuery)
    with _waiting(front, request):
        discovery = await provider.discovery()
    state, nonce, verifier, browser = (secrets.token_urlsafe(SECRET_BYTES) for _ in range(4))
    begun = Begun(nonce, verifier, query.return_to, query.answer == "tokens")
    await Logins.of(front.engine).begin(state, browser, begun)
    asked = {
        "response_type": "code",
        "client_id": provider.client_id,
        "redirect_uri": _redirect_uri(front.engine.settings),
        "scope": SCOPE,
        "state": state,
        "nonce": nonce,
        "code_challenge": _challenge(verifier),
        "code_challenge_method": "S256",
    }
    joint = "&" if "?" in discovery.authorization_endpoint else "?"
    url = f"{discovery.authorization_endpoint}{joint}{urlencode(asked)}"
    return _redirect(url, _login_cookie(browser))


async def end_login(front: Front, request: web.Request) -> Answer:
    provider = _provider(front, request)
    front.admit_anonymous(request)
    query = read_query(request, CallbackQuery)
    begun = await _begun(front, request, query.state)
    with _waiting(front, request):
        claims = await _claims(front, provider, query, begun)
    if isinstance(claims, Fault):
        logger.warning("A login failed: %s.", claims.reason, extra={"action": "oidc_refused"})
        raise Refusal(Code.LOGIN_REFUSED)
    user = await Logins.of(front.engine).user_of(claims, language_of(request))
    if not user.may_log_in:
        raise Refusal(Code.ACCOUNT_BLOCKED)
    opened = await Sessions.of(front.engine).open(
        user,
        by_cookie=not begun.wants_tokens,
        user_agent=request.headers.get("User-Agent", ""),
    )
    if opened is None:
        raise Refusal(Code.LOGIN_REFUSED)
    front.revocations.note(opened.user.user_id, opened.user.tokens_from)
    if begun.wants_tokens:
        answer = granted(front, opened, by_cookie=False)
        return msgspec.structs.replace(answer, headers=(*answer.headers, _forget_login()))
    return _redirect(begun.return_to, *cookies_of(front, opened), _forget_login())


def _provider(front: Front, request: web.Request) -> Provider:
    """The provider in the path. Raises Refusal if there is none of that name."""
    provider = front.oidc.provider
    if provider is None or request.match_info["provider"] != front.oidc.name:
        raise Refusal(Code.NOT_FOUND, "There is no such login provider.")
    return provider


async def _begun(front: Front, request: web.Request, state: str) -> Begun:
    """The login that this browser began. Raises Refusal: another's is none of its business."""
    browser = cookie(request, LOGIN_COOKIE)
    begun = await Logins.of(front.engine).take(state, browser) if state and browser else None
    if begun is None:
        raise Refusal(Code.LOGIN_REFUSED, "This browser began no such login, or too long ago.")
    return begun


async def _claims(
    front: Front, provider: Provider, query: CallbackQuery, begun: Begun
) -> IdClaims | Fault:
    discovery = await provider.discovery()
    if query.iss is None and discovery.authorization_response_iss_parameter_supported:
        return Fault("the answer lacks its issuer")
    if query.iss is not None and query.iss != provider.issuer:
        return Fault("the answer is another issuer's")
    if query.error is not None or not query.code:
        return Fault("the provider let nobody in")
    redirect_uri = _redirect_uri(front.engine.settings)
    return await provider.redeem(
        ProviderCode(query.code, begun.verifier, begun.nonce, redirect_uri)
    )


@contextmanager
def _waiting(front: Front, request: web.Request) -> Iterator[None]:
    """While the provider is asked, the request takes no place among those in work."""
    place = request[PLACE]
    place.measured = False
    with front.limit.stepped_out(place.priority):
        yield


def _redirect_uri(settings: Settings) -> str:
    """By the settings, never by the Host header: anyone may write that."""
    base = settings.public_url or f"http://{settings.host}:{settings.port}"
    return f"{base.rstrip('/')}/v1/oauth/{settings.oidc_name}/callback"


def _challenge(verifier: str) -> str:
    """RFC 7636 §4.2."""
    return urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def _redirect(url: str, *cookies: tuple[str, str]) -> Answer:
    return Answer(302, b"", (*_REDIRECTED, *cookies), location=url)


def _login_cookie(browser: str) -> tuple[str, str]:
    # Lax: the provider sends the browser back, from another site.
    return SET_COOKIE, written(LOGIN_COOKIE, browser, int(LIFETIME.total_seconds()), "Lax")


def _forget_login() -> tuple[str, str]:
    return SET_COOKIE, written(LOGIN_COOKIE, "", 0, "Lax")


_TAG: Final = "Logins with another provider"
_LOCATION: Final = Param("Location", "Where to go on.", required=True)
_COOKIES: Final = Param("Set-Cookie", "`__Host-` cookies.", required=True)

ROUTES = (
    Route(
        "GET",
        "/v1/oauth/{provider}/login",
        begin_login,
        access=Access.PUBLIC,
        waits=True,
        spec=Spec(
            tag=_TAG,
            summary="Log in with another provider",
            description="OpenID Connect: authorization code with PKCE, bound to this browser.",
            query=LoginQuery,
            answers={302: None},
            tells={302: (_LOCATION, _COOKIES)},
            codes=(Code.NOT_FOUND,),
        ),
    ),
    Route(
        "GET",
        "/v1/oauth/{provider}/callback",
        end_login,
        access=Access.PUBLIC,
        waits=True,
        spec=Spec(
            tag=_TAG,
            summary="Back from the provider",
            description="Sets a browser's session cookies; answers with tokens if so begun.",
            query=CallbackQuery,
            answers={200: SessionBody, 302: None},
            tells={302: (_LOCATION, _COOKIES)},
            codes=(
                Code.NOT_FOUND,
                Code.LOGIN_REFUSED,
                Code.ACCOUNT_BLOCKED,
                Code.EMAIL_TAKEN,
            ),
        ),
    ),
)
