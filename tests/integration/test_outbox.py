"""The outbox against real Postgres, and the dispatcher that tells Redis what it says."""

import asyncio
import logging

import pytest

from engine.dispatcher import BATCH_MAX
from engine.errors import RedisUnavailable
from engine.inventory import Inventory, SaleRef
from engine.store import outbox
from engine.store.database import Pool
from engine.store.outbox import ATTEMPTS_MAX, POSTPONE_SECONDS_MAX, Message
from tests.integration.test_payments import OpenShop, open_shop
from tests.support.shop import Shop

__all__ = ["open_shop"]

ALL = ("capture", "pay", "refund", "late_capture", "confirm", "release", "restock")


async def put(pool: Pool, count: int, kind: str = "pay") -> None:
    async with pool.acquire() as connection:
        await outbox.put(connection, kind, [("demo", f"pay_{n}") for n in range(count)])


async def take(pool: Pool, count: int = 10, lease_seconds: float = 60) -> list[Message]:
    async with pool.acquire() as connection:
        return await outbox.take(connection, ALL, count=count, lease_seconds=lease_seconds)


async def test_takers_share_the_messages_and_none_gets_one_twice(pool: Pool) -> None:
    await put(pool, 50)
    shares = await asyncio.gather(*(take(pool) for _ in range(6)))
    taken = [message.message_id for share in shares for message in share]
    assert len(taken) == len(set(taken)) == 50


async def test_message_of_a_dead_taker_is_due_again(pool: Pool) -> None:
    await put(pool, 1)
    assert [m.attempts for m in await take(pool, lease_seconds=0)] == [1]
    assert [m.attempts for m in await take(pool)] == [2]
    assert await take(pool) == []


async def test_postponing_backs_off_within_bounds_and_never_buries(pool: Pool) -> None:
    await put(pool, 1)
    pauses = []
    async with pool.acquire() as connection:
        for _ in range(ATTEMPTS_MAX + 5):
            async with connection.transaction():  # Within one, now() stands still.
                await connection.execute("UPDATE outbox SET due_at = now()")
                messages = await outbox.take(connection, ALL, count=10, lease_seconds=60)
                await outbox.postpone(connection, messages, "away")
                pauses.append(
                    await connection.fetchval(
                        "SELECT extract(epoch FROM due_at - now()) FROM outbox"
                    )
                )
    rounded = [round(float(seconds), 1) for seconds in pauses]
    assert rounded[:4] == [0.2, 0.4, 0.8, 1.6]
    assert set(rounded[4:]) == {POSTPONE_SECONDS_MAX}
    assert await pool.fetchval("SELECT count(*) FROM dead_letters") == 0


async def test_hopeless_message_becomes_a_dead_letter_and_an_alarm(
    pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    await put(pool, 1)
    async with pool.acquire() as connection:
        for _ in range(ATTEMPTS_MAX):
            assert await pool.fetchval("SELECT count(*) FROM dead_letters") == 0
            await connection.execute("UPDATE outbox SET due_at = now()")
            await outbox.fail(connection, await take(pool), "it does not work")
    assert await pool.fetchval("SELECT count(*) FROM outbox") == 0
    assert await pool.fetchval("SELECT error FROM dead_letters") == "it does not work"
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def paid_orders(shop: Shop, count: int) -> None:
    """Postgres has them paid; Redis has not heard of it."""
    users = [f"u{n}" for n in range(count)]
    for order, user in zip(await shop.order(users), users, strict=True):
        await shop.pay(order, user)
    await shop.payer.pay_once()
    assert await shop.counters() == (count, count)
    assert await shop.stock() == (shop.sale.items[0].units - count, count, 0)


async def test_kill_between_commit_and_redis_is_caught_up(open_shop: OpenShop) -> None:
    shop = await open_shop()
    await paid_orders(shop, 5)
    assert await shop.dispatcher.dispatch_once() == 5
    assert await shop.stock() == (5, 0, 5)
    await shop.check_books()


async def test_kill_between_redis_and_the_outbox_changes_nothing_twice(
    open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = await open_shop()
    await paid_orders(shop, 5)
    with monkeypatch.context() as patch:
        patch.setattr(outbox, "finish", killed)
        with pytest.raises(KilledHere):
            await shop.dispatcher.dispatch_once()
    assert await shop.stock() == (5, 0, 5)
    await shop.settle()
    assert await shop.stock() == (5, 0, 5)
    await shop.check_books()


class KilledHere(BaseException):
    """Nothing catches it, as nothing catches kill -9."""


async def killed(*_: object) -> None:
    raise KilledHere


async def test_dispatcher_waits_for_redis_and_comes_back(
    open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = await open_shop()
    await paid_orders(shop, 3)
    with monkeypatch.context() as patch:
        patch.setattr(Inventory, "confirm", unavailable)
        for _ in range(ATTEMPTS_MAX + 5):
            await shop.pool.execute("UPDATE outbox SET due_at = now()")
            assert await shop.dispatcher.dispatch_once() == 3
    assert await shop.pool.fetchval("SELECT count(*) FROM dead_letters") == 0
    await shop.settle()
    await shop.check_books()


async def unavailable(*_: object) -> list[str]:
    raise RedisUnavailable("away")


async def test_dispatcher_waits_while_a_sale_is_fenced_in_redis(open_shop: OpenShop) -> None:
    shop = await open_shop()
    await paid_orders(shop, 3)
    raised = SaleRef("demo", shop.sale.epoch + 1)
    await shop.inventory.fence(raised)
    assert await shop.dispatcher.dispatch_once() == 3
    assert await shop.pool.fetchval("SELECT count(*) FROM outbox") == 3
    assert (
        await shop.pool.fetchval("SELECT DISTINCT last_error FROM outbox") == "the sale is fenced"
    )
    # Recovered: the epoch is raised in Postgres too, and the stock is there again.
    await shop.pool.execute("UPDATE sales SET epoch = epoch + 1")
    stock = (await shop.inventory.snapshot("demo")).stock
    assert await shop.inventory.launch(raised, shop.sale.settings, stock) == "LAUNCHED"
    await shop.settle()
    await shop.check_books()


async def test_reservation_that_redis_lost_is_counted_and_dropped(
    open_shop: OpenShop, caplog: pytest.LogCaptureFixture
) -> None:
    shop = await open_shop()
    await paid_orders(shop, 2)
    await shop.redis.delete("sale:{demo.0}:buyers")
    assert await shop.dispatcher.dispatch_once() == 2
    assert await shop.pool.fetchval("SELECT count(*) FROM outbox") == 0
    assert "does not know 2 reservations of demo" in caplog.text


async def test_restock_message_brings_the_newest_total(open_shop: OpenShop) -> None:
    shop = await open_shop()
    await shop.directory.get("demo")
    await shop.pool.execute("UPDATE sale_items SET stocked = 25 WHERE sku = 'phone-white'")
    async with shop.pool.acquire() as connection:
        await outbox.put(connection, "restock", [("demo", "phone-white")])
    assert await shop.dispatcher.dispatch_once() == 1
    assert await shop.stock("phone-white") == (25, 0, 0)


async def test_fenced_sales_messages_hold_up_nobody_elses(open_shop: OpenShop) -> None:
    shop = await open_shop()
    async with shop.pool.acquire() as connection:
        await outbox.put(connection, "confirm", [("shut", f"r{n}") for n in range(2 * BATCH_MAX)])
        await outbox.put(connection, "late_capture", [("shut", "pay_late")])
    await shop.pool.execute(
        """
        INSERT INTO sales (sale_id, name, opens_at, closes_at, per_user_max, reservation_seconds,
                           auto_capture, state, fenced)
        SELECT 'shut', name, opens_at, closes_at, 1, 60, false, 'open', 'a test' FROM sales
        """
    )
    await paid_orders(shop, 3)
    assert await shop.dispatcher.dispatch_once() == 3
    assert await shop.stock() == (7, 0, 3)
    async with shop.pool.acquire() as connection:
        await outbox.put(connection, "refund", [("shut", "pay_back")])
    assert [m.kind for m in await take(shop.pool)] == ["refund"]  # Money needs no stock.
    await shop.pool.execute("UPDATE sales SET fenced = NULL")
    assert len(await take(shop.pool)) == 10
