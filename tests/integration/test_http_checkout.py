"""From a cart to one order over HTTP: what it costs, who gets the last unit, what goes back."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from api.cart import checkout, sale_checkout
from api.cart.sweeper import CheckoutSweeper
from api.problems import Code, problem
from api.shipping.seed import seed_shipping
from engine.servers import EmbeddedValkey
from tests.support.carts import (
    check_books,
    check_out,
    counters,
    coupon,
    open_shop,
    points,
    put,
    quantities,
    redeemed,
)
from tests.support.front import Reply, Served, serve
from tests.support.parcels import ADDRESS
from tests.support.waiting import until

PHONE = 129_900


@pytest.fixture
async def served(redis: Redis, valkey: EmbeddedValkey, postgres_url: str) -> AsyncIterator[Served]:
    async with serve(valkey.url, postgres_url) as served:
        await open_shop(served, mug=5, plate=2, card=3)
        yield served


@pytest.fixture
async def demo(served: Served) -> Served:
    """With a sale of phones, one of them in the cart of u1."""
    await served.sell(stock={"phone-black": 2}, per_user_max=2)
    await put(served, "phone-black", 1, sale="demo", user="u1")
    return served


async def address(served: Served, user: str = "u1", **changes: str) -> str:
    """The id of an address of the user's."""
    address_id = f"addr-{user}-{len(changes)}"
    row = ADDRESS | changes
    await served.engine.pool.execute(
        "INSERT INTO addresses (user_id, address_id, is_default, created_at, name, phone, country,"
        " region, city, street, postal_code)"
        " VALUES ($1, $2, false, now(), $3, $4, $5, $6, $7, $8, $9)",
        user,
        address_id,
        *(row[name] for name in ADDRESS),
    )
    return address_id


async def amount_of(served: Served, reply: Reply) -> int:
    """What the order is said to cost by the order itself."""
    shown = await served.get(reply.headers["Location"], user="u1")
    assert shown.status == 200, shown.body
    amount: int = shown.json["amount"]["amount_minor"]
    return amount


async def test_ordinary_lines_become_one_order(served: Served) -> None:
    await put(served, "card", 2, user="u1")
    made = await check_out(served)
    assert made.status == 201, made.body
    assert made.json["status"] == "awaiting_payment"
    assert made.json["amount"] == {"amount_minor": 20000, "currency": "CNY"}
    assert made.json["quote"]["lines"][0]["sku"] == "card"
    assert made.headers["Location"] == f"/v1/orders/{made.json['order_id']}"
    shown = (await served.get(made.headers["Location"], user="u1")).json
    assert (shown["sale_id"], shown["items"]) == ("shop", [{"sku": "card", "quantity": 2}])
    assert shown["amount"] == made.json["amount"]
    assert shown["reserved_until"] == made.json["reserved_until"]
    assert await counters(served, "card") == (3, 2, 0)
    assert quantities(await served.get("/v1/cart", user="u1")) == {}
    events = await served.engine.pool.fetch("SELECT type FROM events WHERE user_id = 'u1'")
    assert [row["type"] for row in events] == ["checkout.placed"]
    await check_books(served)


@pytest.mark.parametrize(("said", "language"), [({}, None), ({"accept_language": "zh"}, "zh-CN")])
async def test_mails_of_an_order_are_in_the_language_that_was_asked_for_or_the_accounts(
    served: Served, said: dict[str, str], language: str | None
) -> None:
    await put(served, "card", 1, user="u1")
    path = "/v1/cart/checkout"
    made = await served.post(path, user="u1", body={}, idempotency_key="c1", **said)
    assert made.status == 201, made.body
    assert await served.engine.pool.fetchval("SELECT language FROM checkouts") == language


async def test_lines_of_a_sale_are_reserved_by_the_engine_and_drained_at_their_terms(
    demo: Served,
) -> None:
    await coupon(demo, off_minor=9900)
    made = await check_out(demo, coupons=["spring"])
    assert (made.status, made.json["sale_id"]) == (201, "demo"), made.body
    assert made.json["amount"]["amount_minor"] == PHONE - 9900
    assert quantities(await demo.get("/v1/cart", user="u1")) == {}
    reservation = await demo.get(f"/v1/reservations/{made.json['order_id']}", user="u1")
    assert reservation.json["status"] == "reserved"
    await demo.drain()
    paid = await demo.post(f"{made.headers['Location']}/payments", user="u1")
    assert paid.json["amount"]["amount_minor"] == PHONE - 9900
    assert await amount_of(demo, made) == PHONE - 9900
    await check_books(demo)


async def test_a_quote_is_what_is_charged(served: Served) -> None:
    async with served.engine.pool.acquire() as connection, connection.transaction():
        await seed_shipping(connection)
    await coupon(served, off_minor=1000)
    await points(served, "u1", 500)
    await put(served, "mug", 2, user="u1")
    wishes = {"coupons": ["SPRING", "NONE"], "points": 200, "address_id": await address(served)}
    quote = (await served.post("/v1/cart/quote", user="u1", body=wishes)).json
    assert [refused["code"] for refused in quote["refused"]] == ["NONE"]
    assert [method["method_id"] for method in quote["shipping_methods"]] == ["standard", "next-day"]
    wishes |= {"coupons": ["SPRING"], "shipping_method": "standard"}
    dreamt = await served.post("/v1/cart/quote", user="u1", body=wishes | {"points": 501})
    assert dreamt.code == "points_short"
    quoted = (await served.post("/v1/cart/quote", user="u1", body=wishes)).json["quote"]
    assert (quoted["subtotal_minor"], quoted["discount_minor"]) == (6000, 1000)
    assert (quoted["points"], quoted["points_minor"], quoted["shipping_minor"]) == (200, 200, 800)
    assert quoted["total_minor"] == 6000 - 1000 - 200 + 800
    total = {"amount_minor": quoted["total_minor"], "currency": "CNY"}
    made = await check_out(served, **wishes, total=total)
    assert (made.status, made.json["amount"]) == (201, total), made.body
    assert await redeemed(served) == (1, 300)
    row = await served.engine.pool.fetchrow("SELECT * FROM checkouts")
    assert (row["shipping_method"], row["address"]["city"]) == ("standard", "上海")
    assert (row["state"], row["redeems"]) == ("placed", True)
    assert row["quote"]["names"]["mug"]["zh-CN"] == "商品mug"
    await check_books(served)


async def test_a_guest_may_ask_what_it_costs(served: Served) -> None:
    first = await put(served, "mug", 1)
    cookie = first.headers["Set-Cookie"].partition(";")[0]
    async with served.engine.pool.acquire() as connection, connection.transaction():
        await seed_shipping(connection)
    body = {"country": "US", "currency": "USD", "points": 5}
    quote = await served.post("/v1/cart/quote", cookie=cookie, body=body)
    assert quote.json["quote"]["subtotal_minor"] == 500, quote.body
    assert quote.json["quote"]["currency"] == "USD"
    assert quote.json["shipping_methods"][0]["fee"] == {"amount_minor": 590, "currency": "USD"}
    stolen = {"address_id": await address(served)}
    for user in (None, "u2"):
        refused = await served.post("/v1/cart/quote", cookie=cookie, user=user, body=stolen)
        assert refused.json["errors"][0]["field"] == "address_id"


async def test_what_weighs_something_needs_an_address_and_a_way_to_ship(served: Served) -> None:
    await put(served, "mug", 1, user="u1")
    assert (await check_out(served)).code == "address_required"
    home = await address(served)
    assert (await check_out(served, address_id=home)).code == "no_shipping"
    async with served.engine.pool.acquire() as connection, connection.transaction():
        await seed_shipping(connection)
    assert (await check_out(served, address_id=home)).code == "shipping_required"
    assert (await check_out(served, address_id=home, shipping_method="x")).code == "no_shipping"
    assert (await check_out(served, country="CN", shipping_method="standard")).code == (
        "address_required"
    )
    assert (await check_out(served, shipping_method="standard")).code == "invalid_request"
    assert (await check_out(served, address_id=home, country="CN")).code == "invalid_request"
    made = await check_out(served, address_id=home, shipping_method="standard")
    assert made.json["amount"]["amount_minor"] == 3800


async def test_one_checkout_is_of_one_group(demo: Served) -> None:
    await put(demo, "card", 1, user="u1")
    assert (await check_out(demo)).code == "several_groups"
    assert (await demo.post("/v1/cart/quote", user="u1")).code == "several_groups"
    assert (await check_out(demo, skus=["card"])).json["sale_id"] == "shop"
    assert quantities(await demo.get("/v1/cart", user="u1")) == {"phone-black": 1}
    assert (await check_out(demo, key="c2", skus=["card"])).code == "cart_unavailable"
    assert (await check_out(demo, key="c2", sale_id="shop")).code == "cart_empty"
    assert (await check_out(demo, key="c2", sale_id="demo")).status == 201
    assert (await check_out(demo, key="c3")).code == "cart_empty"


async def test_unfit_checkouts_are_refused(served: Served) -> None:
    await put(served, "card", 1, user="u1")
    for body in (
        {"coupons": ["X"] * 11},
        {"coupons": [""]},
        {"points": -1},
        {"currency": "XXX"},
        {"sale_id": "-"},
        {"skus": []},
        {"country": "China"},
        {"region": "\x00", "country": "CN"},
        {"price": 1},
        {"total": {"amount_minor": 1}},
    ):
        reply = await check_out(served, **body)
        assert (reply.status, reply.code) == (400, "invalid_request"), body
    missing = await served.post("/v1/cart/checkout", user="u1")
    assert missing.code == "invalid_request"
    assert missing.json["errors"] == [{"field": "Idempotency-Key", "problem": "is needed"}]
    refused = await check_out(served, coupons=["NONE"])
    assert refused.code == "coupon_refused"
    assert refused.json["detail"] == "coupons.NONE: there is no such coupon"
    total = {"amount_minor": 9999, "currency": "CNY"}
    assert (await check_out(served, total=total)).code == "total_changed"
    await served.engine.pool.execute("UPDATE skus SET active = false WHERE sku = 'card'")
    assert (await check_out(served)).code == "cart_unavailable"
    assert await served.engine.pool.fetchval("SELECT count(*) FROM checkouts") == 0
    assert await counters(served, "card") == (3, 0, 0)


async def test_a_repeated_checkout_is_the_same_order(served: Served) -> None:
    await coupon(served)
    await put(served, "card", 1, user="u1")
    made = await check_out(served, coupons=["SPRING"])
    again = await check_out(served, coupons=["SPRING"])
    assert (again.status, again.headers["Idempotent-Replayed"]) == (200, "true")
    assert again.json == made.json
    other = await check_out(served, points=1, coupons=["SPRING"])
    assert (other.status, other.code) == (422, "idempotency_mismatch")
    await served.post(f"{made.headers['Location']}/cancel", user="u1")
    assert (await check_out(served, coupons=["SPRING"])).json["status"] == "cancelled"
    assert await redeemed(served) == (0, 0)


@pytest.mark.parametrize("group", ["shop", "demo"])
async def test_one_key_at_once_makes_one_order_and_one_redemption(demo: Served, group: str) -> None:
    await coupon(demo, uses_max=5)
    await points(demo, "u1", 100)
    await put(demo, "card", 1, user="u1")
    wishes = {"sale_id": group, "coupons": ["SPRING"], "points": 60}
    replies = await asyncio.gather(*(check_out(demo, **wishes) for _ in range(6)))
    assert {reply.status for reply in replies} <= {200, 201}, [r.body for r in replies]
    assert len({reply.json["order_id"] for reply in replies}) == 1
    await demo.drain()
    assert await demo.engine.pool.fetchval("SELECT count(*) FROM orders") == 1
    assert await redeemed(demo) == (1, 40)
    await check_books(demo)


async def test_the_last_unit_goes_to_one_checkout_and_the_other_keeps_its_coupon(
    served: Served,
) -> None:
    await served.engine.shelf.write_off("card", 2, "op")
    users = [f"u{n}" for n in range(6)]
    await coupon(served, uses_max=None)
    for user in users:
        await put(served, "card", 1, user=user)
    replies = await asyncio.gather(*(check_out(served, user, coupons=["SPRING"]) for user in users))
    assert sorted(reply.status for reply in replies) == [201, *[409] * 5]
    assert {reply.code for reply in replies} == {None, "sold_out"}
    assert (await redeemed(served))[0] == 1
    assert await counters(served, "card") == (1, 1, 0)
    await check_books(served)


async def test_the_last_coupon_goes_to_one_checkout_and_no_unit_is_lost(demo: Served) -> None:
    await coupon(demo, uses_max=1)
    for n, (sku, sale) in enumerate([("card", "shop"), ("phone-black", "demo")] * 2):
        await put(demo, sku, 1, sale=sale, user=f"w{n}")
    replies = await asyncio.gather(
        *(check_out(demo, f"w{n}", coupons=["SPRING"]) for n in range(4))
    )
    assert sorted(reply.status for reply in replies) == [201, 409, 409, 409]
    assert {reply.code for reply in replies} <= {None, "coupon_used", "coupon_refused"}
    await demo.drain()
    assert await demo.engine.pool.fetchval("SELECT count(*) FROM orders") == 1
    await check_books(demo)


@pytest.mark.parametrize("group", ["shop", "demo"])
async def test_two_checkouts_of_one_cart_buy_it_once(demo: Served, group: str) -> None:
    await put(demo, "card", 1, user="u1")
    replies = await asyncio.gather(*(check_out(demo, key=f"c{n}", sale_id=group) for n in range(4)))
    assert sorted(reply.status for reply in replies) == [201, 409, 409, 409]
    assert {reply.code for reply in replies} == {None, "cart_empty"}
    await demo.drain()
    assert await demo.engine.pool.fetchval("SELECT count(*) FROM orders") == 1


async def test_what_was_added_meanwhile_stays_in_the_cart(served: Served) -> None:
    await put(served, "card", 1, user="u1")
    await asyncio.gather(
        check_out(served),
        *(served.post("/v1/cart/lines", user="u1", body={"sku": "card"}) for _ in range(2)),
    )
    left = quantities(await served.get("/v1/cart", user="u1")).get("card", 0)
    assert (await counters(served, "card"))[1] + left == 3


async def test_a_sales_refusal_passes_through_and_gives_back_what_was_redeemed(
    demo: Served,
) -> None:
    await coupon(demo)
    await points(demo, "u1", 50)
    await demo.reserve("x1", quantity=2)
    wishes = {"coupons": ["SPRING"], "points": 50}
    refused = await check_out(demo, **wishes)
    assert (refused.status, refused.code) == (409, "all_reserved")
    assert await redeemed(demo) == (0, 50)
    assert quantities(await demo.get("/v1/cart", user="u1")) == {"phone-black": 1}
    await demo.sell("later", stock={"lamp": 1}, opens_in=3600)
    await put(demo, "lamp", 1, sale="later", user="u2")
    early = await check_out(demo, "u2", coupons=["SPRING"])
    assert (early.status, early.code) == (425, "not_started")
    reservation = (await demo.reserve("x1", quantity=2)).json["reservation_id"]
    await demo.call("DELETE", f"/v1/reservations/{reservation}", user="x1")

    async def sold() -> bool:  # A front remembers for a moment that all are reserved.
        return (await check_out(demo, **wishes)).status == 201

    await until(sold, "the unit that came back is sold")
    assert await redeemed(demo) == (1, 0)
    await demo.drain()
    await check_books(demo)


async def test_a_sale_with_a_waiting_room_lets_nobody_past_it(served: Served) -> None:
    await served.sell(stock={"phone-black": 2}, room={"on": True})
    await put(served, "phone-black", 1, sale="demo", user="u1")
    refused = await check_out(served)
    assert refused.status in {403, 503}, refused.body
    forged = await check_out(served, key="c2", queue_ticket="x")
    assert refused.status in {403, 503}, forged.body
    assert await served.engine.pool.fetchval("SELECT count(*) FROM checkouts") == 0


async def stale(served: Served) -> int:
    """A minute and more passes; the sweeper comes. How many checkouts it finished."""
    await served.engine.pool.execute(
        "UPDATE checkouts SET created_at = created_at - $1::interval", timedelta(minutes=2)
    )
    return await CheckoutSweeper(served.engine).sweep_once()


async def test_a_checkout_that_was_cut_short_after_its_reservation_is_placed(
    demo: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await coupon(demo)
    lost = problem(Code.UNAVAILABLE)
    reserve = sale_checkout.reserve

    async def reserve_unheard(*call: object) -> object:
        await reserve(*call)  # type: ignore[arg-type]
        return lost

    monkeypatch.setattr(sale_checkout, "reserve", reserve_unheard)
    assert (await check_out(demo, coupons=["SPRING"])).code == "unavailable"
    assert await CheckoutSweeper(demo.engine).sweep_once() == 0
    assert await stale(demo) == 1
    monkeypatch.undo()
    again = await check_out(demo, coupons=["SPRING"])
    assert (again.status, again.json["status"]) == (200, "awaiting_payment")
    await demo.drain()
    assert await demo.engine.pool.fetchval("SELECT state FROM checkouts") == "placed"
    assert await redeemed(demo) == (1, 0)
    await check_books(demo)


async def test_a_checkout_that_was_cut_short_before_its_reservation_is_dropped(
    demo: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await coupon(demo)

    async def reserve_nothing(*_: object) -> object:
        return problem(Code.UNAVAILABLE)

    monkeypatch.setattr(sale_checkout, "reserve", reserve_nothing)
    assert (await check_out(demo, coupons=["SPRING"])).code == "unavailable"
    assert await redeemed(demo) == (1, 0)
    assert quantities(await demo.get("/v1/cart", user="u1")) == {}
    assert await stale(demo) == 1
    assert await redeemed(demo) == (0, 0)
    assert quantities(await demo.get("/v1/cart", user="u1")) == {"phone-black": 1}
    monkeypatch.undo()
    made = await check_out(demo, coupons=["SPRING"])
    assert made.status == 201, made.body
    assert await redeemed(demo) == (1, 0)
    await demo.drain()
    await check_books(demo)


async def test_what_was_given_up_while_its_units_came_is_undone_and_not_taken_up_again(
    demo: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await coupon(demo)
    reserve = sale_checkout.reserve

    async def reserve_late(*call: object) -> object:
        assert await stale(demo) == 1
        return await reserve(*call)  # type: ignore[arg-type]

    monkeypatch.setattr(sale_checkout, "reserve", reserve_late)
    assert (await check_out(demo, coupons=["SPRING"])).code == "conflict"
    monkeypatch.undo()
    assert (await check_out(demo, coupons=["SPRING"])).code == "conflict"
    assert await redeemed(demo) == (0, 0)
    assert quantities(await demo.get("/v1/cart", user="u1")) == {"phone-black": 1}
    assert (await check_out(demo, key="c2", coupons=["SPRING"])).status == 201
    await demo.drain()
    assert await redeemed(demo) == (1, 0)
    await check_books(demo)


async def test_a_repetition_finishes_what_was_cut_short_at_once(
    demo: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await coupon(demo)

    async def reserve_nothing(*_: object) -> object:
        return problem(Code.UNAVAILABLE)

    monkeypatch.setattr(sale_checkout, "reserve", reserve_nothing)
    await check_out(demo, coupons=["SPRING"])
    monkeypatch.undo()
    made = await check_out(demo, coupons=["SPRING"])
    assert (made.status, made.json["amount"]["amount_minor"]) == (200, PHONE - 500)
    await demo.drain()
    assert await amount_of(demo, made) == PHONE - 500
    await check_books(demo)


async def test_units_that_are_held_are_found_though_the_sale_has_ended(
    demo: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await coupon(demo)
    reserve = sale_checkout.reserve

    async def reserve_unheard(*call: object) -> object:
        await reserve(*call)  # type: ignore[arg-type]
        return problem(Code.UNAVAILABLE)

    monkeypatch.setattr(sale_checkout, "reserve", reserve_unheard)
    await check_out(demo, coupons=["SPRING"])

    async def reserve_ended(*_: object) -> object:
        return problem(Code.SALE_ENDED)

    monkeypatch.setattr(sale_checkout, "reserve", reserve_ended)
    made = await check_out(demo, coupons=["SPRING"])
    assert (made.status, made.json["status"]) == (200, "awaiting_payment"), made.body
    assert await redeemed(demo) == (1, 0)
    await put(demo, "phone-black", 1, sale="demo", user="u1")
    assert (await check_out(demo, key="c2")).code == "sale_ended"


async def test_a_key_of_a_plain_reservation_is_not_the_checkouts(demo: Served) -> None:
    await coupon(demo)
    plain = await demo.reserve("u1", key="c1")
    made = await check_out(demo, coupons=["SPRING"])
    assert made.status == 201
    assert made.json["order_id"] != plain.json["reservation_id"]
    await demo.drain()
    assert await amount_of(demo, made) == PHONE - 500
    shown = await demo.get(f"/v1/orders/{plain.json['reservation_id']}", user="u1")
    assert shown.json["amount"]["amount_minor"] == PHONE


async def test_a_checkout_that_was_in_the_way_of_a_batch_of_payments_is_made_all_the_same(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    redeem, deadlocks = checkout.redeem, [asyncpg.DeadlockDetectedError()]

    async def redeem_later(*args: Any, **options: Any) -> None:
        await redeem(*args, **options)
        if deadlocks:
            raise deadlocks.pop()

    monkeypatch.setattr(checkout, "redeem", redeem_later)
    await coupon(served)
    await put(served, "card", 1, user="u1")
    assert (await check_out(served, coupons=["SPRING"])).status == 201
    assert deadlocks == []
    assert await redeemed(served) == (1, 0)
    assert await counters(served, "card") == (3, 1, 0)
    await check_books(served)


async def test_others_never_see_an_order_or_an_address(served: Served) -> None:
    await put(served, "card", 1, user="u1")
    made = await check_out(served)
    assert (await served.get(made.headers["Location"], user="u2")).code == "not_found"
    await put(served, "card", 1, user="u2")
    theirs = await address(served, "u1")
    refused = await check_out(served, "u2", key="c1", address_id=theirs)
    assert refused.json["errors"][0]["field"] == "address_id"
