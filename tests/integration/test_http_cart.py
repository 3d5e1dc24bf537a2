"""The cart over HTTP: of users and guests, merged at login, shown with what its lines are now."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from api.cart.store import LINES_MAX
from api.cart.sweeper import CartSweeper
from engine.servers import EmbeddedValkey
from tests.support.carts import cookie_of, lines_of, open_shop, put, quantities
from tests.support.front import Served, serve


@pytest.fixture
async def served(redis: Redis, valkey: EmbeddedValkey, postgres_url: str) -> AsyncIterator[Served]:
    async with serve(valkey.url, postgres_url) as served:
        await open_shop(served, mug=5, plate=2)
        yield served


async def test_a_line_is_added_set_and_removed(served: Served) -> None:
    empty = await served.get("/v1/cart", user="u1")
    assert (empty.json["groups"], empty.headers["ETag"]) == ([], '"0"')
    assert "Set-Cookie" not in empty.headers
    for quantity in (1, 3):
        body = {"sku": "mug"} if quantity == 1 else {"sku": "mug", "quantity": 2}
        added = await served.post("/v1/cart/lines", user="u1", body=body)
        assert quantities(added) == {"mug": quantity}
    assert quantities(await put(served, "mug", 2, user="u1")) == {"mug": 2}
    assert quantities(await put(served, "plate", 1, user="u1")) == {"mug": 2, "plate": 1}
    assert quantities(await put(served, "mug", 0, user="u1")) == {"plate": 1}
    gone = await served.call("DELETE", "/v1/cart/lines/shop/plate", user="u1")
    assert quantities(gone) == {}
    await put(served, "mug", 1, user="u1")
    assert quantities(await served.call("DELETE", "/v1/cart", user="u1")) == {}
    assert quantities(await served.get("/v1/cart", user="u2")) == {}


async def test_a_line_says_what_it_is_and_costs(served: Served) -> None:
    chinese = await put(served, "mug", 2, user="u1", accept_language="zh-CN")
    assert lines_of(chinese)["mug"] == {
        "sale_id": "shop",
        "sku": "mug",
        "quantity": 2,
        "state": "ok",
        "name": "商品mug",
        "options": {"colour": "蓝色"},
        "product_id": "the-mug",
        "unit_price": {"amount_minor": 3000, "currency": "CNY"},
        "price_when_added": {"amount_minor": 3000, "currency": "CNY"},
        "total": {"amount_minor": 6000, "currency": "CNY"},
        "available": 5,
    }
    dollars = await served.get("/v1/cart?currency=USD", user="u1")
    assert dollars.json["groups"][0]["subtotal"] == {"amount_minor": 1000, "currency": "USD"}
    assert lines_of(dollars)["mug"]["state"] == "ok"
    for query in ("currency=XXX", "currency=cny", "colour=blue"):
        refused = await served.get(f"/v1/cart?{query}", user="u1")
        assert (refused.status, refused.code) == (400, "invalid_request"), query


async def test_what_changed_since_is_marked_and_never_dropped(served: Served) -> None:
    for sku, quantity in (("mug", 5), ("plate", 2), ("card", 1)):
        await put(served, sku, quantity, user="u1")
    await put(served, "mug", 1, user="u2")
    pool, shelf = served.engine.pool, served.engine.shelf
    shown = lines_of(await served.get("/v1/cart", user="u1"))
    assert {sku: line["state"] for sku, line in shown.items()} == {
        "mug": "ok",
        "plate": "ok",
        "card": "sold_out",
    }
    await pool.execute("UPDATE sku_prices SET amount_minor = 3300 WHERE sku = 'mug'")
    await shelf.write_off("plate", 1, "op")
    await shelf.restock("card", 1, "op")
    await pool.execute("UPDATE skus SET active = false WHERE sku = 'card'")
    reply = await served.get("/v1/cart", user="u1")
    shown = lines_of(reply)
    assert {sku: line["state"] for sku, line in shown.items()} == {
        "mug": "price_changed",
        "plate": "quantity_short",
        "card": "unavailable",
    }
    assert shown["mug"]["price_when_added"]["amount_minor"] == 3000
    assert shown["mug"]["unit_price"]["amount_minor"] == 3300
    (group,) = reply.json["groups"]
    assert (group["ready"], group["units"]) == (False, 8)
    assert group["subtotal"] == {"amount_minor": 16500, "currency": "CNY"}
    seen = lines_of(await put(served, "mug", 4, user="u1"))["mug"]
    assert (seen["state"], seen["price_when_added"]["amount_minor"]) == ("ok", 3300)


async def test_lines_of_a_sale_are_a_group_of_their_own(served: Served) -> None:
    stock = {"phone-black": 2, "phone-white": 5}
    await served.sell(stock=stock, per_user_max=5)
    await served.sell("later", stock={"lamp": 1}, opens_in=3600)
    await put(served, "mug", 1, user="u1")
    for sale, sku, quantity in (
        ("demo", "phone-black", 3),
        ("demo", "phone-white", 1),
        ("later", "lamp", 1),
    ):
        reply = await put(served, sku, quantity, sale=sale, user="u1")
    groups = {group["sale_id"]: group for group in reply.json["groups"]}
    assert list(groups) == ["shop", "demo", "later"]
    states = {sku: line["state"] for sku, line in lines_of(reply).items()}
    assert states == {
        "mug": "ok",
        "phone-black": "quantity_short",
        "phone-white": "ok",
        "lamp": "sale_not_started",
    }
    assert groups["demo"]["subtotal"] == {"amount_minor": 129900, "currency": "CNY"}
    assert groups["later"]["subtotal"] == {"amount_minor": 129900, "currency": "CNY"}
    await served.engine.sales.close("demo", "op")
    served.engine.directory.forget("demo")
    shown = lines_of(await served.get("/v1/cart", user="u1"))
    assert shown["phone-white"]["state"] == "sale_ended"


async def test_unknown_things_come_into_no_cart(served: Served) -> None:
    await served.sell()
    for sale, sku, quantity, status, code in (
        ("shop", "spoon", 1, 404, "unknown_sku"),
        ("demo", "spoon", 1, 404, "unknown_sku"),
        ("none", "phone-black", 1, 404, "unknown_sale"),
        ("-", "mug", 1, 404, "unknown_sale"),
        ("shop", "-", 1, 404, "unknown_sku"),
        ("shop", "mug", -1, 400, "invalid_request"),
        ("shop", "mug", 10_001, 400, "invalid_request"),
    ):
        reply = await put(served, sku, quantity, sale=sale, user="u1")
        assert (reply.status, reply.code) == (status, code), (sale, sku)
    await put(served, "mug", 10_000, user="u1")
    more = await served.post("/v1/cart/lines", user="u1", body={"sku": "mug"})
    assert (more.status, more.json["errors"][0]["field"]) == (400, "quantity")
    assert quantities(await served.get("/v1/cart", user="u1")) == {"mug": 10_000}


async def test_a_cart_has_an_end(served: Served) -> None:
    await put(served, "mug", 1, user="u1")
    await served.engine.pool.execute(
        "INSERT INTO cart_lines (cart_id, sale_id, sku, quantity, added_at)"
        " SELECT 'user:u1', 'shop', 'sku-' || n, 1, now() FROM generate_series(2, $1) AS n",
        LINES_MAX,
    )
    full = await put(served, "plate", 1, user="u1")
    assert (full.status, full.code) == (409, "cart_full")
    assert (await put(served, "mug", 2, user="u1")).status == 200
    assert len(lines_of(await served.get("/v1/cart", user="u1"))) == LINES_MAX


async def test_a_change_made_for_another_revision_is_refused(served: Served) -> None:
    first = await put(served, "mug", 1, user="u1", if_match='"0"')
    revision = first.headers["ETag"]
    assert revision == f'"{first.json["revision"]}"'
    second = await put(served, "mug", 2, user="u1", if_match=revision)
    assert second.headers["ETag"] != revision
    for stale in (revision, '"0"'):
        refused = await put(served, "mug", 3, user="u1", if_match=stale)
        assert (refused.status, refused.code) == (412, "cart_changed")
    refused = await served.call("DELETE", "/v1/cart", user="u1", if_match=revision)
    assert refused.code == "cart_changed"
    assert (await put(served, "mug", 3, user="u1", if_match="*")).status == 200
    assert (await put(served, "mug", 3, user="u1", if_match="mug")).code == "invalid_request"
    missing = await served.call("DELETE", "/v1/cart", user="nobody", if_match='"7"')
    assert missing.code == "cart_changed"


async def test_two_devices_change_one_cart_and_no_change_is_lost(served: Served) -> None:
    await asyncio.gather(
        *(served.post("/v1/cart/lines", user="u1", body={"sku": "mug"}) for _ in range(10)),
        *(served.post("/v1/cart/lines", user="u1", body={"sku": "plate"}) for _ in range(10)),
    )
    assert quantities(await served.get("/v1/cart", user="u1")) == {"mug": 10, "plate": 10}
    etag = (await served.get("/v1/cart", user="u1")).headers["ETag"]
    replies = await asyncio.gather(
        *(put(served, "mug", n, user="u1", if_match=etag) for n in range(1, 6))
    )
    assert sorted(reply.status for reply in replies) == [200, 412, 412, 412, 412]


async def test_a_guest_has_a_cart_by_a_signed_cookie_from_the_first_change_on(
    served: Served,
) -> None:
    assert "Set-Cookie" not in (await served.get("/v1/cart")).headers
    first = await put(served, "mug", 2)
    cookie = first.headers["Set-Cookie"]
    assert cookie.startswith("__Host-cart=")
    assert {"Path=/", "Secure", "HttpOnly", "SameSite=Lax"} <= set(cookie.split("; "))
    assert quantities(await served.get("/v1/cart", cookie=cookie_of(first))) == {"mug": 2}
    assert quantities(await served.get("/v1/cart")) == {}
    forged = cookie_of(first)[:-1] + ("A" if cookie_of(first)[-1] != "A" else "B")
    for other in (forged, "__Host-cart=guest_1.x", "__Host-cart="):
        assert quantities(await served.get("/v1/cart", cookie=other)) == {}
    refused = await served.post("/v1/cart/checkout", cookie=cookie_of(first), idempotency_key="k")
    assert (refused.status, refused.code) == (401, "unauthenticated")


async def test_a_guests_cart_is_merged_once_into_the_users(served: Served) -> None:
    await put(served, "mug", 1, user="u1")
    await put(served, "plate", 2, user="u1")
    guest = await put(served, "mug", 4)
    cookie = cookie_of(guest)
    await put(served, "card", 1, cookie=cookie)
    await put(served, "plate", 1, cookie=cookie)
    replies = await asyncio.gather(
        *(served.get("/v1/cart", user="u1", cookie=cookie) for _ in range(4))
    )
    merged = {"mug": 4, "plate": 2, "card": 1}
    assert all(reply.headers["Set-Cookie"].startswith("__Host-cart=;") for reply in replies)
    assert merged in [quantities(reply) for reply in replies]
    assert quantities(await served.get("/v1/cart", user="u1")) == merged
    assert quantities(await served.get("/v1/cart", cookie=cookie)) == {}
    await put(served, "mug", 1, user="u1")
    again = await served.get("/v1/cart", user="u1", cookie=cookie)
    assert quantities(again) == merged | {"mug": 1}


async def test_guests_carts_are_forgotten_after_a_while(served: Served) -> None:
    old, young = await put(served, "mug", 1), await put(served, "mug", 2)
    await put(served, "mug", 3, user="u1")
    pool = served.engine.pool
    old_id = await pool.fetchval("SELECT cart_id FROM cart_lines WHERE quantity = 1")
    await pool.execute(
        "UPDATE carts SET changed_at = now() - interval '31 days' WHERE cart_id IN ($1, 'user:u1')",
        old_id,
    )
    assert await CartSweeper(served.engine).sweep_once() == 1
    assert quantities(await served.get("/v1/cart", cookie=cookie_of(old))) == {}
    assert quantities(await served.get("/v1/cart", cookie=cookie_of(young))) == {"mug": 2}
    assert quantities(await served.get("/v1/cart", user="u1")) == {"mug": 3}
    assert quantities(await put(served, "plate", 1, cookie=cookie_of(old))) == {"plate": 1}
