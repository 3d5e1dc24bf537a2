"""The sandbox provider: speaks the HTTP of `api.sandbox`. Real in all but the money."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import msgspec

from engine.clock import Clock
from engine.errors import ProviderUnavailable
from engine.payment.http import HttpClient, HttpReply
from engine.payment.provider import (
    ChargeStatus,
    PaymentRequest,
    ProviderRefused,
    ProviderResult,
    WebhookEvent,
    WebhookRefused,
)
from engine.payment.signature import BadSignature, request_bytes, sign, verify

NAME: Final = "sandbox"
EVENT_ID_MAX: Final = 128


class SandboxCharge(msgspec.Struct, frozen=True):
    """A charge as the gateway tells it."""

    payment_id: str
    charge_id: str
    status: ChargeStatus
    amount_minor: int
    currency: str
    detail: str | None = None


class SandboxEvent(msgspec.Struct, frozen=True):
    """The body of a webhook."""

    event_id: str
    charge: SandboxCharge


class SandboxProvider:
    """Implements `provider.Provider` over an HttpClient. `url` is the gateway's root."""

    name = NAME

    def __init__(self, http: HttpClient, url: str, secret: str, clock: Clock) -> None:
        self._http = http
        self._root = url.rstrip("/")
        self._path = urlsplit(self._root).path
        self._secret = secret
        self._clock = clock

    async def create(self, request: PaymentRequest) -> ProviderResult:
        return await self._post("/charges", msgspec.json.encode(request))

    async def query(self, payment_id: str) -> ProviderResult:
        path = f"/charges/{payment_id}"
        reply = await self._http.get(self._root + path, self._headers("GET", path, b""))
        if reply.status == 404:
            return ProviderResult(payment_id, ChargeStatus.UNKNOWN)
        return _read_reply(reply)

    async def refund(self, payment_id: str) -> ProviderResult:
        return await self._post(f"/charges/{payment_id}/refunds", b"{}")

    def parse_webhook(self, headers: Mapping[str, str], body: bytes, now_ms: int) -> WebhookEvent:
        try:
            verify(self._secret, headers, body, now_ms)
        except BadSignature as error:
            raise WebhookRefused(str(error)) from error
        return self.read_event(body)

    def read_event(self, body: bytes) -> WebhookEvent:
        try:
            event = msgspec.json.decode(body, type=SandboxEvent)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise WebhookRefused(f"The body is no sandbox event: {error}") from error
        if not 0 < len(event.event_id) <= EVENT_ID_MAX:
            raise WebhookRefused("The event has no usable id.")
        return WebhookEvent(event.event_id, _result(event.charge))

    async def _post(self, path: str, body: bytes) -> ProviderResult:
        reply = await self._http.post(self._root + path, body, self._headers("POST", path, body))
        return _read_reply(reply)

    def _headers(self, method: str, path: str, body: bytes) -> dict[str, str]:
        signed = request_bytes(method, self._path + path, body)
        return sign(self._secret, signed, self._clock.now_ms())


def _read_reply(reply: HttpReply) -> ProviderResult:
    if reply.status in {200, 201}:
        try:
            return _result(msgspec.json.decode(reply.body, type=SandboxCharge))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ProviderUnavailable(f"The sandbox answered nonsense: {error}") from error
    # Its own failures and its wish for patience say nothing about the charge.
    if reply.status >= 500 or reply.status in {408, 425, 429}:
        raise ProviderUnavailable(f"The sandbox answered {reply.status}.")
    raise ProviderRefused(f"The provider refused it: {reply.body[:200].decode(errors='replace')}")


def _result(charge: SandboxCharge) -> ProviderResult:
    return ProviderResult(
        charge.payment_id,
        charge.status,
        charge.amount_minor,
        charge.currency,
        charge.charge_id,
        charge.detail,
    )
