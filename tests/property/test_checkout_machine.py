"""Random days of a shop: carts, checkouts, payments, cancellations and expiries, several at once.

After each day the books are closed: every order has one fate, its units, its coupon and its points.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress

import pytest
from redis.asyncio import Redis

from api.cart.sweeper import CheckoutSweeper
from engine.errors import Conflict
from engine.payment.provider import ChargeStatus
from engine.servers import EmbeddedValkey
from tests.support.carts import check_books, check_out, coupon, open_shop, points, put
from tests.support.front import Served, serve
from tests.support.tills import Till

SEEDS = range(2)
STEPS = 25
ORDERS_MIN = 3  # A day on which less is bought shows nothing.
AT_ONCE_MAX = 5
USERS = ("ann", "bob")
GRANTED = 300
THINGS = (("shop", "card"), ("demo", "phone-black"), ("demo", "case"))
CHARGES = (ChargeStatus.CAPTURED, ChargeStatus.PENDING, ChargeStatus.FAILED)


@pytest.fixture
async def served(redis: Redis, valkey: EmbeddedValkey, postgres_url: str) -> AsyncIterator[Served]:
    async with serve(valkey.url, postgres_url) as served:
        await open_shop(served, card=4)
        await served.sell(stock={"phone-black": 4, "case": 3}, per_user_max=4)
        await coupon(served, uses_max=3)
        for user in USERS:
            await points(served, user, GRANTED)
        yield served


class Day:
    """What may happen, in an order and in company that the seed decides."""

    def __init__(self, served: Served, seed: int) -> None:
        self.served = served
        self.till = Till(served)
        self.dice = random.Random(seed)
        self.orders: dict[str, str] = {}  # whose each is
        self.answers: Counter[str] = Counter()  # of checkouts

    async def step(self) -> None:
        """A few things at the same moment."""
        self.till.provider.answer = self.dice.choice(CHARGES)
        count = self.dice.randint(1, AT_ONCE_MAX)
        await asyncio.gather(*(self.something() for _ in range(count)))

    def something(self) -> Awaitable[None]:
        happens = (
            (self.fill, 5),
            (self.buy, 8),
            (self.cancel, 2),
            (self.pay, 4),
            (self.tell, 2),
            (self.refund, 1),
            (self.work, 5),
            (self.expire, 1),
            (self.restock, 2),
        )
        (chosen,) = self.dice.choices(
            [call for call, _ in happens], [weight for _, weight in happens]
        )
        return chosen()

    async def fill(self) -> None:
        sale, sku = self.dice.choice(THINGS)
        user, quantity = self.dice.choice(USERS), self.dice.randint(0, 2)
        reply = await put(self.served, sku, quantity, sale=sale, user=user)
        assert reply.status == 200, reply.body

    async def buy(self) -> None:
        """Mostly something that is in the cart; now and then with a key that was used."""
        user, key = self.dice.choice(USERS), f"k{self.dice.randrange(40)}"
        sale, sku = self.dice.choice(THINGS)
        wishes: dict[str, object] = {"sale_id": sale, "points": self.dice.choice((0, 50))}
        if self.dice.random() < 0.4:
            wishes["coupons"] = ["SPRING"]
        if self.dice.random() < 0.8:
            await put(self.served, sku, self.dice.randint(1, 2), sale=sale, user=user)
        reply = await check_out(self.served, user, key, **wishes)
        assert reply.status in {200, 201, 409, 422, 503}, reply.body
        self.answers[reply.code or "bought"] += 1
        if reply.status in {200, 201}:
            self.orders[reply.json["order_id"]] = user

    async def cancel(self) -> None:
        if self.orders:
            order_id, user = self.dice.choice(list(self.orders.items()))
            await self.till.cancel(order_id, user)

    async def pay(self) -> None:
        if self.orders:
            order_id, user = self.dice.choice(list(self.orders.items()))
            reply = await self.served.post(f"/v1/orders/{order_id}/payments", user=user)
            # 404: it was cancelled on its way to Postgres, and is stored as that at this moment.
            assert reply.status in {201, 404, 409, 503}, reply.body

    async def tell(self) -> None:
        if self.till.provider.charges:
            await self.till.webhook(self.dice.choice(list(self.till.provider.charges)))

    async def refund(self) -> None:
        charges = list(self.till.provider.charges)
        if charges:
            with suppress(Conflict):
                await self.served.engine.payments.request_refund(self.dice.choice(charges), "op")

    async def work(self) -> None:
        await self.served.drain()
        await self.till.payer.pay_once()
        await self.till.inbox.handle_once()
        await self.till.dispatcher.dispatch_once()

    async def expire(self) -> None:
        self.till.clock.advance(seconds=10_000)
        await self.till.reaper.reap_once()

    async def restock(self) -> None:
        shelf = self.served.engine.shelf
        change = self.dice.choice((shelf.restock, shelf.write_off))
        with suppress(Conflict):
            await change("card", 1, "op")


@pytest.mark.parametrize("seed", SEEDS)
async def test_after_any_day_every_unit_coupon_and_point_is_where_it_belongs(
    served: Served, seed: int
) -> None:
    day = Day(served, seed)
    for _ in range(STEPS):
        await day.step()
    await day.till.settle()
    await served.engine.pool.execute("UPDATE checkouts SET created_at = now() - interval '1 h'")
    await CheckoutSweeper(served.engine).sweep_once()
    await day.till.settle()
    assert len(day.orders) >= ORDERS_MIN, day.answers
    await check_books(served)
    assert await strays(served) == [], f"seed {seed}"


async def strays(served: Served) -> list[str]:
    """What is not where the orders say it is."""
    rows = await served.engine.pool.fetch(
        """
        WITH live AS (
            SELECT sale_id, reservation_id FROM orders
            WHERE status IN ('awaiting_payment', 'paid', 'shipped', 'delivered')
        )
        SELECT 'checkout ' || state || ' of ' || coalesce(status, 'no order') AS stray
        FROM checkouts LEFT JOIN orders USING (sale_id, reservation_id)
        WHERE state = 'started' OR (state = 'placed') <> (status IS NOT NULL)
           OR (checkouts.amount_minor <> orders.amount_minor)
        UNION ALL
        SELECT 'redemption ' || r.state FROM redemptions r
        LEFT JOIN live USING (sale_id, reservation_id)
        WHERE (r.state = 'taken') <> (live.sale_id IS NOT NULL)
        UNION ALL
        SELECT 'points ' || u.state FROM point_uses u
        LEFT JOIN live USING (sale_id, reservation_id)
        WHERE (u.state = 'taken') <> (live.sale_id IS NOT NULL)
        UNION ALL
        SELECT 'coupon used ' || used FROM coupons c
        WHERE used <> (SELECT count(*) FROM redemptions r WHERE r.code = c.code AND state = 'taken')
        UNION ALL
        SELECT 'balance ' || balance FROM point_balances b
        WHERE balance <> $1 - (SELECT coalesce(sum(points), 0) FROM point_uses u
                               WHERE u.user_id = b.user_id AND state = 'taken')
        """,
        GRANTED,
    )
    return [row["stray"] for row in rows]
