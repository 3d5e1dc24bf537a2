"""The gateway's HTTP: charges in, signed webhooks out. Run by `doorbuster sandbox`."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, Protocol
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from api.http_client import AioHttpClient
from api.sandbox.deliveries import CONNECTIONS_MAX, Deliveries
from api.sandbox.gateway_keys import GatewayKeys
from api.sandbox.gateways import DATABASE_FILE as TRADES_FILE
from api.sandbox.gateways import Gateways
from api.sandbox.ledger import ChargeLedger, Mismatch, NotCaptured
from api.sandbox.notices import Notices
from api.sandbox.scenarios import Options, plan
from api.sandbox.trades import TradeBook
from engine.clock import Clock, SystemClock
from engine.config import Settings
from engine.errors import ConfigError, Overloaded, Unavailable
from engine.ids import Ids, RandomIds
from engine.payment.provider import ChargeStatus
from engine.payment.sandbox import SandboxCharge
from engine.payment.shop_url import shop_url
from engine.payment.signature import BadSignature, request_bytes, verify
from engine.polling import supervise

logger = logging.getLogger(__name__)

DATABASE_FILE: Final = "sandbox.sqlite3"
WEBHOOK_PATH: Final = "/v1/webhooks/sandbox"
BODY_BYTES_MAX: Final = 65_536

PaymentId = Annotated[str, msgspec.Meta(pattern="^[!-~]{1,128}$")]


class Teller(Protocol):
    """What tells merchants. `run` returns soon after `stop`."""

    async def run(self) -> None: ...
    def stop(self) -> None: ...


class ChargeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /charges."""

    payment_id: PaymentId
    amount_minor: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    currency: Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")]
    options: Options = Options()


class Gateway:
    """The calls. Every one is signed by the merchant; see engine/payment/signature.py."""

    def __init__(self, ledger: ChargeLedger, clock: Clock, ids: Ids, secret: str) -> None:
        self._ledger = ledger
        self._clock = clock
        self._ids = ids
        self._secret = secret

    def make_app(self) -> web.Application:
        app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[_answer_failures])
        app.router.add_post("/charges", self.create)
        app.router.add_get("/charges/{payment_id}", self.find)
        app.router.add_post("/charges/{payment_id}/refunds", self.refund)
        app.router.add_get("/statements/{day}", self.statement)
        return app

    async def create(self, request: web.Request) -> web.Response:
        """201 with the new charge, 200 with the one made before, 409 for another amount."""
        body = await self._verified(request)
        try:
            wanted = msgspec.json.decode(body, type=ChargeBody)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _problem(400, str(error))
        charge = SandboxCharge(
            wanted.payment_id,
            self._ids.new("ch"),
            ChargeStatus.PENDING,
            wanted.amount_minor,
            wanted.currency,
        )
        try:
            charge, new = await self._ledger.create(
                charge, plan(wanted.options), self._clock.now_ms()
            )
        except Mismatch:
            return _problem(409, "The payment id was used for another amount.")
        return _json(charge, 201 if new else 200)

    async def find(self, request: web.Request) -> web.Response:
        """The charge as it is now."""
        await self._verified(request)
        charge = await self._ledger.find(request.match_info["payment_id"], self._clock.now_ms())
        return _problem(404, "No such charge.") if charge is None else _json(charge)

    async def refund(self, request: web.Request) -> web.Response:
        """The refunded charge, however often it is asked; 409 where nothing was captured."""
        await self._verified(request)
        try:
            charge = await self._ledger.refund(
                request.match_info["payment_id"], self._clock.now_ms()
            )
        except NotCaptured:
            return _problem(409, "The charge is not captured.")
        return _problem(404, "No such charge.") if charge is None else _json(charge)

    async def statement(self, request: web.Request) -> web.Response:
        """What was captured and refunded on a day of UTC."""
        await self._verified(request)
        try:
            day = date.fromisoformat(request.match_info["day"])
        except ValueError:
            return _problem(400, "day: YYYY-MM-DD")
        begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
        end = begin + timedelta(days=1)
        lines = await self._ledger.statement(
            int(begin.timestamp() * 1000), int(end.timestamp() * 1000)
        )
        return web.Response(body=msgspec.json.encode(lines), content_type="application/json")

    async def _verified(self, request: web.Request) -> bytes:
        body = await request.read()
        signed = request_bytes(request.method, request.path, body)
        verify(self._secret, request.headers, signed, self._clock.now_ms())
        return body


@web.middleware
async def _answer_failures(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except BadSignature as error:
        return _problem(401, str(error))
    except (Overloaded, Unavailable) as error:
        return _problem(503, str(error))


def _json(charge: SandboxCharge, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(charge), status=status, content_type="application/json"
    )


def _problem(status: int, detail: str) -> web.Response:
    body = msgspec.json.encode({"status": status, "detail": detail})
    return web.Response(body=body, status=status, content_type="application/problem+json")


async def run_sandbox(
    settings: Settings,
    stopped: asyncio.Event,
    *,
    clock: Clock | None = None,
    ids: Ids | None = None,
    keys: GatewayKeys | None = None,
) -> None:
    """Serves on `sandbox_url` until stopped, and tells webhooks to `public_url`. Raises ConfigError.

    With keys, Alipay, WeChat Pay and Stripe are practised with beside it.
    """
    if settings.sandbox_url is None or settings.sandbox_secret is None:
        raise ConfigError(["DOORBUSTER_SANDBOX_URL and DOORBUSTER_SANDBOX_SECRET are not known."])
    clock, ids = clock or SystemClock(), ids or RandomIds()
    front = shop_url(settings)
    ledger = ChargeLedger(Path(settings.data_dir) / DATABASE_FILE)
    try:
        async with AioHttpClient(connections_max=CONNECTIONS_MAX) as http:
            deliveries = Deliveries(
                ledger, http, clock, url=front + WEBHOOK_PATH, secret=settings.sandbox_secret
            )
            app = Gateway(ledger, clock, ids, settings.sandbox_secret).make_app()
            tellers: list[tuple[str, Teller]] = [("Deliveries", deliveries)]
            if keys is not None:
                gateways = _gateways(settings, Notices(http, clock), clock, ids, keys)
                gateways.mount(app)
                tellers.append(("Notices", gateways.notices))
            await _serve(app, settings.sandbox_url, tellers, stopped)
    finally:
        await ledger.close()


def _gateways(
    settings: Settings, notices: Notices, clock: Clock, ids: Ids, keys: GatewayKeys
) -> Gateways:
    book = TradeBook(Path(settings.data_dir) / TRADES_FILE)
    gateways = Gateways(book, notices, clock, ids, keys)
    gateways.reached_at((settings.sandbox_url or "").rstrip("/"), shop_url(settings))
    return gateways


async def _serve(
    app: web.Application, url: str, tellers: Sequence[tuple[str, Teller]], stopped: asyncio.Event
) -> None:
    address = urlsplit(url)
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=75.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, address.hostname, address.port).start()
        telling = [
            asyncio.create_task(supervise(name, teller.run, stopped)) for name, teller in tellers
        ]
        await stopped.wait()
        for _, teller in tellers:
            teller.stop()
        await asyncio.gather(*telling)
    except OSError as error:
        raise ConfigError([f"DOORBUSTER_SANDBOX_URL={url}: {error.strerror or error}"]) from error
    finally:
        await runner.cleanup()
