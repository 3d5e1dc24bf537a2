"""Orders made by checkouts: charged what their buyers were told, whoever wins which race; one fate each."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from engine.payment.provider import ChargeStatus
from engine.servers import EmbeddedValkey
from tests.support.carts import (
    check_books,
    check_out,
    counters,
    coupon,
    open_shop,
    points,
    put,
    redeemed,
)
from tests.support.front import serve
from tests.support.shop import ObedientProvider
from tests.support.tills import Till
from tests.support.waiting import until

PHONE = 129_900
WISHES = {"coupons": ["SPRING"], "points": 60}  # 5 CNY and 0.60 CNY off


@pytest.fixture
async def till(redis: Redis, valkey: EmbeddedValkey, postgres_url: str) -> AsyncIterator[Till]:
    """A shop with cards, a coupon, and u1 with 100 points."""
    async with serve(valkey.url, postgres_url) as served:
        await open_shop(served, card=3)
        await coupon(served, uses_max=10)
        await points(served, "u1", 100)
        yield Till(served, ObedientProvider())


async def order(till: Till, group: str, key: str = "c1", **wishes: object) -> str:
    """The id of an order of u1's that is stored: a card of the shop, or a phone of the sale."""
    sku = "card" if group == "shop" else "phone-black"
    await put(till.served, sku, 1, sale=group, user="u1")
    made = await check_out(till.served, key=key, **wishes)
    assert made.status == 201, made.body
    await till.served.drain()
    order_id: str = made.json["order_id"]
    return order_id


async def test_a_sale_that_captures_by_itself_charges_the_discounted_price(till: Till) -> None:
    await till.served.sell(stock={"phone-black": 50}, auto_capture=True)
    users = [f"u{n}" for n in range(2, 20)]
    await coupon(till.served, "EACH", 1000, uses_max=None)
    for user in users:
        await put(till.served, "phone-black", 1, sale="demo", user=user)
    stopped = asyncio.Event()

    async def work() -> None:
        """Drainer and payer, never resting: they find every order before its checkout ends."""
        while not stopped.is_set():
            await till.served.drain()
            await till.payer.pay_once()

    working = asyncio.create_task(work())
    plain = await till.served.reserve("plain")
    replies = await asyncio.gather(
        *(check_out(till.served, user, coupons=["EACH"]) for user in users)
    )
    assert {reply.status for reply in replies} == {201}

    async def all_paid() -> bool:
        count = "SELECT count(*) FROM orders WHERE status = 'paid'"
        return bool(await till.served.engine.pool.fetchval(count) == len(users) + 1)

    await until(all_paid, "every order is paid")
    stopped.set()
    await working
    charged = sorted(charge.amount_minor or 0 for charge in till.provider.charges.values())
    assert charged == [*[PHONE - 1000] * len(users), PHONE]
    assert plain.status == 201
    await till.settle()
    await check_books(till.served)


async def test_an_order_has_its_price_from_the_first(till: Till) -> None:
    await till.served.sell(stock={"phone-black": 5}, per_user_max=2)
    order_id = await order(till, "demo", **WISHES)
    shown = await till.served.get(f"/v1/orders/{order_id}", user="u1")
    assert shown.json["amount"] == {"amount_minor": PHONE - 560, "currency": "CNY"}


async def test_cancelled_before_it_is_stored_a_checkout_gives_all_back(till: Till) -> None:
    await till.served.sell(stock={"phone-black": 1})
    await put(till.served, "phone-black", 1, sale="demo", user="u1")
    made = await check_out(till.served, **WISHES)
    assert await redeemed(till.served) == (1, 40)
    cancelled = await till.served.post(f"{made.headers['Location']}/cancel", user="u1")
    assert cancelled.json["status"] == "cancelled"
    assert cancelled.json["amount"]["amount_minor"] == PHONE - 560
    assert await redeemed(till.served) == (0, 100)
    await till.settle()
    assert await redeemed(till.served) == (0, 100)
    await check_books(till.served)


@pytest.mark.parametrize("group", ["shop", "demo"])
async def test_refunded_an_order_gives_back_what_it_redeemed_once(till: Till, group: str) -> None:
    await till.served.sell(stock={"phone-black": 1})
    order_id = await order(till, group, **WISHES)
    payment_id = await till.pay(order_id)
    await till.settle()
    assert await till.status(order_id) == "paid"
    assert await redeemed(till.served) == (1, 40)
    for _ in range(2):
        await till.served.post(f"/v1/payments/{payment_id}/refunds", user="u1")
        await till.settle()
    assert await till.status(order_id) == "refunded"
    assert await redeemed(till.served) == (0, 100)
    await check_books(till.served)


@pytest.mark.parametrize("group", ["shop", "demo"])
async def test_a_late_payment_of_what_was_redeemed_is_refunded_and_not_revived(
    till: Till, group: str
) -> None:
    await till.served.sell(stock={"phone-black": 1})
    till.provider.answer = ChargeStatus.PENDING
    order_id = await order(till, group, **WISHES)
    payment_id = await till.pay(order_id)
    await till.settle()
    till.clock.advance(seconds=10_000)
    assert await till.reaper.reap_once() == 1
    assert await redeemed(till.served) == (0, 100)
    await till.webhook(payment_id)
    await till.settle()
    assert await till.status(order_id) == "expired"
    payment = await till.served.get(f"/v1/payments/{payment_id}", user="u1")
    assert payment.json["status"] == "refunded"
    assert await redeemed(till.served) == (0, 100)
    await check_books(till.served)


@pytest.mark.parametrize("group", ["shop", "demo"])
async def test_cancel_against_webhook_against_expiry_is_one_fate(till: Till, group: str) -> None:
    await till.served.sell(stock={"phone-black": 3}, per_user_max=3)
    till.provider.answer = ChargeStatus.PENDING
    for turn in range(3):
        await race(till, group, turn)
    await check_books(till.served)


async def race(till: Till, group: str, turn: int) -> None:
    """One order, whose end several are at, each time another of them first."""
    used, balance = await redeemed(till.served)
    sku = "card" if group == "shop" else "phone-black"
    before = await counters(till.served, sku, group)
    order_id = await order(till, group, f"race-{turn}", coupons=["SPRING"], points=20)
    payment_id = await till.pay(order_id)
    await till.settle()
    till.clock.advance(seconds=10_000)
    await till.webhook(payment_id)
    racers = [till.cancel(order_id), till.inbox.handle_once(), till.reaper.reap_once()]
    await asyncio.gather(*racers[turn:], *racers[:turn])
    await till.settle()
    status = await till.status(order_id)
    payment = await till.served.get(f"/v1/payments/{payment_id}", user="u1")
    assert (status, payment.json["status"]) in {
        ("paid", "captured"),
        ("cancelled", "refunded"),
        ("expired", "refunded"),
    }
    paid = status == "paid"
    assert await redeemed(till.served) == (used + paid, balance - 20 * paid)
    stocked, ordered, sold = before
    assert await counters(till.served, sku, group) == (stocked, ordered + paid, sold + paid)
