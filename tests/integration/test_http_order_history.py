"""The history of orders: found by filters, told in the buyer's language, seen by support."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from api.tokens import Role
from engine.model import make_reservation_id
from engine.servers import EmbeddedValkey
from tests.support.front import Reply, Served, serve
from tests.support.parcels import ADDRESS, Till, audited

NAME = {"en": "Kettle", "zh-CN": "水壶"}


@pytest.fixture
async def served(redis: Redis, valkey: EmbeddedValkey, postgres_url: str) -> AsyncIterator[Served]:
    async with serve(valkey.url, postgres_url) as served:
        await served.sell(stock={"phone-black": 100, "phone-white": 100}, per_user_max=10)
        yield served


async def reserve(served: Served, user: str = "u1", **wish: Any) -> str:
    order_id: str = (await served.reserve(user, **wish)).json["reservation_id"]
    return order_id


async def buy_ordinary(served: Served, user: str = "u1") -> str:
    """An order outside of sales, as a checkout places it."""
    pool, reservation_id = served.engine.pool, make_reservation_id("shop", user, "k")
    await pool.execute(
        "INSERT INTO categories VALUES ('home', NULL, '{home}', 0, '{\"en\": \"Home\"}')"
    )
    await pool.execute(
        """
        INSERT INTO products (product_id, category_id, brand, name, description, images)
        VALUES ('kettle', 'home', 'Hanshui', $1, '{}', '["https://images.test/kettle.jpg"]')
        """,
        NAME,
    )
    await pool.execute("INSERT INTO skus (sku, product_id) VALUES ('kettle-red', 'kettle')")
    await pool.execute(
        """
        INSERT INTO sale_items (sale_id, sku, position, name, price_minor, currency, stocked, ordered)
        VALUES ('shop', 'kettle-red', 0, '{}', 9900, 'CNY', 5, 2)
        """
    )
    await pool.execute(
        """
        INSERT INTO checkouts (sale_id, reservation_id, user_id, idempotency_key, request_hash,
                               amount_minor, currency, quote, address, shipping_method, language,
                               state)
        VALUES ('shop', $1, $2, 'k', '', 20600, 'CNY', '{"total_minor": 20600}', $3, 'standard',
                'zh-CN', 'placed')
        """,
        reservation_id,
        user,
        ADDRESS,
    )
    await pool.execute(
        """
        INSERT INTO orders (sale_id, reservation_id, user_id, items, amount_minor, currency, status,
                            reserved_at, reserved_until)
        VALUES ('shop', $1, $2, '{"kettle-red": 2}', 20600, 'CNY', 'awaiting_payment',
                now(), now() + interval '1 hour')
        """,
        reservation_id,
        user,
    )
    return f"shop.{reservation_id}"


async def test_ones_orders_are_found_by_what_one_knows_of_them(served: Served) -> None:
    await served.sell("other", stock={"kettle-red": 5})
    black = await reserve(served, key="1")
    white = await reserve(served, key="2", sku="phone-white")
    other = await reserve(served, key="3", sale="other", sku="kettle-red")
    await served.drain()
    await served.post(f"/v1/orders/{black}/cancel", user="u1")
    await served.engine.pool.execute(
        "UPDATE orders SET reserved_at = reserved_at - interval '1 day' WHERE reservation_id = $1",
        white.split(".")[1],
    )
    hour_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    for query, found in (
        ("", {black, white, other}),
        ("status=cancelled", {black}),
        ("status=cancelled&status=awaiting_payment", {black, white, other}),
        ("status=paid", set()),
        ("sale=other", {other}),
        ("sale=shop", set()),
        ("q=PHONE", {black, white}),
        ("q=phone-white", {white}),
        ("q=%25", set()),
        (f"from={hour_ago}", {black, other}),
        (f"to={hour_ago}", {white}),
        (f"from={hour_ago}&sale=demo&status=cancelled&q=black", {black}),
    ):
        page = (await served.get(f"/v1/orders?{query}", user="u1")).json
        assert {order["order_id"] for order in page["orders"]} == found, query


async def test_an_ordinary_order_is_an_order_like_any_other(served: Served) -> None:
    order_id, till = await buy_ordinary(served), Till(served)
    shown = (await served.get(f"/v1/orders/{order_id}", user="u1", accept_language="zh-CN")).json
    line = {"sku": "kettle-red", "name": "水壶", "quantity": 2}
    assert shown["lines"] == [line | {"image": "https://images.test/kettle.jpg"}]
    assert shown["terms"] == {
        "quote": {"total_minor": 20600},
        "language": "zh-CN",
        "address": ADDRESS,
        "shipping_method": "standard",
    }
    assert (await served.post(f"/v1/orders/{order_id}/payments", user="u1")).status == 201
    await till.settle()
    (listed,) = (await served.get("/v1/orders?sale=shop", user="u1")).json["orders"]
    assert (listed["status"], listed["lines"][0]["name"]) == ("paid", "Kettle")
    invoice = await served.get(f"/v1/orders/{order_id}/invoice", user="u1")
    assert "Kettle" in invoice.body.decode()


async def test_the_timeline_is_told_in_the_language_asked_for(served: Served) -> None:
    till = Till(served)
    order_id = await till.buy()
    await served.operate(f"/payments/{await till.payment_of(order_id)}/refunds")
    await till.settle()
    for language, told in (
        ("zh-Hans-CN", ["已下单", "付款已收到", "已付款", "退款处理中", "款项已退回", "已退款"]),
        (
            "en",
            [
                "Ordered",
                "The payment was received",
                "Paid",
                "The refund is under way",
                "The payment was refunded",
                "Refunded",
            ],
        ),
    ):
        shown = await served.get(f"/v1/orders/{order_id}", user="u1", accept_language=language)
        assert [entry["label"] for entry in shown.json["timeline"]] == told
        times = [entry["at"] for entry in shown.json["timeline"]]
        assert times == sorted(times)


async def support(served: Served, path: str, method: str = "GET") -> Reply:
    return await served.call(method, f"/v1/admin{path}", user="s1", role=Role.SUPPORT)


async def test_support_finds_anybodys_order(served: Served) -> None:
    mine, yours = await reserve(served, "u1", key="1"), await reserve(served, "u2", key="2")
    old = await reserve(served, "u2", key="3")
    await served.drain()
    await served.engine.pool.execute(
        "UPDATE orders SET reserved_at = reserved_at - interval '8 days' WHERE reservation_id = $1",
        old.split(".")[1],
    )
    for query, found in (
        ("", {mine, yours}),  # Of the last seven days.
        ("user=u2", {yours, old}),
        ("from=2020-01-01T00:00:00Z", {mine, yours, old}),
        ("status=awaiting_payment&sale=demo", {mine, yours}),
        ("user=nobody", set()),
    ):
        page = (await support(served, f"/orders?{query}")).json
        assert {order["order_id"] for order in page["orders"]} == found, query
    first = (await support(served, "/orders?limit=1")).json
    second = (await support(served, f"/orders?limit=1&after={first['next']}")).json
    pages = [order["order_id"] for page in (first, second) for order in page["orders"]]
    assert set(pages) == {mine, yours}
    shown = (await support(served, f"/orders/{yours}")).json
    assert (shown["user_id"], shown["order_id"]) == ("u2", yours)
    assert (await support(served, f"/orders/demo.{'0' * 20}")).code == "not_found"
    assert (await support(served, "/orders?user=%E4%BD%A0")).code == "invalid_request"
    for path in ("/orders", f"/orders/{mine}"):
        assert (await served.get(f"/v1/admin{path}", user="u1")).code == "forbidden"


async def test_support_cancels_on_behalf_once_and_says_so(served: Served) -> None:
    order_id, paid = await reserve(served, key="1"), await Till(served).buy(key="2")
    path = f"/orders/{order_id}/cancel"
    replies = await asyncio.gather(*(support(served, path, "POST") for _ in range(3)))
    assert {reply.json["status"] for reply in replies} == {"cancelled"}
    assert replies[0].json["status_reason"] == "by_support"
    assert (await audited(served)).count("cancel_order") == 1
    refused = await support(served, f"/orders/{paid}/cancel", "POST")
    assert (refused.status, refused.code) == (409, "not_cancellable")
    assert (await served.post(f"/v1/admin{path}", user="u1")).code == "forbidden"
    books = await served.engine.pool.fetchrow(
        "SELECT ordered, sold FROM sale_items WHERE sku = 'phone-black'"
    )
    assert tuple(books) == (1, 1)
