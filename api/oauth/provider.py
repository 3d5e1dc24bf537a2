"""Asks one OpenID Connect provider: where its parts are, for its keys, for tokens in place of a code.

Leaves judging the ID token to `id_token`, and who that is here to `accounts`.
"""

import asyncio
import logging
import math
from base64 import b64encode
from random import SystemRandom
from typing import Any, Final, NamedTuple, Self, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from api.http_client import AioHttpClient
from api.oauth.id_token import Fault, IdClaims, Jwk, Wanted, header_of, key_for, read_id_token
from engine.admission.breaker import Breaker
from engine.clock import Clock
from engine.config import Settings
from engine.errors import ProviderUnavailable
from engine.payment.http import HttpClient, HttpReply

logger = logging.getLogger(__name__)

CONNECTIONS_MAX: Final = 8  # Logins of one front; each holds one for some milliseconds.
DISCOVERY_SECONDS: Final = 3600.0  # Providers move their parts rarely, and announce it.
KEYS_SECONDS_MIN: Final = (
    10.0  # Between two looks at the keys: tokens with made-up ids ask for nothing.
)
KEYS_SECONDS_MAX: Final = 3600.0  # A key that was stolen and taken back does not open for ever.
KEYS_MAX: Final = 32

_FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}
_ACCEPT: Final = {"Accept": "application/json"}
_WELL_KNOWN: Final = "/.well-known/openid-configuration"

Said = TypeVar("Said")


class Discovery(msgspec.Struct, frozen=True):
    """Where the provider's parts are (OpenID Connect Discovery 1.0 §3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    authorization_response_iss_parameter_supported: bool = False


class _Keys(msgspec.Struct, frozen=True):
    keys: list[dict[str, Any]]


class _Tokens(msgspec.Struct, frozen=True):
    id_token: str
    access_token: str


class Code(NamedTuple):
    """A code that came back, and what it is worth only with."""

    code: str
    verifier: str
    nonce: str
    redirect_uri: str


class Provider:
    """One provider, by one process. Raises ProviderUnavailable where it does not answer."""

    def __init__(
        self,
        http: HttpClient,
        breaker: Breaker,
        clock: Clock,
        *,
        issuer: str,
        client_id: str,
        client_secret: str | None,
    ) -> None:
        self._http = http
        self._breaker = breaker
        self._clock = clock
        self.issuer = issuer
        self.client_id = client_id
        self._client_secret = client_secret
        self._discovery: Discovery | None = None
        self._discovered_at = 0.0
        self._keys: list[Jwk] = []
        self._keys_read_at: float | None = None
        self._looking = asyncio.Lock()

    async def discovery(self) -> Discovery:
        """Where its parts are; an hour old at most."""
        now = self._clock.monotonic()
        known = self._discovery
        if known is not None and now - self._discovered_at < DISCOVERY_SECONDS:
            return known
        found = await self._get(self.issuer.rstrip("/") + _WELL_KNOWN, Discovery)
        _check(found, self.issuer)
        self._discovery, self._discovered_at = found, now
        return found

    async def redeem(self, code: Code) -> IdClaims | Fault:
        """Who logged in, in exchange for the code."""
        discovery = await self.discovery()
        tokens = await self._exchange(discovery, code)
        if isinstance(tokens, Fault):
            return tokens
        header = header_of(tokens.id_token)
        if isinstance(header, Fault):
            return header
        key = await self._key_for(discovery, header)
        if key is None:
            return Fault("the ID token is signed with a key that the provider does not name")
        wanted = Wanted(
            issuer=self.issuer,
            client_id=self.client_id,
            nonce=code.nonce,
            access_token=tokens.access_token,
            now_s=self._clock.now_ms() / 1000,
        )
        return read_id_token(tokens.id_token, key, wanted)

    async def _exchange(self, discovery: Discovery, code: Code) -> _Tokens | Fault:
        form = {
            "grant_type": "authorization_code",
            "code": code.code,
            "redirect_uri": code.redirect_uri,
            "code_verifier": code.verifier,
        }
        headers = _FORM | _ACCEPT | self._credentials(discovery, form)
        with self._breaker.guarding():
            reply = await self._http.post(
                discovery.token_endpoint, urlencode(form).encode(), headers
            )
            if reply.status >= 500:
                raise ProviderUnavailable(f"{self.issuer} answered with {reply.status}.")
        if reply.status != 200:
            return Fault("the provider did not take the code")
        return _decoded(reply, _Tokens)

    def _credentials(self, discovery: Discovery, form: dict[str, str]) -> dict[str, str]:
        """Headers that say who we are; what belongs into the form is added to it."""
        methods = discovery.token_endpoint_auth_methods_supported
        if self._client_secret is None:
            form["client_id"] = self.client_id
            return {}
        if "client_secret_basic" not in methods and "client_secret_post" in methods:
            form |= {"client_id": self.client_id, "client_secret": self._client_secret}
            return {}
        pair = f"{quote(self.client_id, safe='')}:{quote(self._client_secret, safe='')}"
        return {"Authorization": "Basic " + b64encode(pair.encode()).decode()}  # RFC 6749 §2.3.1

    async def _key_for(self, discovery: Discovery, header: dict[str, Any]) -> Jwk | None:
        """A key we do not know may be new: they are read again, but not by everyone's wish."""
        key = key_for(header, self._keys)
        if key is not None and self._keys_age() < KEYS_SECONDS_MAX:
            return key
        async with self._looking:  # Who comes meanwhile waits for the same look.
            if self._keys_age() >= KEYS_SECONDS_MIN:
                found = await self._get(discovery.jwks_uri, _Keys)
                self._keys = list(found.keys[:KEYS_MAX])
                self._keys_read_at = self._clock.monotonic()
        return key_for(header, self._keys)

    def _keys_age(self) -> float:
        read_at = self._keys_read_at
        return math.inf if read_at is None else self._clock.monotonic() - read_at

    async def _get(self, url: str, kind: type[Said]) -> Said:
        with self._breaker.guarding():
            return _decoded(await self._http.get(url, _ACCEPT), kind)


class Oidc:
    """The provider of the settings, or none, under its name. Its owner closes it."""

    def __init__(self, name: str, provider: Provider | None, http: AioHttpClient) -> None:
        self.name = name
        self.provider = provider
        self.close = http.close

    @classmethod
    def of(cls, settings: Settings, clock: Clock) -> Self:
        http = AioHttpClient(connections_max=CONNECTIONS_MAX)
        provider = None
        if settings.oidc_issuer is not None and settings.oidc_client_id is not None:
            provider = Provider(
                http,
                Breaker("oidc", clock, SystemRandom()),
                clock,
                issuer=settings.oidc_issuer,
                client_id=settings.oidc_client_id,
                client_secret=settings.oidc_client_secret,
            )
        return cls(settings.oidc_name, provider, http)


def _check(found: Discovery, issuer: str) -> None:
    """Whether the document is that issuer's own (Discovery §4.3), and its parts as safe as it is."""
    if found.issuer != issuer:
        raise ProviderUnavailable(f"{issuer} says that it is {found.issuer}.")
    scheme = urlsplit(issuer).scheme
    for url in (found.authorization_endpoint, found.token_endpoint, found.jwks_uri):
        if urlsplit(url).scheme not in {"https", scheme}:
            raise ProviderUnavailable(f"{issuer} names a part that is not served by TLS.")


def _decoded(reply: HttpReply, kind: type[Said]) -> Said:
    """The answer; ProviderUnavailable if it is none: such a provider is as good as away."""
    if reply.status != 200:
        raise ProviderUnavailable(f"The login provider answered with status {reply.status}.")
    try:
        return msgspec.json.decode(reply.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # Not what it said: that may hold tokens.
        raise ProviderUnavailable("The login provider's answer makes no sense.") from error
