"""The sandbox carrier as the shop calls it: speaks the HTTP of `api.carriers.sandbox`."""

from collections.abc import Mapping
from typing import Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from api.carriers.protocol import (
    CarrierRefused,
    CarrierUnavailable,
    EventRefused,
    Label,
    Parcel,
    TrackingEvent,
)
from engine.clock import Clock
from engine.errors import ProviderUnavailable
from engine.payment.http import HttpClient, HttpReply
from engine.payment.signature import BadSignature, request_bytes, sign, verify

NAME: Final = "sandbox"

Reply = TypeVar("Reply")


class Cancelled(msgspec.Struct, frozen=True):
    """The answer to a cancel."""

    cancelled: bool


class SandboxCarrier:
    """Implements `protocol.Carrier` over an HttpClient. `url` is the carrier's root."""

    name = NAME

    def __init__(self, http: HttpClient, url: str, secret: str, clock: Clock) -> None:
        self._http = http
        self._root = url.rstrip("/")
        self._path = urlsplit(self._root).path
        self._secret = secret
        self._clock = clock

    async def create(self, parcel: Parcel) -> Label:
        return _read(await self._send("POST", "/parcels", msgspec.json.encode(parcel)), Label)

    async def track(self, shipment_id: str) -> list[TrackingEvent]:
        reply = await self._send("GET", f"/parcels/{shipment_id}/events", b"")
        return [] if reply.status == 404 else _read(reply, list[TrackingEvent])

    async def cancel(self, shipment_id: str) -> bool:
        reply = await self._send("POST", f"/parcels/{shipment_id}/cancel", b"{}")
        return _read(reply, Cancelled).cancelled

    def parse_webhook(self, headers: Mapping[str, str], body: bytes, now_ms: int) -> TrackingEvent:
        try:
            verify(self._secret, headers, body, now_ms)
            return msgspec.json.decode(body, type=TrackingEvent)
        except BadSignature as error:
            raise EventRefused(str(error)) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise EventRefused(f"The body is no tracking event: {error}") from error

    async def _send(self, method: str, path: str, body: bytes) -> HttpReply:
        signed = request_bytes(method, self._path + path, body)
        headers = sign(self._secret, signed, self._clock.now_ms())
        try:
            if method == "GET":
                return await self._http.get(self._root + path, headers)
            return await self._http.post(self._root + path, body, headers)
        except ProviderUnavailable as error:
            raise CarrierUnavailable(str(error)) from error


def _read(reply: HttpReply, kind: type[Reply]) -> Reply:
    if reply.status in {200, 201}:
        try:
            return msgspec.json.decode(reply.body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CarrierUnavailable(f"The carrier answered nonsense: {error}") from error
    # Its own failures and its wish for patience say nothing about the parcel.
    if reply.status >= 500 or reply.status in {401, 408, 425, 429}:
        raise CarrierUnavailable(f"The carrier answered {reply.status}.")
    raise CarrierRefused(_reason(reply.body))


def _reason(body: bytes) -> str:
    """What the carrier says, as far as it may be kept and shown."""
    text = body[:200].decode(errors="replace")
    return "The carrier refused it: " + "".join(c if c.isprintable() else " " for c in text)
