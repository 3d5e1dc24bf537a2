"""Others are asked about visitors: what they say counts, and their silence harms nobody for long."""

import json
from collections.abc import AsyncIterator
from random import Random
from urllib.parse import parse_qs

import pytest

from api.http_client import AioHttpClient
from api.problems import Refusal
from api.queue.screening import CaptchaService, RiskService, RiskVerdict, Visitor
from engine.admission.breaker import Breaker
from engine.clock import ManualClock
from tests.support.service import Service, service

VISITOR = Visitor("demo", "u1", "203.0.113.7", "browser/1")
PATIENCE_SECONDS = 0.2  # Long for a local server, short for a test that waits it out.
FAILURES = 5  # In a row, after which the breaker opens.


@pytest.fixture(name="service")
async def a_service() -> AsyncIterator[Service]:
    async with service() as made:
        yield made


@pytest.fixture
async def http() -> AsyncIterator[AioHttpClient]:
    async with AioHttpClient(connections_max=4, timeout_seconds=PATIENCE_SECONDS) as client:
        yield client


def breaker(clock: ManualClock | None = None) -> Breaker:
    return Breaker("test", clock or ManualClock(), Random(4))


def risk_service(
    http: AioHttpClient,
    service: Service,
    *,
    required: bool = False,
    clock: ManualClock | None = None,
) -> RiskService:
    return RiskService(http, breaker(clock), url=service.url, required=required)


def captcha_service(
    http: AioHttpClient, service: Service, *, required: bool = False
) -> CaptchaService:
    return CaptchaService(http, breaker(), url=service.url, secret="its-secret", required=required)


@pytest.mark.parametrize("verdict", list(RiskVerdict))
async def test_the_risk_service_is_told_the_visitor_and_its_verdict_counts(
    http: AioHttpClient, service: Service, verdict: RiskVerdict
) -> None:
    service.says = {"verdict": verdict.value, "score": 0.7}
    assert await risk_service(http, service).judge(VISITOR) is verdict
    ((kind, body),) = service.asked
    assert kind == "application/json"
    assert json.loads(body) == {
        "sale_id": "demo",
        "user_id": "u1",
        "address": "203.0.113.7",
        "user_agent": "browser/1",
    }


@pytest.mark.parametrize("success", [True, False])
async def test_the_captcha_is_verified_with_its_secret_and_the_address(
    http: AioHttpClient, service: Service, success: bool
) -> None:
    service.says = {"success": success, "error-codes": []}
    assert await captcha_service(http, service).passes("a token+&=", "203.0.113.7") is success
    ((kind, body),) = service.asked
    assert kind == "application/x-www-form-urlencoded"
    assert parse_qs(body.decode()) == {
        "secret": ["its-secret"],
        "response": ["a token+&="],
        "remoteip": ["203.0.113.7"],
    }


@pytest.mark.parametrize("address", ["", "2001:db8::/64"])
async def test_an_address_that_is_none_is_not_sent(
    http: AioHttpClient, service: Service, address: str
) -> None:
    service.says = {"success": True}
    await captcha_service(http, service).passes("t", address)
    assert b"remoteip" not in service.asked[0][1]


FAULTS: list[dict[str, object]] = [
    {"silent": True},
    {"status": 500},
    {"status": 302},
    {"says": b"<html>"},
    {"says": {"verdict": "maybe", "success": "yes"}},
    {"says": []},
    {"says": b"\xff"},
]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_service_that_fails_stops_nobody_unless_it_must_be_heard(
    http: AioHttpClient, service: Service, fault: dict[str, object]
) -> None:
    for name, value in fault.items():
        setattr(service, name, value)
    assert await risk_service(http, service).judge(VISITOR) is RiskVerdict.ALLOW
    assert await captcha_service(http, service).passes("t", "")
    with pytest.raises(Refusal) as risk_refused:
        await risk_service(http, service, required=True).judge(VISITOR)
    with pytest.raises(Refusal) as captcha_refused:
        await captcha_service(http, service, required=True).passes("t", "")
    for refused in (risk_refused, captcha_refused):
        answer = refused.value.answer
        assert (answer.status, answer.label) == (503, "unavailable")
        assert b"Nothing was done" in answer.body


async def test_a_service_that_keeps_failing_is_left_alone_then_tried_again(
    http: AioHttpClient, service: Service
) -> None:
    clock = ManualClock()
    risk = risk_service(http, service, clock=clock)
    service.status = 500
    for _ in range(FAILURES + 10):
        assert await risk.judge(VISITOR) is RiskVerdict.ALLOW
    assert len(service.asked) == FAILURES
    service.status, service.says = 200, {"verdict": "deny"}
    clock.advance(seconds=10)
    assert await risk.judge(VISITOR) is RiskVerdict.DENY
    assert await risk.judge(VISITOR) is RiskVerdict.DENY


async def test_nobody_is_asked_where_no_service_is_set(http: AioHttpClient) -> None:
    risk = RiskService(http, breaker(), url=None, required=True)
    assert await risk.judge(VISITOR) is RiskVerdict.ALLOW


async def test_a_captcha_that_nobody_can_verify_is_as_one_that_does_not_answer(
    http: AioHttpClient,
) -> None:
    lenient = CaptchaService(http, breaker(), url=None, secret=None, required=False)
    assert await lenient.passes("t", "")
    strict = CaptchaService(http, breaker(), url=None, secret=None, required=True)
    with pytest.raises(Refusal):
        await strict.passes("t", "")
