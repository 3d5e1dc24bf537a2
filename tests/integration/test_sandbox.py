"""The sandbox gateway over real HTTP: charges, refunds, webhooks, signatures, and a kill -9."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from api.http_client import AioHttpClient
from api.sandbox import run_sandbox
from api.sandbox.scenarios import Options, Scenario, plan
from engine.clock import Clock, ManualClock, SystemClock
from engine.config import Settings
from engine.errors import ConfigError, ProviderUnavailable
from engine.payment.provider import (
    Charge,
    ChargeStatus,
    PaymentRequest,
    ProviderRefused,
    ProviderResult,
    WebhookEvent,
    WebhookRefused,
)
from engine.payment.sandbox import SandboxProvider
from engine.payment.signature import (
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    WINDOW_SECONDS,
    sign,
)
from tests.support.waiting import until

SECRET = "s" * 32
SECONDS_MAX = 10.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Merchant:
    """A front that takes webhooks, and the provider that talks to the gateway."""

    def __init__(self, settings: Settings, http: AioHttpClient, clock: Clock) -> None:
        assert settings.sandbox_url is not None
        self.settings = settings
        self.clock = clock
        self.provider = SandboxProvider(http, settings.sandbox_url, SECRET, clock)
        self.events: list[WebhookEvent] = []
        self.refusals = 0  # How many webhooks to answer with 503 first.
        self._heard = asyncio.Condition()

    async def take_webhook(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.refusals:
            self.refusals -= 1
            return web.Response(status=503)
        event = await self.provider.parse_webhook(request.headers, body, self.clock.now_ms())
        async with self._heard:
            self.events.append(event)
            self._heard.notify_all()
        return web.Response()

    async def hear(self, enough: Callable[[list[WebhookEvent]], bool]) -> list[WebhookEvent]:
        """The webhooks so far, as soon as they are enough."""
        async with asyncio.timeout(SECONDS_MAX), self._heard:
            await self._heard.wait_for(lambda: enough(self.events))
        return self.events

    async def pay(self, payment_id: str, **options: object) -> ChargeStatus:
        request = PaymentRequest(payment_id, 129_900, "CNY", options)
        return (await self.provider.create(request)).status

    async def query(self, payment_id: str) -> ProviderResult:
        return await self.provider.query(Charge(payment_id, 129_900, "CNY"))

    async def refund(self, payment_id: str) -> ProviderResult:
        return await self.provider.refund(Charge(payment_id, 129_900, "CNY"))

    async def ready(self) -> None:
        """The gateway answers."""
        await until(self._answers, "the gateway answers", SECONDS_MAX)

    async def _answers(self) -> bool:
        with suppress(ProviderUnavailable):
            await self.query("pay_none")
            return True
        return False


@pytest.fixture
async def merchant(tmp_path: Path) -> AsyncIterator[Merchant]:
    """With its front, without its gateway."""
    settings = Settings(
        data_dir=str(tmp_path),
        port=free_port(),
        sandbox_url=f"http://127.0.0.1:{free_port()}",
        sandbox_secret=SECRET,
    )
    async with AioHttpClient(connections_max=8) as http:
        merchant = Merchant(settings, http, SystemClock())
        app = web.Application()
        app.router.add_post("/v1/webhooks/sandbox", merchant.take_webhook)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", settings.port).start()
        yield merchant
        await runner.cleanup()


@asynccontextmanager
async def gateway_of(merchant: Merchant, clock: Clock | None = None) -> AsyncIterator[None]:
    """A gateway in this process, stopped in order."""
    stopped = asyncio.Event()
    serving = asyncio.create_task(run_sandbox(merchant.settings, stopped, clock=clock))
    try:
        await merchant.ready()
        yield
    finally:
        stopped.set()
        await serving


async def test_charge_is_captured_told_and_refunded_once(merchant: Merchant) -> None:
    async with gateway_of(merchant):
        assert await merchant.pay("pay_1") is ChargeStatus.CAPTURED
        assert await merchant.pay("pay_1") is ChargeStatus.CAPTURED
        (event,) = await merchant.hear(lambda events: len(events) == 1)
        assert (event.result.payment_id, event.result.status) == ("pay_1", ChargeStatus.CAPTURED)
        assert (event.result.amount_minor, event.result.currency) == (129_900, "CNY")
        for _ in range(2):
            assert (await merchant.refund("pay_1")).status is ChargeStatus.REFUNDED
        events = await merchant.hear(lambda events: len(events) == 2)
        assert events[-1].result.status is ChargeStatus.REFUNDED
        assert (await merchant.query("pay_1")).status is ChargeStatus.REFUNDED


async def test_failed_charge_says_why_and_cannot_be_refunded(merchant: Merchant) -> None:
    async with gateway_of(merchant):
        assert await merchant.pay("pay_1", scenario="fail") is ChargeStatus.FAILED
        assert (await merchant.query("pay_1")).detail == "declined"
        with pytest.raises(ProviderRefused):
            await merchant.refund("pay_1")


async def test_delayed_charge_is_pending_until_its_time(merchant: Merchant) -> None:
    async with gateway_of(merchant):
        assert await merchant.pay("pay_1", scenario="delay", seconds=0.3) is ChargeStatus.PENDING
        (event,) = await merchant.hear(lambda events: len(events) == 1)
        assert event.result.status is ChargeStatus.CAPTURED
        assert (await merchant.query("pay_1")).status is ChargeStatus.CAPTURED


async def test_duplicates_are_copies_of_one_event(merchant: Merchant) -> None:
    async with gateway_of(merchant):
        await merchant.pay("pay_1", scenario="duplicate")
        events = await merchant.hear(lambda events: len(events) == 3)
        assert len({event.event_id for event in events}) == 1


async def test_reordered_events_tell_the_older_state_last(merchant: Merchant) -> None:
    async with gateway_of(merchant):
        await merchant.pay("pay_1", scenario="reorder")
        events = await merchant.hear(lambda events: len(events) == 2)
        told = [event.result.status for event in events]
        assert told == [ChargeStatus.CAPTURED, ChargeStatus.PENDING]


async def test_silent_charge_is_found_by_a_query(merchant: Merchant) -> None:
    async with gateway_of(merchant):
        assert await merchant.pay("pay_1", scenario="silent") is ChargeStatus.PENDING
        assert (await merchant.query("pay_1")).status is ChargeStatus.CAPTURED


@pytest.mark.parametrize("scenario", Scenario)
def test_every_scenario_has_a_plan(scenario: Scenario) -> None:
    assert plan(Options(scenario)).outcome in {ChargeStatus.CAPTURED, ChargeStatus.FAILED}


async def test_webhook_is_delivered_again_until_it_is_taken(merchant: Merchant) -> None:
    merchant.refusals = 3
    async with gateway_of(merchant):
        await merchant.pay("pay_1")
        assert len(await merchant.hear(lambda events: len(events) == 1)) == 1


async def test_payment_id_used_for_another_amount_is_refused(merchant: Merchant) -> None:
    async with gateway_of(merchant):
        await merchant.pay("pay_1")
        with pytest.raises(ProviderRefused, match="409"):
            await merchant.provider.create(PaymentRequest("pay_1", 1, "CNY"))


@pytest.mark.parametrize(
    "options", [{"scenario": "win"}, {"seconds": "soon"}, {"unknown": 1}, {"scenario": None}]
)
async def test_nonsense_options_are_refused(merchant: Merchant, options: dict[str, object]) -> None:
    async with gateway_of(merchant):
        with pytest.raises(ProviderRefused, match="400"):
            await merchant.provider.create(PaymentRequest("pay_1", 1, "CNY", options))


async def test_unsigned_forged_and_replayed_requests_are_refused(merchant: Merchant) -> None:
    url = f"{merchant.settings.sandbox_url}/charges"
    body = msgspec.json.encode(PaymentRequest("pay_1", 1, "CNY"))
    now_ms = merchant.clock.now_ms()
    elsewhere = b"POST /charges/pay_1/refunds\n" + body
    async with gateway_of(merchant), AioHttpClient(connections_max=2) as http:
        for headers in ({}, sign("x" * 32, body, now_ms), sign(SECRET, elsewhere, now_ms)):
            assert (await http.post(url, body, headers)).status == 401
        assert (await merchant.query("pay_1")).status is ChargeStatus.UNKNOWN


async def test_kill_9_loses_no_charge_and_no_webhook(merchant: Merchant) -> None:
    merchant.refusals = 1_000_000
    process = await start_gateway(merchant)
    await merchant.ready()
    for number in range(20):
        assert await merchant.pay(f"pay_{number}") is ChargeStatus.CAPTURED
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    with pytest.raises(ProviderUnavailable):
        await merchant.query("pay_0")
    merchant.refusals = 0
    process = await start_gateway(merchant)
    try:
        await merchant.ready()
        events = await merchant.hear(lambda told: len({e.event_id for e in told}) == 20)
        assert {e.result.payment_id for e in events} == {f"pay_{n}" for n in range(20)}
        assert await merchant.pay("pay_7") is ChargeStatus.CAPTURED
    finally:
        process.terminate()
        await process.wait()


async def start_gateway(merchant: Merchant) -> asyncio.subprocess.Process:
    """The gateway as a process of its own."""
    program = (
        "import asyncio\n"
        "from api.sandbox import run_sandbox\n"
        "from engine.config import read_settings\n"
        "asyncio.run(run_sandbox(read_settings(), asyncio.Event()))\n"
    )
    settings = merchant.settings
    names = ("data_dir", "port", "sandbox_url", "sandbox_secret")
    environ = {f"DOORBUSTER_{name.upper()}": str(getattr(settings, name)) for name in names}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env={"PATH": os.environ["PATH"], **environ}
    )


async def test_gateway_without_address_or_with_a_taken_one_says_so(merchant: Merchant) -> None:
    with pytest.raises(ConfigError, match="DOORBUSTER_SANDBOX_URL"):
        await run_sandbox(Settings(), asyncio.Event())
    taken = f"http://127.0.0.1:{merchant.settings.port}"
    settings = msgspec.structs.replace(merchant.settings, sandbox_url=taken)
    with pytest.raises(ConfigError, match="DOORBUSTER_SANDBOX_URL"):
        await run_sandbox(settings, asyncio.Event())


def signed_event(now_ms: int, secret: str = SECRET) -> tuple[dict[str, str], bytes]:
    body = (
        b'{"event_id":"evt_1","charge":{"payment_id":"pay_1","charge_id":"ch_1",'
        b'"status":"captured","amount_minor":1,"currency":"CNY"}}'
    )
    return sign(secret, body, now_ms), body


class TestWebhookVerification:
    """What the front lets into the inbox."""

    clock = ManualClock()
    provider = SandboxProvider(AioHttpClient(connections_max=1), "http://sandbox", SECRET, clock)

    async def refuses(self, headers: dict[str, str], body: bytes, *, seconds: float = 0) -> bool:
        try:
            await self.provider.parse_webhook(
                headers, body, self.clock.now_ms() + int(seconds * 1000)
            )
        except WebhookRefused:
            return True
        return False

    async def test_genuine_webhook_is_read(self) -> None:
        headers, body = signed_event(self.clock.now_ms())
        event = await self.provider.parse_webhook(headers, body, self.clock.now_ms())
        assert event.event_id == "evt_1"

    @pytest.mark.parametrize("seconds", [WINDOW_SECONDS + 2, -WINDOW_SECONDS - 2])
    async def test_stale_webhook_is_refused(self, seconds: float) -> None:
        headers, body = signed_event(self.clock.now_ms())
        assert not await self.refuses(headers, body, seconds=seconds / 2)
        assert await self.refuses(headers, body, seconds=seconds)

    async def test_forged_webhook_is_refused(self) -> None:
        headers, body = signed_event(self.clock.now_ms())
        assert await self.refuses(headers, body.replace(b'"amount_minor":1', b'"amount_minor":2'))
        assert await self.refuses(signed_event(self.clock.now_ms(), "x" * 32)[0], body)
        assert await self.refuses({**headers, SIGNATURE_HEADER: ""}, body)
        assert await self.refuses({SIGNATURE_HEADER: headers[SIGNATURE_HEADER]}, body)

    @pytest.mark.parametrize("timestamp", ["", "soon", "-1", "1e9", "9" * 40, "١٧٠٠٠٠٠٠٠٠"])
    async def test_nonsense_timestamp_is_refused(self, timestamp: str) -> None:
        headers, body = signed_event(self.clock.now_ms())
        assert await self.refuses({**headers, TIMESTAMP_HEADER: timestamp}, body)

    async def test_signed_nonsense_is_refused(self) -> None:
        for body in (b"", b"{}", b"\xff", b'{"event_id":"","charge":{}}', b"[" * 100_000):
            assert await self.refuses(sign(SECRET, body, self.clock.now_ms()), body)
