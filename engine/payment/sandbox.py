"""The sandbox provider: speaks the HTTP of `api.sandbox`. Real in all but the money."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Final
from urllib.parse import urlsplit

import msgspec

from engine.clock import Clock
from engine.errors import ProviderUnavailable
from engine.payment.http import HttpClient, HttpReply
from engine.payment.provider import (
    Acknowledgement,
    Charge,
    ChargeStatus,
    Offer,
    PaymentRequest,
    ProviderRefused,
    ProviderResult,
    StatementLine,
    StatementUnreadable,
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


class SandboxOrder(msgspec.Struct, frozen=True):
    """A charge as the gateway is asked for it."""

    payment_id: str
    amount_minor: int
    currency: str
    options: dict[str, object] = {}


class SandboxProvider:
    """Implements `provider.Provider` over an HttpClient. `url` is the gateway's root."""

    name = NAME
    offer = Offer(None, ())
    acknowledgement = Acknowledgement(b'{"received":true}', "application/json")
    bill_offset_hours = 0

    def __init__(self, http: HttpClient, url: str, secret: str, clock: Clock) -> None:
        self._http = http
        self._root = url.rstrip("/")
        self._path = urlsplit(self._root).path
        self._secret = secret
        self._clock = clock

    async def create(self, request: PaymentRequest) -> ProviderResult:
        order = SandboxOrder(
            request.payment_id, request.amount_minor, request.currency, request.options
        )
        return await self._post("/charges", msgspec.json.encode(order))

    async def query(self, charge: Charge) -> ProviderResult:
        reply = await self._get(f"/charges/{charge.payment_id}")
        if reply.status == 404:
            return ProviderResult(charge.payment_id, ChargeStatus.UNKNOWN)
        return _read_reply(reply)

    async def capture(self, charge: Charge) -> ProviderResult:
        """The sandbox authorizes nothing: what there is, is captured."""
        return await self.query(charge)

    async def cancel(self, charge: Charge) -> ProviderResult:
        """The sandbox waits for no buyer: a charge goes on as it is."""
        return await self.query(charge)

    async def refund(self, charge: Charge) -> ProviderResult:
        return await self._post(f"/charges/{charge.payment_id}/refunds", b"{}")

    async def statement(self, day: date) -> Sequence[StatementLine]:
        reply = await self._get(f"/statements/{day}")
        if reply.status != 200:
            raise ProviderRefused(f"The sandbox has no statement of {day}.")
        return read_statement(reply.body)

    async def parse_webhook(
        self, headers: Mapping[str, str], body: bytes, now_ms: int
    ) -> WebhookEvent:
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

    async def _get(self, path: str) -> HttpReply:
        return await self._http.get(self._root + path, self._headers("GET", path, b""))

    def _headers(self, method: str, path: str, body: bytes) -> dict[str, str]:
        signed = request_bytes(method, self._path + path, body)
        return sign(self._secret, signed, self._clock.now_ms())


def read_statement(body: bytes) -> list[StatementLine]:
    """A statement as the gateway tells it."""
    try:
        return msgspec.json.decode(body, type=list[StatementLine])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StatementUnreadable(f"It is no statement of the sandbox: {error}") from error


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
