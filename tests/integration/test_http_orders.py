"""Reservations after the answer: orders, cancelling, payments, refunds, webhooks."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from api.tokens import Role
from engine.payment.provider import ChargeStatus
from engine.payment.sandbox import SandboxCharge, SandboxEvent
from engine.payment.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from engine.servers import EmbeddedValkey
from tests.support.front import SANDBOX_SECRET, Served, serve

SOMEBODY = "00000000000000000000"


@pytest.fixture
async def served(redis: Redis, valkey: EmbeddedValkey, postgres_url: str) -> AsyncIterator[Served]:
    async with serve(valkey.url, postgres_url) as served:
        await served.sell(stock={"phone-black": 100}, per_user_max=10)
        yield served


async def buy(served: Served, user: str = "u1", key: str = "k") -> str:
    """The id of a reservation whose order is stored."""
    reservation_id: str = (await served.reserve(user, key=key)).json["reservation_id"]
    await served.drain()
    return reservation_id


async def pay(served: Served, order_id: str, user: str = "u1") -> str:
    """The id of a captured payment; the provider's part is written down as if it had happened."""
    reply = await served.post(f"/v1/orders/{order_id}/payments", user=user)
    payment_id: str = reply.json["payment_id"]
    pool = served.engine.pool
    await pool.execute("UPDATE payments SET status = 'captured' WHERE payment_id = $1", payment_id)
    return payment_id


async def test_a_reservation_shows_its_order_once_there_is_one(served: Served) -> None:
    reservation_id = (await served.reserve("u1")).json["reservation_id"]
    path = f"/v1/reservations/{reservation_id}"
    assert "order" not in (await served.get(path, user="u1")).json
    await served.drain()
    shown = (await served.get(path, user="u1")).json
    assert shown["status"] == "reserved"
    assert shown["order"]["status"] == "awaiting_payment"
    assert shown["order"]["amount"] == {"amount_minor": 129900, "currency": "CNY"}
    order = (await served.get(f"/v1/orders/{reservation_id}", user="u1")).json
    assert order.items() >= shown["order"].items()  # One order in full tells more.
    assert (order["payments"], order["shipments"], order["returns"]) == ([], [], [])
    assert [entry["type"] for entry in order["timeline"]] == ["order.created"]


async def test_before_it_is_stored_an_order_is_on_its_way_not_unknown(served: Served) -> None:
    reservation_id = (await served.reserve("u1")).json["reservation_id"]
    for reply in await asyncio.gather(
        served.get(f"/v1/orders/{reservation_id}", user="u1"),
        served.post(f"/v1/orders/{reservation_id}/payments", user="u1"),
    ):
        assert (reply.status, reply.code) == (503, "unavailable")
        assert "being stored" in reply.json["detail"]


async def test_who_pays_or_looks_before_the_order_is_stored_waits_for_it(served: Served) -> None:
    reservation_id = (await served.reserve("u1")).json["reservation_id"]
    shown, paid, _ = await asyncio.gather(
        served.get(f"/v1/orders/{reservation_id}", user="u1"),
        served.post(f"/v1/orders/{reservation_id}/payments", user="u1"),
        served.drain(),
    )
    assert (shown.status, shown.json["status"]) == (200, "awaiting_payment")
    assert (paid.status, paid.json["order_id"]) == (201, reservation_id)


async def test_what_belongs_to_another_does_not_exist(served: Served) -> None:
    order_id = await buy(served, "u1")
    payment_id = await pay(served, order_id)
    undrained = (await served.reserve("u1", key="k2")).json["reservation_id"]
    for method, path in (
        ("GET", f"/v1/reservations/{order_id}"),
        ("DELETE", f"/v1/reservations/{order_id}"),
        ("GET", f"/v1/reservations/{undrained}"),
        ("DELETE", f"/v1/reservations/{undrained}"),
        ("GET", f"/v1/orders/{order_id}"),
        ("GET", f"/v1/orders/{undrained}"),
        ("POST", f"/v1/orders/{order_id}/cancel"),
        ("POST", f"/v1/orders/{order_id}/payments"),
        ("GET", f"/v1/payments/{payment_id}"),
        ("POST", f"/v1/payments/{payment_id}/refunds"),
    ):
        reply = await served.call(method, path, user="thief")
        assert (reply.status, reply.code) == (404, "not_found"), (method, path, reply.body)
    assert (await served.get("/v1/orders", user="thief")).json == {"orders": []}


async def test_ids_that_are_none_are_not_found(served: Served) -> None:
    for name in ("x", "demo.short", f"demo.{SOMEBODY}", f"nope.{SOMEBODY}", "demo.%00", "d..e"):
        for path in (f"/v1/reservations/{name}", f"/v1/orders/{name}"):
            reply = await served.get(path, user="u1")
            assert (reply.status, reply.code) == (404, "not_found"), path
    assert (await served.get("/v1/payments/pay_x", user="u1")).code == "not_found"


@pytest.mark.parametrize("stored", [True, False])
async def test_a_reservation_given_back_can_be_bought_by_the_next(
    served: Served, stored: bool
) -> None:
    await served.sell("small", stock={"phone-black": 1})
    reservation_id = (await served.reserve("u1", sale="small")).json["reservation_id"]
    if stored:
        await served.drain()
    for _ in range(2):  # Once more changes nothing.
        reply = await served.call("DELETE", f"/v1/reservations/{reservation_id}", user="u1")
        assert (reply.status, reply.json["status"]) == (200, "released")
    assert (await served.reserve("u2", sale="small")).status == 201
    await served.drain()
    replay = await served.reserve("u1", sale="small")
    assert (replay.status, replay.json["status"]) == (200, "released")


async def test_an_order_is_cancelled_until_it_is_paid(served: Served) -> None:
    first, second = await buy(served, key="1"), await buy(served, key="2")
    cancelled = await served.post(f"/v1/orders/{first}/cancel", user="u1")
    assert (cancelled.json["status"], cancelled.json["status_reason"]) == ("cancelled", "by_buyer")
    await served.engine.pool.execute(
        "UPDATE orders SET status = 'paid' WHERE reservation_id = $1", second[5:]
    )
    refused = await served.post(f"/v1/orders/{second}/cancel", user="u1")
    assert (refused.status, refused.code) == (409, "not_cancellable")


async def test_orders_are_listed_newest_first_page_by_page(served: Served) -> None:
    made = {(await served.reserve("u1", key=f"k{n}")).json["reservation_id"] for n in range(5)}
    await served.drain()
    pages, after = [], ""
    while True:
        page = (await served.get(f"/v1/orders?limit=2{after}", user="u1")).json
        pages.append([order["order_id"] for order in page["orders"]])
        if "next" not in page:
            break
        after = f"&after={page['next']}"
    assert [len(page) for page in pages] == [2, 2, 1]
    listed = [order for page in pages for order in page]
    assert set(listed) == made
    times = [
        order["created_at"] for order in (await served.get("/v1/orders", user="u1")).json["orders"]
    ]
    assert times == sorted(times, reverse=True)


async def test_unfit_pages_are_refused(served: Served) -> None:
    for query in (
        "limit=0",
        "limit=201",
        "limit=x",
        "limit=-1",
        "limit=%D9%A1",
        "after=x",
        "after=" + "A" * 600,
        "status=lost",
        "from=yesterday",
        "to=0001-01-01T00:00:00%2B14:00",  # Before the calendar, in UTC.
        "sale=Demo",
        "sale=demo&sale=shop",
        "q=",
        "colour=red",
    ):
        reply = await served.get(f"/v1/orders?{query}", user="u1")
        assert (reply.status, reply.code) == (400, "invalid_request"), query


async def test_a_payment_is_started_once_per_key_and_shown(served: Served) -> None:
    order_id = await buy(served)
    path = f"/v1/orders/{order_id}/payments"
    body = {"provider": "sandbox", "options": {"scenario": "delay"}}
    first = await served.post(path, user="u1", body=body, idempotency_key="p1")
    again = await served.post(path, user="u1", body=body, idempotency_key="p1")
    other = await served.post(path, user="u1", idempotency_key="p1")
    assert first.status == 201
    assert first.json["order_id"] == order_id
    assert first.json["amount"] == {"amount_minor": 129900, "currency": "CNY"}
    assert again.json["payment_id"] == first.json["payment_id"]
    assert (other.status, other.code) == (422, "idempotency_mismatch")
    shown = await served.get(first.headers["Location"], user="u1")
    assert shown.json == first.json
    detail = (await served.get(f"/v1/orders/{order_id}", user="u1")).json
    assert detail["payments"] == [first.json]


async def test_unfit_payments_are_refused(served: Served) -> None:
    order_id = await buy(served)
    path = f"/v1/orders/{order_id}/payments"
    for body in ({"provider": "mint"}, {"provider": 7}, {"options": []}, {"amount": 1}, []):
        reply = await served.post(path, user="u1", body=body)
        assert (reply.status, reply.code) == (400, "invalid_request"), body
    assert (await served.post(path, user="u1", idempotency_key="é")).code == "invalid_request"
    await served.post(f"/v1/orders/{order_id}/cancel", user="u1")
    assert (await served.post(path, user="u1")).code == "order_not_payable"


async def test_refunds_are_asked_for_by_the_buyer_or_an_operator(served: Served) -> None:
    order_id = await buy(served)
    payment_id = await pay(served, order_id)
    path = f"/v1/payments/{payment_id}/refunds"
    support = await served.post(path, user="s1", role=Role.SUPPORT)
    assert support.code == "not_found"
    asked = await served.post(path, user="u1")
    assert (asked.status, asked.json["status"]) == (202, "refunding")
    assert (await served.operate(f"/payments/{payment_id}/refunds")).status == 202
    other = await buy(served, key="k2")
    started = await served.post(f"/v1/orders/{other}/payments", user="u1")
    refused = await served.post(f"/v1/payments/{started.json['payment_id']}/refunds", user="u1")
    assert (refused.status, refused.code) == (409, "not_refundable")
    assert (await served.operate("/payments/pay_x/refunds")).code == "not_found"


@pytest.mark.parametrize("moves", [("paid", "shipped"), ("paid", "shipped", "delivered")])
async def test_what_was_sent_is_refunded_by_operators_and_to_buyers_after_a_return_only(
    served: Served, moves: tuple[str, ...]
) -> None:
    payment_id = await pay(served, await buy(served))
    for status in moves:
        await served.engine.pool.execute("UPDATE orders SET status = $1", status)
    path = f"/v1/payments/{payment_id}/refunds"
    refused = await served.call("POST", path, user="u1", accept_language="zh-CN")
    assert (refused.status, refused.code) == (409, "not_refundable")
    assert refused.json["detail"] == "已发货，请申请退货。"
    assert (await served.get(f"/v1/payments/{payment_id}", user="u1")).json["status"] == "captured"
    assert (await served.call("POST", path, user="op", role=Role.OPERATOR)).status == 202
    again = await served.call("POST", path, user="u1")  # It goes back already: nothing to hinder.
    assert again.status == 202


async def test_a_refund_of_a_part_is_refused_and_of_the_whole_is_not(served: Served) -> None:
    path = f"/v1/payments/{await pay(served, await buy(served))}/refunds"
    for body in (
        {"amount": {"amount_minor": 100, "currency": "CNY"}},
        {"amount": {"amount_minor": 129900, "currency": "USD"}},
        {"amount": 129900},
        {"part": "half"},
    ):
        reply = await served.post(path, user="u1", body=body)
        assert (reply.status, reply.code) == (400, "invalid_request"), body
    whole = {"amount": {"amount_minor": 129900, "currency": "CNY"}}
    assert (await served.post(path, user="u1", body=whole)).json["status"] == "refunding"


async def test_calls_without_a_body_refuse_one(served: Served) -> None:
    order_id = await buy(served)
    for method, path in (
        ("POST", f"/v1/orders/{order_id}/cancel"),
        ("DELETE", f"/v1/reservations/{order_id}"),
    ):
        reply = await served.call(method, path, user="u1", body={"but": "why"})
        assert (reply.status, reply.code) == (400, "invalid_request"), path
    shown = await served.get(f"/v1/orders/{order_id}", user="u1")
    assert shown.json["status"] == "awaiting_payment"


def event(event_id: str = "evt_1") -> bytes:
    charge = SandboxCharge("pay_1", "ch_1", ChargeStatus.CAPTURED, 129900, "CNY")
    return msgspec.json.encode(SandboxEvent(event_id, charge))


async def test_a_webhook_is_stored_once_before_it_is_answered(served: Served) -> None:
    body = event()
    for _ in range(2):
        headers = sign(SANDBOX_SECRET, body, served.engine.clock.now_ms())
        reply = await served.post("/v1/webhooks/sandbox", data=body, **headers)
        assert reply.status == 200
    rows = await served.engine.pool.fetch("SELECT body FROM webhook_inbox")
    assert [row["body"] for row in rows] == [body]


async def test_a_thousand_webhooks_at_once_are_all_stored(served: Served) -> None:
    async def deliver(number: int) -> int:
        body = event(f"evt_{number}")
        headers = sign(SANDBOX_SECRET, body, served.engine.clock.now_ms())
        return (await served.post("/v1/webhooks/sandbox", data=body, **headers)).status

    assert set(await asyncio.gather(*(deliver(n) for n in range(1000)))) == {200}
    assert await served.engine.pool.fetchval("SELECT count(*) FROM webhook_inbox") == 1000


async def test_a_flood_of_forged_webhooks_is_counted_and_hardly_logged(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    before = REGISTRY.get_sample_value("doorbuster_webhooks_total", {"result": "refused"}) or 0
    for _ in range(20):
        assert (await served.post("/v1/webhooks/sandbox", data=b"{}")).code == "webhook_refused"
    assert len([r for r in caplog.records if "Webhook refused" in r.message]) == 1
    after = REGISTRY.get_sample_value("doorbuster_webhooks_total", {"result": "refused"})
    assert after == before + 20


async def test_forged_stale_and_changed_webhooks_are_refused(served: Served) -> None:
    now_ms = served.engine.clock.now_ms()
    good = sign(SANDBOX_SECRET, event(), now_ms)
    for headers, body in (
        ({}, event()),
        (sign("somebody else's secret", event(), now_ms), event()),
        (sign(SANDBOX_SECRET, event(), now_ms - 600_000), event()),
        (good, event() + b" "),
        (good | {SIGNATURE_HEADER: "\udcff"}, event()),
        (good | {TIMESTAMP_HEADER: "soon"}, event()),
        (sign(SANDBOX_SECRET, b"{", now_ms), b"{"),
        (sign(SANDBOX_SECRET, b"\xff", now_ms), b"\xff"),
    ):
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        async with await served.raw() as connection:
            connection.send(
                f"POST /v1/webhooks/sandbox HTTP/1.1\r\nHost: x\r\n{lines}"
                f"Content-Length: {len(body)}\r\n\r\n".encode(errors="surrogateescape")
                + body
            )
            answer = await connection.answer()
        assert answer.startswith(b"HTTP/1.1 401 "), (headers, body, answer)
        assert b'"code":"webhook_refused"' in answer
    assert (await served.post("/v1/webhooks/mint", data=b"{}")).code == "not_found"
    assert await served.engine.pool.fetchval("SELECT count(*) FROM webhook_inbox") == 0
