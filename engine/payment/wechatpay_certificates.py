"""WeChat Pay's platform certificates: fetched, opened, kept by serial, fetched again when one is new.

Decides which key a serial stands for. What is signed with it is for others to verify.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509 import load_pem_x509_certificate

from engine.clock import Clock
from engine.errors import ProviderUnavailable
from engine.payment.http import HttpReply
from engine.payment.wechatpay_signing import Sealed, opened

logger = logging.getLogger(__name__)

PATH: Final = "/v3/certificates"
FETCH_SECONDS_MIN: Final = 60.0  # Anyone may send unknown serials; nobody makes us ask more often.
RETRY_SECONDS_MIN: Final = 1.0  # … nor while there are none, and every message would have us ask.
FRESH_SECONDS_MAX: Final = 43_200.0  # WeChat asks for a look every twelve hours.
CERTIFICATES_MAX: Final = 16

Fetch = Callable[[], Awaitable[HttpReply]]
Verify = Callable[[HttpReply, Mapping[str, RSAPublicKey]], bool]


class Certificates:
    """Keys by serial. `fetch` asks for PATH; `verify` judges its answer by the keys that it brings."""

    def __init__(self, fetch: Fetch, verify: Verify, clock: Clock, secret: bytes) -> None:
        self._fetch = fetch
        self._verify = verify
        self._clock = clock
        self._secret = secret
        self._keys: dict[str, RSAPublicKey] = {}
        self._fetched_at: float | None = None
        self._turn = asyncio.Lock()

    async def key(self, serial: str) -> RSAPublicKey | None:
        """None for a serial that WeChat does not know. Raises ProviderUnavailable."""
        if serial in self._keys and not self._is_older(FRESH_SECONDS_MAX):
            return self._keys[serial]
        async with self._turn:
            seconds_min = FETCH_SECONDS_MIN if self._keys else RETRY_SECONDS_MIN
            if serial not in self._keys and self._is_older(seconds_min):
                await self._refresh()
            elif self._is_older(FRESH_SECONDS_MAX):
                await self._refresh_if_possible()
        if not self._keys:
            raise ProviderUnavailable("WeChat Pay's certificates could not be had a moment ago.")
        return self._keys.get(serial)

    async def _refresh(self) -> None:
        self._fetched_at = self._clock.monotonic()
        self._keys = self._read(await self._fetch())
        logger.info(
            "WeChat Pay has %d certificates.",
            len(self._keys),
            extra={"action": "certificates_fetched"},
        )

    async def _refresh_if_possible(self) -> None:
        """The keys we have are good for years: an old look at them stops no payment."""
        try:
            await self._refresh()
        except ProviderUnavailable as error:
            logger.warning("%s", error, extra={"action": "certificates_kept"})

    def _is_older(self, seconds: float) -> bool:
        return self._fetched_at is None or self._clock.monotonic() - self._fetched_at > seconds

    def _read(self, reply: HttpReply) -> dict[str, RSAPublicKey]:
        if reply.status != 200:
            raise ProviderUnavailable(f"WeChat Pay answered {reply.status} for its certificates.")
        try:
            entries = json.loads(reply.body)["data"]
            opened_keys = map(self._open, entries[:CERTIFICATES_MAX])
            keys = dict(pair for pair in opened_keys if pair is not None)
        except (KeyError, TypeError, ValueError, Sealed) as error:
            raise ProviderUnavailable(
                f"WeChat Pay's certificates make no sense: {error}"
            ) from error
        # That they could be opened with our key says whose they are; the signature, that none is missing.
        if not self._verify(reply, keys):
            raise ProviderUnavailable("WeChat Pay's certificates are not signed by one of them.")
        return keys

    def _open(self, entry: Mapping[str, Any]) -> tuple[str, RSAPublicKey] | None:
        """None for one that has expired. Raises ValueError, Sealed."""
        certificate = load_pem_x509_certificate(opened(self._secret, entry["encrypt_certificate"]))
        serial = str(entry["serial_no"])
        if int(serial, 16) != certificate.serial_number:
            raise ValueError("a certificate has another serial")
        now = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)
        if certificate.not_valid_after_utc < now:
            return None
        key = certificate.public_key()
        if not isinstance(key, RSAPublicKey):
            raise ValueError("a certificate has no RSA key")
        return serial, key
