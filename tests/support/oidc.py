"""An OpenID Connect provider on loopback: discovery, authorize, token with PKCE, keys; it signs for real.

Well-behaved until a test bends it: `bend` changes claims, `sign` the whole token.
"""

import asyncio
import base64
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, Key, RSAKey

from tests.support.waiting import WAIT_SECONDS_MAX

CLIENT_ID = "doorbuster"
CLIENT_SECRET = "s:ecret/of the client"
_RSA = [RSAKey.generate_key(2048, {"kid": f"rsa-{n}", "use": "sig"}) for n in range(2)]


@dataclass
class ProviderStand:
    """One person is logged in there: `person` are his claims."""

    issuer: str = ""
    person: dict[str, Any] = field(
        default_factory=lambda: {
            "sub": "248289761001",
            "email": "jane@example.com",
            "email_verified": True,
            "name": "Jane Doe",
        }
    )
    key: Key = field(default_factory=lambda: _RSA[0])
    published: list[Key] = field(default_factory=lambda: [_RSA[0]])
    bend: dict[str, Any] = field(default_factory=dict)  # None: the claim is left out
    sign: Callable[[dict[str, Any]], str] | None = None
    sends_iss: bool = False
    down: bool = False
    keys_wait_for: int = 0  # tokens that were given
    asked: list[str] = field(default_factory=list)
    _given: asyncio.Event = field(default_factory=asyncio.Event)
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def rotate(self, *, ec: bool = False) -> None:
        """Another key signs from now on, and the old one is no longer published."""
        self.key = ECKey.generate_key("P-256", {"kid": "ec-1", "use": "sig"}) if ec else _RSA[1]
        self.published = [self.key]

    def authorize(self, location: str) -> str:
        """What the browser comes back with, as path and query, after the person agreed."""
        asked = {name: texts[0] for name, texts in parse_qs(urlsplit(location).query).items()}
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT_ID
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(16)
        self._codes[code] = asked
        back = {"code": code, "state": asked["state"]}
        if self.sends_iss:
            back["iss"] = self.issuer
        return f"{urlsplit(asked['redirect_uri']).path}?{urlencode(back)}"

    async def discover(self, _: web.Request) -> web.Response:
        self.asked.append("discovery")
        return web.json_response(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                "authorization_response_iss_parameter_supported": self.sends_iss,
            },
            status=503 if self.down else 200,
        )

    async def keys(self, _: web.Request) -> web.Response:
        self.asked.append("keys")
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            while self.asked.count("token") < self.keys_wait_for:
                await self._given.wait()
                self._given.clear()
        return web.json_response({"keys": [key.as_dict(private=False) for key in self.published]})

    async def token(self, request: web.Request) -> web.Response:
        self.asked.append("token")
        self._given.set()
        form = await request.post()
        begun = self._codes.pop(str(form["code"]), None)  # A code is good once.
        if begun is None or not _is_proven(begun["code_challenge"], str(form["code_verifier"])):
            return web.json_response({"error": "invalid_grant"}, status=400)
        assert form["redirect_uri"] == begun["redirect_uri"]
        assert request.headers["Authorization"] == _basic()
        access_token = secrets.token_urlsafe(16)
        claims = self._claims(begun["nonce"], access_token)
        signed = self.sign(claims) if self.sign else self.signed(claims)
        return web.json_response(
            {"access_token": access_token, "token_type": "Bearer", "id_token": signed}
        )

    def signed(self, claims: dict[str, Any]) -> str:
        algorithm = "RS256" if isinstance(self.key, RSAKey) else "ES256"
        header = {"alg": algorithm, "kid": self.key.kid}
        return jwt.encode(header, claims, self.key, algorithms=[algorithm])

    def _claims(self, nonce: str, access_token: str) -> dict[str, Any]:
        now = int(time.time())
        half = hashlib.sha256(access_token.encode()).digest()[:16]
        claims = self.person | {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": nonce,
            "at_hash": base64.urlsafe_b64encode(half).decode().rstrip("="),
        }
        return {n: value for n, value in (claims | self.bend).items() if value is not None}


@asynccontextmanager
async def oidc_provider() -> AsyncIterator[ProviderStand]:
    stand = ProviderStand()
    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", stand.discover)
    app.router.add_get("/keys", stand.keys)
    app.router.add_post("/token", stand.token)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert runner.addresses
    stand.issuer = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield stand
    finally:
        await runner.cleanup()


def _is_proven(challenge: str, verifier: str) -> bool:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=") == challenge


def _basic() -> str:
    pair = f"{CLIENT_ID}:s%3Aecret%2Fof%20the%20client"
    return "Basic " + base64.b64encode(pair.encode()).decode()
