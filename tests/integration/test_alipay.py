"""What the Alipay adapter makes of answers and notifications that are genuine and still wrong."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import pytest

from api.sandbox.gateway_keys import read_key
from engine.clock import ManualClock
from engine.config import Settings
from engine.errors import ConfigError, ProviderUnavailable
from engine.payment.alipay import SLACK_MS, Alipay, make_alipay, ms_of, time_of
from engine.payment.alipay_signing import UNSIGNED, text_of
from engine.payment.http import HttpReply
from engine.payment.keys import sign_text
from engine.payment.provider import (
    Charge,
    ChargeStatus,
    ProviderRefused,
    WebhookRefused,
)
from tests.support.gateways import gateway_keys

NOTICE = {
    "notify_id": "n1",
    "app_id": gateway_keys().alipay_app_id,
    "seller_id": gateway_keys().alipay_seller_id,
    "out_trade_no": "pay_1",
    "trade_no": "2026",
    "trade_status": "TRADE_SUCCESS",
    "total_amount": "1299.00",
    "gmt_payment": "2026-11-11 00:00:09",
}
TRADE = {"code": "10000", "out_trade_no": "pay_1", "trade_no": "2026", "total_amount": "1299.00"}


class Gateway:
    """Signs whatever the test wants said."""

    def __init__(self) -> None:
        self.says: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self._key = read_key(gateway_keys().alipay_gateway_key)

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> HttpReply:
        method = next(name for name in self.says if f"method={name}&" in body.decode())
        self.asked.append(method)
        text = json.dumps(self.says[method])
        node = method.replace(".", "_") + "_response"
        signature = sign_text(self._key, text.encode())
        return HttpReply(200, f'{{"{node}":{text},"sign":"{signature}"}}'.encode())

    async def get(self, url: str, headers: Mapping[str, str], *, bytes_max: int = 0) -> HttpReply:
        raise AssertionError(url)

    def notice(self, **changes: str) -> bytes:
        params = {name: text for name, text in (NOTICE | changes).items() if text}
        signature = sign_text(self._key, text_of(params, *UNSIGNED))
        return urlencode(params | {"sign": signature, "sign_type": "RSA2"}).encode()


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
def alipay(gateway: Gateway) -> Alipay:
    settings = Settings(**gateway_keys().settings("http://gateway"), public_url="https://shop")
    made = make_alipay(settings, gateway, ManualClock())
    assert made is not None
    return made


def charge(expires_in_ms: int = 900_000) -> Charge:
    now_ms = ManualClock().now_ms()
    return Charge("pay_1", 129_900, "CNY", now_ms, now_ms + expires_in_ms)


async def test_genuine_notification_is_read(alipay: Alipay, gateway: Gateway) -> None:
    event = await alipay.parse_webhook({}, gateway.notice(), 0)
    assert event.event_id == "n1"
    assert event.result is not None
    assert (event.result.status, event.result.amount_minor) == (ChargeStatus.CAPTURED, 129_900)
    assert event.result.at_ms == ms_of("2026-11-11 00:00:09")


@pytest.mark.parametrize(
    "changes",
    [
        {"app_id": "2021000000000000"},
        {"seller_id": "2088000000000000"},
        {"seller_id": ""},
        {"out_trade_no": ""},
        {"notify_id": ""},
        {"notify_id": "n" * 129},
        {"total_amount": "1299,00"},
        {"total_amount": ""},
        {"trade_status": "TRADE_LOST"},
    ],
)
async def test_genuine_notification_of_another_merchant_or_of_nonsense_is_refused(
    alipay: Alipay, gateway: Gateway, changes: dict[str, str]
) -> None:
    with pytest.raises(WebhookRefused):
        await alipay.parse_webhook({}, gateway.notice(**changes), 0)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"trade_status": "TRADE_CLOSED", "gmt_payment": ""}, ChargeStatus.FAILED),
        (
            {"trade_status": "TRADE_CLOSED", "gmt_refund": "2026-11-12 00:00:00"},
            ChargeStatus.REFUNDED,
        ),
        ({"trade_status": "WAIT_BUYER_PAY", "gmt_payment": ""}, ChargeStatus.PENDING),
        ({"trade_status": "TRADE_FINISHED"}, ChargeStatus.CAPTURED),
    ],
)
async def test_closed_trade_is_paid_back_only_if_it_was_paid(
    alipay: Alipay, gateway: Gateway, changes: dict[str, str], status: ChargeStatus
) -> None:
    event = await alipay.parse_webhook({}, gateway.notice(**changes), 0)
    assert event.result is not None
    assert event.result.status is status


async def test_part_that_was_paid_back_is_nothing_to_us(alipay: Alipay, gateway: Gateway) -> None:
    body = gateway.notice(gmt_refund="2026-11-12 00:00:00", refund_fee="1.00")
    assert (await alipay.parse_webhook({}, body, 0)).result is None


@pytest.mark.parametrize(
    ("expires_in_ms", "status"),
    [(1, ChargeStatus.PENDING), (-SLACK_MS, ChargeStatus.UNKNOWN)],
)
async def test_buyer_who_was_sent_there_may_come_until_the_deadline(
    alipay: Alipay, gateway: Gateway, expires_in_ms: int, status: ChargeStatus
) -> None:
    gateway.says["alipay.trade.query"] = {"code": "40004", "sub_code": "ACQ.TRADE_NOT_EXIST"}
    assert (await alipay.query(charge(expires_in_ms))).status is status


@pytest.mark.parametrize(
    "says",
    [
        {"code": "20000", "msg": "Service Currently Unavailable"},
        {"code": "40004", "sub_code": "ACQ.SYSTEM_ERROR"},
        TRADE | {"out_trade_no": "pay_2", "trade_status": "TRADE_SUCCESS"},
        TRADE | {"trade_status": "TRADE_LOST"},
        {"code": "10000"},
    ],
)
async def test_answer_that_decides_nothing_leaves_the_outcome_unknown(
    alipay: Alipay, gateway: Gateway, says: dict[str, Any]
) -> None:
    gateway.says["alipay.trade.query"] = says
    with pytest.raises(ProviderUnavailable):
        await alipay.query(charge())


async def test_refund_gives_back_what_was_paid_and_not_what_was_asked(
    alipay: Alipay, gateway: Gateway
) -> None:
    paid = TRADE | {"total_amount": "0.01", "trade_status": "TRADE_SUCCESS"}
    gateway.says = {
        "alipay.trade.query": paid,
        "alipay.trade.refund": {"code": "10000", "fund_change": "Y"},
    }
    assert (await alipay.refund(charge())).status is ChargeStatus.PENDING
    assert gateway.asked == ["alipay.trade.query", "alipay.trade.refund", "alipay.trade.query"]


async def test_refusal_is_told_in_alipays_words(alipay: Alipay, gateway: Gateway) -> None:
    gateway.says["alipay.trade.query"] = {"code": "40004", "sub_code": "isv.wrong", "sub_msg": "错"}
    with pytest.raises(ProviderRefused, match=r"40004 isv\.wrong 错"):
        await alipay.query(charge())


def test_half_configured_alipay_says_what_is_missing(gateway: Gateway) -> None:
    settings = Settings(alipay_app_id="1", alipay_seller_id="2")
    with pytest.raises(ConfigError, match="DOORBUSTER_ALIPAY_PRIVATE_KEY and DOORBUSTER_ALIPAY_PU"):
        make_alipay(settings, gateway, ManualClock())
    assert make_alipay(Settings(), gateway, ManualClock()) is None


def test_times_are_beijings() -> None:
    assert time_of(1_794_326_400_000) == "2026-11-11 00:00:00"
    assert ms_of("2026-11-11 00:00:00") == 1_794_326_400_000
    assert ms_of("soon") is None
