"""Payments over HTTP: the ways to pay, what the buyer has to do, who may see and list them."""

from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio

from api.tokens import Role
from engine.payment.alipay import ms_of
from engine.servers import EmbeddedPostgres, EmbeddedValkey
from tests.support.gateways import Practice, empty_database, empty_redis, practise

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def practice(valkey: EmbeddedValkey, postgres: EmbeddedPostgres) -> AsyncIterator[Practice]:
    """One for all tests here."""
    async with (
        empty_redis(valkey),
        empty_database(postgres) as postgres_url,
        practise(valkey.url, postgres_url) as practice,
    ):
        yield practice


@pytest.fixture(autouse=True)
def calm(practice: Practice) -> Iterator[None]:
    yield
    practice.calm_down()


async def listed(practice: Practice, **query: str) -> Any:
    asked = "&".join(f"{name}={text}" for name, text in query.items())
    path = f"/v1/admin/payments?{asked}"
    reply = await practice.served.get(path, user="sup-1", role=Role.SUPPORT)
    assert reply.status == 200, reply.body
    return reply.json


async def test_ways_to_pay_are_told_with_their_currencies_and_actions(practice: Practice) -> None:
    told = (await practice.served.get("/v1/payments/providers")).json["providers"]
    ways = {way["name"]: way for way in told}
    assert list(ways) == ["alipay", "sandbox", "stripe", "wechatpay"]
    assert (ways["alipay"]["currencies"], ways["alipay"]["actions"]) == (["CNY"], ["redirect"])
    assert ways["wechatpay"]["currencies"] == ["CNY"]
    assert {"USD", "EUR", "CNY"} <= set(ways["stripe"]["currencies"])
    assert (ways["sandbox"]["currencies"], ways["sandbox"]["actions"]) == (None, [])


@pytest.mark.parametrize("provider", ["alipay", "wechatpay"])
async def test_dollars_are_refused_where_only_yuan_are_taken(
    practice: Practice, provider: str
) -> None:
    order = await practice.order("stripe")
    path, user = f"/v1/orders/{order}/payments", practice.buyers[order]
    refused = await practice.served.post(path, user=user, body={"provider": provider})
    assert (refused.status, refused.code) == (400, "invalid_request")
    assert refused.json["errors"] == [{"field": "provider", "problem": f"{provider} takes no USD"}]


@pytest.mark.parametrize(
    "path",
    ["//evil.example", "/\\evil.example", "https://evil.example", "back", "/a b", "/a\n", "/\t/x"],
)
async def test_buyers_are_sent_back_to_this_shop_only(practice: Practice, path: str) -> None:
    order = await practice.order("alipay")
    refused = await practice.served.post(
        f"/v1/orders/{order}/payments",
        user=practice.buyers[order],
        body={"provider": "alipay", "return_path": path},
    )
    assert (refused.status, refused.code) == (400, "invalid_request")


async def test_alipay_is_told_the_deadline_the_way_back_and_the_buyers_language(
    practice: Practice,
) -> None:
    order = await practice.order("alipay")
    reply = await practice.served.post(
        f"/v1/orders/{order}/payments",
        user=practice.buyers[order],
        body={"provider": "alipay", "return_path": "/orders?paid=1"},
        accept_language="zh-CN",
    )
    practice.buyers[reply.json["payment_id"]] = practice.buyers[order]
    assert "action" not in reply.json  # The worker makes it.
    await practice.work()
    shown = await practice.shown(reply.json["payment_id"])
    assert (shown["status"], shown["action"]["kind"]) == ("pending", "redirect")
    wish = {
        name: text[0] for name, text in parse_qs(urlsplit(shown["action"]["url"]).query).items()
    }
    assert wish["return_url"] == f"{practice.served.url}/orders?paid=1"
    assert f"订单 {order}" in wish["biz_content"]
    deadline = await practice.pool.fetchval(
        "SELECT extract(epoch FROM reserved_until) FROM orders WHERE reservation_id = $1",
        order.partition(".")[2],
    )
    trade = wish["biz_content"].partition('"time_expire":"')[2][:19]
    assert (ms_of(trade) or 0) // 1000 == int(deadline)


async def test_action_is_gone_once_the_payment_is_made_and_nobody_else_sees_it(
    practice: Practice,
) -> None:
    payment = await practice.pending(await practice.order("wechatpay"), "wechatpay")
    assert (await practice.shown(payment))["action"]["kind"] == "qr_code"
    path = f"/v1/payments/{payment}"
    assert (await practice.served.get(path, user="eve")).status == 404
    assert await practice.decide(payment) == 200
    await practice.deliver()
    await practice.work()
    shown = await practice.shown(payment)
    assert (shown["status"], "action" in shown) == ("captured", False)


async def test_phone_pays_wechat_in_its_browser_and_comes_back(practice: Practice) -> None:
    order = await practice.order("wechatpay")
    h5 = {"trade_type": "h5"}
    payment = await practice.pending(order, "wechatpay", options=h5, return_path="/done")
    action = (await practice.shown(payment))["action"]
    assert action["kind"] == "redirect"
    back = parse_qs(urlsplit(action["url"]).query)["redirect_url"]
    assert back == [f"{practice.served.url}/done"]
    assert await practice.decide(payment) == 200


@pytest.mark.parametrize(
    ("provider", "options"),
    [
        ("wechatpay", {"trade_type": "app"}),
        ("wechatpay", {"trade_type": ["h5"]}),
        ("stripe", {"capture_method": "later"}),
        ("stripe", {"capture_method": {"manual": True}}),
    ],
)
async def test_option_that_the_provider_does_not_know_fails_the_payment_in_words(
    practice: Practice, provider: str, options: dict[str, object]
) -> None:
    order = await practice.order(provider)
    payment = await practice.start(order, provider, options=options)
    await practice.work()
    shown = await practice.shown(payment)
    assert shown["status"] == "failed"
    assert shown["detail"].startswith("options.")


async def test_webhooks_are_acknowledged_in_the_providers_own_words(practice: Practice) -> None:
    told = {name: practice.providers[name].acknowledgement for name in practice.providers}
    for provider in ("alipay", "wechatpay", "stripe"):
        payment = await practice.pending(await practice.order(provider), provider)
        gateway = practice.gateway(provider)
        assert await practice.decide(payment) == 200
        (notice,) = gateway.notices._waiting
        headers, body = notice.sign(practice.clock.now_ms())
        reply = await practice.http.post(notice.url, body, headers)
        assert (reply.status, reply.body) == (200, told[provider].body)
        assert reply.headers["Content-Type"] == told[provider].content_type
        gateway.notices.forget()
    assert told["alipay"].body == b"success"


async def test_support_lists_everybodys_payments_by_what_they_are(practice: Practice) -> None:
    order = await practice.order("stripe")
    ids = [await practice.pending(order, "stripe") for _ in range(3)]
    user = practice.buyers[order]
    everything = await listed(practice, user=user)
    assert [one["payment_id"] for one in everything["payments"]] == ids[::-1]
    assert {one["order_id"] for one in everything["payments"]} == {order}
    assert len((await listed(practice, order=order, provider="stripe"))["payments"]) == 3
    assert (await listed(practice, order=order, status="captured"))["payments"] == []
    assert (await listed(practice, user=user, until="2020-01-01T00:00:00Z"))["payments"] == []
    first = await listed(practice, user=user, limit="2")
    second = await listed(practice, user=user, limit="2", after=first["next"])
    assert [one["payment_id"] for one in second["payments"]] == ids[:1]
    assert "next" not in second


@pytest.mark.parametrize(
    "query",
    [
        *("status=lost", "limit=0", "since=yesterday", "order=x", "after=x", "color=red", "user="),
        "until=0001-01-01T00:00:00%2B23:59",
    ],
)
async def test_nonsense_filters_are_refused(practice: Practice, query: str) -> None:
    path = f"/v1/admin/payments?{query}"
    reply = await practice.served.get(path, user="sup-1", role=Role.SUPPORT)
    assert (reply.status, reply.code) == (400, "invalid_request")


async def test_buyers_list_nobodys_payments_and_support_refunds_none(practice: Practice) -> None:
    assert (await practice.served.get("/v1/admin/payments", user="ann")).status == 403
    payment = await practice.pending(await practice.order("stripe"), "stripe")
    path = f"/v1/admin/payments/{payment}/refunds"
    assert (await practice.served.post(path, user="sup-1", role=Role.SUPPORT)).status == 403
    early = await practice.served.operate(f"/payments/{payment}/refunds")
    assert (early.status, early.code) == (409, "not_refundable")
