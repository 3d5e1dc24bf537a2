"""Invoices: numbered once and without gaps, as issued, in two languages, for the right eyes."""

import asyncio
import re
from base64 import b64encode
from collections.abc import AsyncIterator
from hashlib import sha256

import pytest
from redis.asyncio import Redis

from api.tokens import Role
from engine.servers import EmbeddedValkey
from tests.support.front import Served, serve
from tests.support.parcels import ADDRESS, Till

SELLER = {
    "seller_name": "Doorbuster <Shop> & Co.",
    "seller_address": "上海市南京东路 100 号",
    "seller_tax_id": "91310000MA1FL0000X",
}
QUOTE = {
    "lines": [{"sku": "phone-black", "quantity": 1, "unit_price_minor": 139900}],
    "discounts": [
        {"name": {"en": "Singles' Day", "zh-CN": "双十一满减"}, "code": None, "amount_minor": 12000}
    ],
    "points": 0,
    "points_minor": 0,
    "shipping_minor": 2000,
    # As the buyer was told, whatever they are called by now.
    "names": {"phone-black": {"en": "Black phone", "zh-CN": "黑色手机"}},
    "shipping_method": {"method_id": "standard", "name": {"en": "Standard", "zh-CN": "标准快递"}},
}


@pytest.fixture
async def served(redis: Redis, valkey: EmbeddedValkey, postgres_url: str) -> AsyncIterator[Served]:
    async with serve(valkey.url, postgres_url, **SELLER) as served:
        await served.sell(stock={"phone-black": 100}, per_user_max=10)
        yield served


def number_of(page: bytes) -> str:
    found = re.search(r'<p class="number">([^<]+)</p>', page.decode())
    assert found is not None
    return found[1]


async def test_an_invoice_shows_what_was_bought_in_the_readers_language(served: Served) -> None:
    order_id = await Till(served).buy()
    sale_id, reservation_id = order_id.split(".")
    await served.engine.pool.execute(
        """
        INSERT INTO checkouts (sale_id, reservation_id, user_id, idempotency_key, request_hash,
                               amount_minor, currency, quote, address, language, state)
        VALUES ($1, $2, 'u1', 'k', '', 129900, 'CNY', $3, $4, 'en', 'placed')
        """,
        sale_id,
        reservation_id,
        QUOTE,
        ADDRESS,
    )
    path = f"/v1/orders/{order_id}/invoice"
    english = await served.get(path, user="u1", accept_language="en")
    text = english.body.decode()
    assert english.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "Doorbuster &lt;Shop&gt; &amp; Co." in text
    for said in (
        "CN¥1,399.00",
        "-CN¥120.00",
        "CN¥20.00",
        "CN¥1,299.00",
        "Singles&#39; Day",
        "李雷",
    ):
        assert said in text, said
    assert "Adjustment" not in text
    chinese = (await served.get(path, user="u1", accept_language="zh-TW,zh;q=0.9")).body.decode()
    for said in (
        'lang="zh-CN"',
        "黑色手机",
        "运费 (标准快递)",
        "发票",
        "双十一满减",
        "¥1,399.00",
        "合计",
    ):
        assert said in chinese, said
    assert number_of(english.body) == number_of(chinese.encode())


async def test_the_page_lets_its_own_style_through_and_nothing_else(served: Served) -> None:
    order_id = await Till(served).buy()
    reply = await served.get(f"/v1/orders/{order_id}/invoice", user="u1")
    (policy,) = reply.headers.getall("Content-Security-Policy")  # type: ignore[attr-defined]
    style = re.search(rb"<style>(.*?)</style>", reply.body, re.DOTALL)
    assert style is not None
    digest = b64encode(sha256(style[1]).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert b"<script" not in reply.body
    assert b" style=" not in reply.body
    assert reply.headers["Cache-Control"] == "no-store"


async def test_numbers_are_given_once_and_without_gaps(served: Served) -> None:
    till = Till(served)
    orders = [await till.buy(key=str(n)) for n in range(4)]
    unpaid = (await served.reserve("u1", key="unpaid")).json["reservation_id"]
    await served.drain()

    async def number(order_id: str) -> str:
        reply = await served.get(f"/v1/orders/{order_id}/invoice", user="u1")
        return number_of(reply.body) if reply.status == 200 else reply.code or ""

    asked = [*orders, unpaid, *orders]
    given = dict(zip(asked, await asyncio.gather(*map(number, asked)), strict=True))
    assert given.pop(unpaid) == "not_invoiceable"
    assert [await number(order_id) for order_id in orders] == list(given.values())
    years = {text.split("-")[0] for text in given.values()}
    assert len(years) == 1
    assert sorted(int(text.split("-")[1]) for text in given.values()) == [1, 2, 3, 4]


async def test_an_invoice_stays_as_it_was_issued(served: Served) -> None:
    till = Till(served)
    order_id, never = await till.buy(key="1"), await till.buy(key="2")
    path = f"/v1/orders/{order_id}/invoice"
    before = await served.get(path, user="u1")
    await served.engine.pool.execute("UPDATE sale_items SET price_minor = 1, name = '{}'")
    assert (await served.get(path, user="u1")).body == before.body
    for order in (order_id, never):
        await served.operate(f"/payments/{await till.payment_of(order)}/refunds")
    await till.settle()
    refunded = await served.get(path, user="u1")
    assert b'class="stamp"' in refunded.body
    assert number_of(refunded.body) == number_of(before.body)
    # One that was never issued is not issued for money that went back.
    late = await served.get(f"/v1/orders/{never}/invoice", user="u1")
    assert (late.status, late.code) == (409, "not_invoiceable")


async def test_an_invoice_is_for_its_owner_and_for_support(served: Served) -> None:
    order_id = await Till(served).buy()
    path = f"/v1/orders/{order_id}/invoice"
    assert (await served.get(path, user="thief")).code == "not_found"
    assert (await served.get(path)).code == "unauthenticated"
    assert (await served.get(path, user="s1", role=Role.SUPPORT)).status == 200
    assert (await served.get(path, user="u1")).status == 200
    nowhere = f"/v1/orders/demo.{'0' * 20}/invoice"
    assert (await served.get(nowhere, user="s1", role=Role.SUPPORT)).code == "not_found"
