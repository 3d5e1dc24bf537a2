"""A carrier to practise with: real HTTP, real signatures, real webhooks, and no parcel.

Its parcels are picked up, travel, go out for delivery and arrive, one stage every so many seconds.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from api.carriers.client import Cancelled
from api.carriers.depot import Depot, Kept
from api.carriers.protocol import Label, Parcel
from api.http_client import AioHttpClient
from engine.clock import Clock, SystemClock
from engine.config import Settings
from engine.errors import ConfigError, ProviderUnavailable
from engine.payment.http import HttpClient
from engine.payment.signature import BadSignature, request_bytes, sign, verify
from engine.polling import poll, supervise

logger = logging.getLogger(__name__)

DATABASE_FILE: Final = "carrier.sqlite3"
EVENTS_PATH: Final = "/v1/carriers/sandbox/events"
BODY_BYTES_MAX: Final = 65_536
GRAMS_MAX: Final = 30_000  # As couriers have it: heavier is freight.
TELL_BATCH_MAX: Final = 64
CONNECTIONS_MAX: Final = 16
IDLE_SECONDS: Final = 0.05


class ParcelBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /parcels."""

    shipment_id: Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,128}\Z")]
    order_id: Annotated[str, msgspec.Meta(max_length=128)]
    address: dict[str, Any]
    weight_grams: Annotated[int, msgspec.Meta(ge=0)]


class CarrierDesk:
    """The calls. Every one is signed by the shop; see engine/payment/signature.py."""

    def __init__(self, depot: Depot, clock: Clock, secret: str, step_seconds: float) -> None:
        self._depot = depot
        self._clock = clock
        self._secret = secret
        self._step_ms = int(step_seconds * 1000)

    def make_app(self) -> web.Application:
        app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[_answer_forgeries])
        app.router.add_post("/parcels", self.create)
        app.router.add_get("/parcels/{shipment}/events", self.events)
        app.router.add_post("/parcels/{shipment}/cancel", self.cancel)
        return app

    async def create(self, request: web.Request) -> web.Response:
        """200 with the label, however often it is asked; 409 once cancelled, 422 if too heavy."""
        body = await self._verified(request)
        try:
            wanted = msgspec.json.decode(body, type=ParcelBody)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _problem(400, str(error))
        if wanted.weight_grams > GRAMS_MAX:
            return _problem(422, f"At most {GRAMS_MAX} g.")
        parcel = Parcel(wanted.shipment_id, wanted.order_id, wanted.address, wanted.weight_grams)
        kept = await self._depot.create(parcel, self._step_ms, self._clock.now_ms())
        if kept.cancelled:
            return _problem(409, "The parcel was cancelled.")
        return _json(Label(kept.tracking_number))

    async def events(self, request: web.Request) -> web.Response:
        """All that happened to the parcel so far."""
        await self._verified(request)
        kept = await self._depot.find(request.match_info["shipment"])
        if kept is None:
            return _problem(404, "No such parcel.")
        return _json(kept.events(self._clock.now_ms()))

    async def cancel(self, request: web.Request) -> web.Response:
        await self._verified(request)
        now_ms = self._clock.now_ms()
        return _json(Cancelled(await self._depot.cancel(request.match_info["shipment"], now_ms)))

    async def _verified(self, request: web.Request) -> bytes:
        body = await request.read()
        signed = request_bytes(request.method, request.path, body)
        verify(self._secret, request.headers, signed, self._clock.now_ms())
        return body


class Courier:
    """Tells what happened to the parcels, each stage until it is answered with 2xx."""

    def __init__(
        self, depot: Depot, http: HttpClient, clock: Clock, *, url: str, secret: str
    ) -> None:
        self._depot = depot
        self._http = http
        self._clock = clock
        self._url = url
        self._secret = secret
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Tells until stopped."""
        await poll(self.tell_once, self._stopped, IDLE_SECONDS)

    async def tell_once(self) -> int:
        """Tells a batch of what is due; returns how many were heard."""
        now_ms = self._clock.now_ms()
        due = await self._depot.due(now_ms, TELL_BATCH_MAX)
        if not due:
            return 0
        heard = await asyncio.gather(*(self._tell(kept) for kept in due))
        told = [kept for kept, said in zip(due, heard, strict=True) if said]
        again = [kept for kept, said in zip(due, heard, strict=True) if not said]
        await self._depot.note(told, again, now_ms)
        return len(told)

    def stop(self) -> None:
        """Makes `run` return after the pass it is in. Idempotent, safe before start."""
        self._stopped.set()

    async def _tell(self, kept: Kept) -> bool:
        body = msgspec.json.encode(kept.event(kept.told))
        headers = sign(self._secret, body, self._clock.now_ms())
        try:
            reply = await self._http.post(self._url, body, headers)
        except ProviderUnavailable:
            return False
        if not 200 <= reply.status < 300:
            logger.warning("A tracking event was answered %d.", reply.status)
            return False
        return True


@web.middleware
async def _answer_forgeries(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except BadSignature as error:
        return _problem(401, str(error))


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


def _problem(status: int, detail: str) -> web.Response:
    body = msgspec.json.encode({"status": status, "detail": detail})
    return web.Response(body=body, status=status, content_type="application/problem+json")


async def run_carrier(
    settings: Settings, stopped: asyncio.Event, *, clock: Clock | None = None
) -> None:
    """Serves on `carrier_url` until stopped, and tells events to `public_url`. Raises ConfigError."""
    if settings.carrier_url is None or settings.carrier_secret is None:
        raise ConfigError(["DOORBUSTER_CARRIER_URL and DOORBUSTER_CARRIER_SECRET are not known."])
    clock, secret = clock or SystemClock(), settings.carrier_secret
    front = settings.public_url or f"http://{settings.host}:{settings.port}"
    depot = Depot(Path(settings.data_dir) / DATABASE_FILE)
    try:
        async with AioHttpClient(connections_max=CONNECTIONS_MAX) as http:
            courier = Courier(depot, http, clock, url=front + EVENTS_PATH, secret=secret)
            desk = CarrierDesk(depot, clock, secret, settings.carrier_step_seconds)
            await _serve(desk.make_app(), settings.carrier_url, courier, stopped)
    finally:
        depot.close()


async def _serve(app: web.Application, url: str, courier: Courier, stopped: asyncio.Event) -> None:
    address = urlsplit(url)
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=75.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, address.hostname, address.port).start()
        telling = asyncio.create_task(supervise("Courier", courier.run, stopped))
        await stopped.wait()
        courier.stop()
        await telling
    except OSError as error:
        raise ConfigError([f"DOORBUSTER_CARRIER_URL={url}: {error.strerror or error}"]) from error
    finally:
        await runner.cleanup()
