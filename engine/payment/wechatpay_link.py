"""Speaks HTTP with WeChat Pay v3: signs what goes out, verifies what comes back.

Knows no call in particular.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from engine.clock import Clock
from engine.errors import ProviderUnavailable
from engine.ids import Ids
from engine.payment.http import ANSWER_BYTES_MAX, HttpClient, HttpReply
from engine.payment.keys import is_signed
from engine.payment.wechatpay_certificates import PATH as CERTIFICATES
from engine.payment.wechatpay_certificates import Certificates
from engine.payment.wechatpay_signing import (
    NONCE,
    SERIAL,
    SIGNATURE,
    TIMESTAMP,
    answer_text,
    authorization,
    is_timely,
    request_text,
)

# Its own failures and its wish for patience say nothing of the charge.
AWAY: Final = frozenset({408, 425, 429})


class Merchant(NamedTuple):
    """Who we are to WeChat Pay."""

    mch_id: str
    app_id: str
    serial: str  # of our own certificate
    key: RSAPrivateKey
    secret: bytes  # of API v3
    given_key: tuple[str, RSAPublicKey] | None = None  # WeChat's, with its id, if not certificates


class Said(NamedTuple):
    """A verified answer."""

    status: int
    body: dict[str, Any]

    @property
    def code(self) -> str:
        """Why it was refused, in WeChat's word."""
        return str(self.body.get("code", ""))


class NotGenuine(Exception):
    """A message is forged, stale or incomplete."""


class WeChatPayLink:
    """One merchant's conversation."""

    def __init__(
        self, http: HttpClient, clock: Clock, ids: Ids, merchant: Merchant, url: str
    ) -> None:
        self._http = http
        self._clock = clock
        self._ids = ids
        self._merchant = merchant
        self._root = url.rstrip("/")
        self._certificates = Certificates(
            lambda: self.send("GET", CERTIFICATES), self._is_from, clock, merchant.secret
        )

    async def ask(
        self, method: str, path: str, content: Mapping[str, object] | None = None
    ) -> Said:
        """Raises ProviderUnavailable for anything but a genuine answer."""
        reply = await self.send(method, path, content)
        if reply.status >= 500 or reply.status in AWAY:
            raise ProviderUnavailable(f"WeChat Pay answered {reply.status}.")
        try:
            await self.verify(reply.headers, reply.body, self._clock.now_ms())
            body = json.loads(reply.body) if reply.body else {}
            if not isinstance(body, dict):
                raise ValueError("no object")
        except (NotGenuine, ValueError) as error:
            raise ProviderUnavailable(
                f"WeChat Pay answered {reply.status} with nonsense: {error}"
            ) from error
        return Said(reply.status, body)

    async def send(
        self,
        method: str,
        path: str,
        content: Mapping[str, object] | None = None,
        *,
        bytes_max: int = ANSWER_BYTES_MAX,
    ) -> HttpReply:
        """The bare answer to a signed request; `path` may be a whole address."""
        url = path if "://" in path else self._root + path
        body = b"" if content is None else json.dumps(content, ensure_ascii=False).encode()
        headers = self._headers(method, url, body)
        if method == "POST":
            return await self._http.post(url, body, headers)
        return await self._http.get(url, headers, bytes_max=bytes_max)

    async def verify(self, headers: Mapping[str, str], body: bytes, now_ms: int) -> None:
        """Raises NotGenuine; ProviderUnavailable where the certificates could not be had."""
        if not is_timely(headers.get(TIMESTAMP, ""), now_ms):
            raise NotGenuine("it is too old, or says no time")
        key = await self._key(headers.get(SERIAL, ""))
        if key is None:
            raise NotGenuine("its certificate is unknown")
        if not _is_signed_by(key, headers, body):
            raise NotGenuine("its signature does not fit")

    async def _key(self, serial: str) -> RSAPublicKey | None:
        """While a merchant moves from certificates to a key, messages come with either."""
        given = self._merchant.given_key
        if given is not None and serial == given[0]:
            return given[1]
        return await self._certificates.key(serial)

    def _is_from(self, reply: HttpReply, keys: Mapping[str, RSAPublicKey]) -> bool:
        key = keys.get(reply.headers.get(SERIAL, ""))
        timely = is_timely(reply.headers.get(TIMESTAMP, ""), self._clock.now_ms())
        return key is not None and timely and _is_signed_by(key, reply.headers, reply.body)

    def _headers(self, method: str, url: str, body: bytes) -> dict[str, str]:
        parts = urlsplit(url)
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        timestamp, nonce = str(self._clock.now_ms() // 1000), self._ids.new("n")[-32:]
        signed = authorization(
            self._merchant.key,
            mch_id=self._merchant.mch_id,
            serial=self._merchant.serial,
            timestamp=timestamp,
            nonce=nonce,
            text=request_text(method, path, timestamp, nonce, body),
        )
        given = self._merchant.given_key
        return {
            "Authorization": signed,
            "Accept": "application/json",
            "Content-Type": "application/json",
            **({SERIAL: given[0]} if given else {}),  # By it WeChat signs its answers.
        }


def _is_signed_by(key: RSAPublicKey, headers: Mapping[str, str], body: bytes) -> bool:
    text = answer_text(headers.get(TIMESTAMP, ""), headers.get(NONCE, ""), body)
    return is_signed(key, headers.get(SIGNATURE, ""), text)
