"""What the WeChat Pay adapter makes of messages that are old, foreign, sealed by others or by nobody."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from api.http_client import AioHttpClient
from api.sandbox.gateway_keys import CERTIFICATE_DAYS
from api.sandbox.gateways import Gateways
from api.sandbox.mischief import Mischief, Mood
from api.sandbox.notices import Notices
from api.sandbox.trades import Trade, TradeBook, TradeState
from api.sandbox.wechatpay import WeChatPayGateway
from engine.clock import ManualClock, SystemClock
from engine.config import Settings
from engine.errors import ConfigError, ProviderUnavailable
from engine.ids import RandomIds
from engine.payment.provider import (
    Charge,
    ChargeStatus,
    PaymentRequest,
    ProviderRefused,
    WebhookRefused,
)
from engine.payment.wechatpay import WeChatPay, make_wechatpay
from engine.payment.wechatpay_signing import WINDOW_SECONDS
from tests.support.gateways import HTTP_SECONDS, gateway_keys

CHARGE = Charge("pay_1", 129_900, "CNY")


class Both:
    """The adapter, and the gateway that it talks to."""

    def __init__(self, gateway: WeChatPayGateway, adapter: WeChatPay, clock: ManualClock) -> None:
        self.gateway = gateway
        self.adapter = adapter
        self.clock = clock

    def trade(self, **changes: Any) -> Trade:
        now_ms = self.clock.now_ms()
        paid = {"state": TradeState.PAID, "paid_ms": now_ms}
        trade = Trade("pay_1", "42_1", 129_900, "CNY", now_ms, "http://shop", **paid | changes)
        self.gateway.book.save("wechatpay", trade)
        return trade

    def notice(self, trade: Trade, mischief: Mischief = Mischief.NONE) -> tuple[Any, bytes]:
        return self.gateway.sign_notice(trade, "evt_1", self.clock.now_ms(), mischief)

    async def told(self, trade: Trade) -> Any:
        headers, body = self.notice(trade)
        return await self.adapter.parse_webhook(headers, body, self.clock.now_ms())


@pytest.fixture
async def both() -> AsyncIterator[Both]:
    clock, keys = ManualClock(SystemClock().now_ms()), gateway_keys()
    async with AioHttpClient(connections_max=4, timeout_seconds=HTTP_SECONDS) as http:
        gateways = Gateways(TradeBook(), Notices(http, clock), clock, RandomIds(), keys)
        app = web.Application()
        gateways.mount(app)
        async with TestServer(app) as server:
            root = str(server.make_url("")).rstrip("/")
            gateways.reached_at(root, "http://shop")
            adapter = make_wechatpay(Settings(**keys.settings(root)), http, clock)
            assert adapter is not None
            yield Both(gateways.wechatpay, adapter, clock)
        gateways.book.close()


async def test_sealed_word_of_a_payment_is_opened_and_read(both: Both) -> None:
    event = await both.told(both.trade())
    assert event.event_id == "evt_1"
    assert (event.result.status, event.result.payment_id) == (ChargeStatus.CAPTURED, "pay_1")
    assert (event.result.amount_minor, event.result.currency) == (129_900, "CNY")
    back = await both.told(both.trade(state=TradeState.REFUNDED, refunded_ms=both.clock.now_ms()))
    assert back.result.status is ChargeStatus.REFUNDED


@pytest.mark.parametrize("seconds", [WINDOW_SECONDS + 1, -WINDOW_SECONDS - 1])
async def test_word_that_is_old_or_of_the_future_is_refused(both: Both, seconds: int) -> None:
    headers, body = both.notice(both.trade())
    now_ms = both.clock.now_ms()
    assert await both.adapter.parse_webhook(headers, body, now_ms)
    with pytest.raises(WebhookRefused, match="too old"):
        await both.adapter.parse_webhook(headers, body, now_ms + seconds * 1000)


@pytest.mark.parametrize("missing", ["Timestamp", "Nonce", "Signature", "Serial"])
async def test_word_without_a_header_is_refused(both: Both, missing: str) -> None:
    headers, body = both.notice(both.trade())
    some = {name: text for name, text in headers.items() if not name.endswith(missing)}
    with pytest.raises(WebhookRefused):
        await both.adapter.parse_webhook(some, body, both.clock.now_ms())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"id":"e","event_type":"TRANSACTION.SUCCESS","resource":{}}',
        b'{"id":"e","event_type":"TRANSACTION.SUCCESS","resource":null}',
    ],
)
async def test_signed_nonsense_is_refused(both: Both, body: bytes) -> None:
    headers = both.gateway._signature(body, both.clock.now_ms(), genuine=True)
    with pytest.raises(WebhookRefused):
        await both.adapter.parse_webhook(headers, body, both.clock.now_ms())


@pytest.mark.parametrize(
    "changes",
    [
        {"mchid": "1900000002"},
        {"appid": "wx2"},
        {"out_trade_no": None},
        {"trade_state": "LOST"},
        {"amount": None},
        {"amount": {"total": "129900"}},
    ],
)
async def test_genuine_word_of_another_merchant_or_of_nonsense_is_refused(
    both: Both, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trade = both.trade()
    told = both.gateway._told(trade) | changes
    monkeypatch.setattr(both.gateway, "_told", lambda _: told)
    with pytest.raises(WebhookRefused):
        await both.told(trade)
    with pytest.raises(ProviderUnavailable):  # Answered so, the outcome stays unknown.
        await both.adapter.query(CHARGE)


async def test_unknown_serials_make_nobody_ask_more_than_once_a_minute(both: Both) -> None:
    headers, body = both.notice(both.trade())
    await both.adapter.parse_webhook(headers, body, both.clock.now_ms())
    assert both.gateway.fetched == 1
    for _ in range(3):
        for number in range(5):
            forged = {**headers, "Wechatpay-Serial": f"{number:040X}"}
            with pytest.raises(WebhookRefused, match="unknown"):
                await both.adapter.parse_webhook(forged, body, both.clock.now_ms())
    assert both.gateway.fetched == 1
    both.clock.advance(seconds=61)
    both.gateway.rotate()
    assert (await both.told(both.trade())).result.status is ChargeStatus.CAPTURED
    assert both.gateway.fetched == 2


async def test_certificates_that_cannot_be_had_leave_a_webhook_for_later(both: Both) -> None:
    both.gateway.mood = Mood(Mischief.DOWN, calls=1)
    headers, body = both.notice(both.trade())
    for _ in range(3):  # However many come meanwhile, WeChat is not asked for each of them.
        with pytest.raises(ProviderUnavailable):
            await both.adapter.parse_webhook(headers, body, both.clock.now_ms())
    both.clock.advance(seconds=2)
    assert await both.adapter.parse_webhook(headers, body, both.clock.now_ms())


async def test_expired_certificate_is_believed_no_more_and_spoils_no_other(both: Both) -> None:
    headers, body = both.notice(both.trade())
    both.clock.advance(seconds=CERTIFICATE_DAYS * 86_400 + 1)
    both.gateway.rotate()
    assert (await both.told(both.trade())).result.status is ChargeStatus.CAPTURED
    now_ms = both.clock.now_ms()
    late = both.gateway._signature(body, now_ms, genuine=True)
    old = {**late, "Wechatpay-Serial": headers["Wechatpay-Serial"]}
    with pytest.raises(WebhookRefused, match="unknown"):
        await both.adapter.parse_webhook(old, body, now_ms)


async def test_merchant_with_wechats_own_key_needs_no_certificates(both: Both) -> None:
    gateway, now_ms = both.gateway, both.clock.now_ms()
    key = gateway._platform[gateway._serial][0]
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    given = {"wechatpay_public_key_id": "PUB_KEY_ID_1", "wechatpay_public_key": pem}
    settings = Settings(**gateway_keys().settings(gateway.root.removesuffix("/wechatpay")) | given)
    async with AioHttpClient(connections_max=1) as http:
        adapter = make_wechatpay(settings, http, both.clock)
        assert adapter is not None
        trade = both.trade()
        headers, body = both.notice(trade)
        named = {**headers, "Wechatpay-Serial": "PUB_KEY_ID_1"}
        told = await adapter.parse_webhook(named, body, now_ms)
        assert told.result is not None
        assert told.result.status is ChargeStatus.CAPTURED
        assert gateway.fetched == 0
        forged, body = both.notice(trade, Mischief.FORGE)
        with pytest.raises(WebhookRefused, match="signature"):
            await adapter.parse_webhook(
                {**forged, "Wechatpay-Serial": "PUB_KEY_ID_1"}, body, now_ms
            )
        asked = adapter._link._headers("GET", "http://wechat/v3/x", b"")
        assert asked["Wechatpay-Serial"] == "PUB_KEY_ID_1"
        # What still comes with a certificate's serial is verified by that.
        assert await adapter.parse_webhook(*both.notice(trade), now_ms)
    with pytest.raises(ConfigError, match="WECHATPAY_PUBLIC_KEY as well"):
        make_wechatpay(
            msgspec.structs.replace(settings, wechatpay_public_key=None), http, both.clock
        )


async def test_certificates_signed_by_nobody_known_are_not_taken(both: Both) -> None:
    both.gateway.mood = Mood(Mischief.UNSIGNED)
    headers, body = both.notice(both.trade())
    with pytest.raises(ProviderUnavailable, match="not signed by one of them"):
        await both.adapter.parse_webhook(headers, body, both.clock.now_ms())


async def test_order_repeated_after_it_was_paid_is_told_as_paid(both: Both) -> None:
    request = PaymentRequest("pay_1", 129_900, "CNY", description="Order 1")
    first = await both.adapter.create(request)
    assert first.action is not None
    assert (await both.adapter.create(request)).action == first.action
    trade = both.gateway.book.find("wechatpay", "pay_1")
    assert trade is not None
    both.gateway.approve(trade)
    again = await both.adapter.create(request)
    assert (again.status, again.action) == (ChargeStatus.CAPTURED, None)


async def test_payment_that_is_not_known_is_unknown_and_nothing_can_be_given_back(
    both: Both,
) -> None:
    assert (await both.adapter.query(CHARGE)).status is ChargeStatus.UNKNOWN
    assert (await both.adapter.refund(CHARGE)).status is ChargeStatus.UNKNOWN
    assert (await both.adapter.cancel(CHARGE)).status is ChargeStatus.UNKNOWN


async def test_refund_that_failed_there_is_said(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    both.trade()
    told = {"out_trade_no": "pay_1", "status": "ABNORMAL"}
    monkeypatch.setattr(both.gateway, "_refund_told", lambda _: told)
    failed = await both.adapter.refund(CHARGE)
    assert (failed.status, failed.detail) == (ChargeStatus.FAILED, "refund abnormal")


async def test_foreign_merchant_is_turned_away_without_an_outcome(both: Both) -> None:
    both.adapter._link._merchant = both.adapter._merchant._replace(mch_id="1900000002")
    with pytest.raises(ProviderUnavailable):  # An unsigned 401 decides nothing.
        await both.adapter.query(CHARGE)


async def test_refusal_is_told_in_wechats_words(both: Both) -> None:
    trade = both.trade()
    trade.state = TradeState.AUTHORIZED  # In no state from which it gives anything back.
    both.gateway._told = lambda _: {  # type: ignore[method-assign]
        "out_trade_no": "pay_1",
        "mchid": gateway_keys().wechatpay_mch_id,
        "appid": gateway_keys().wechatpay_app_id,
        "trade_state": "SUCCESS",
        "amount": {"total": 129_900, "currency": "CNY"},
    }
    with pytest.raises(ProviderRefused, match="400 INVALID_REQUEST invalid_request"):
        await both.adapter.refund(CHARGE)


def test_half_configured_wechat_pay_says_what_is_missing() -> None:
    settings = Settings(wechatpay_app_id="1", wechatpay_mch_id="2", wechatpay_serial="3")
    http, clock = AioHttpClient(connections_max=1), ManualClock()
    with pytest.raises(ConfigError, match="PRIVATE_KEY and DOORBUSTER_WECHATPAY_API_V3_SECRET"):
        make_wechatpay(settings, http, clock)
    assert make_wechatpay(Settings(), http, clock) is None
