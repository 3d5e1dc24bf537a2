"""Ordinary stock: taken all or nothing, given back once, told when it ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from engine.clock import SystemClock
from engine.errors import Conflict, UnknownReservation
from engine.model import SHOP, OrderStatus
from engine.payment.provider import ChargeStatus
from engine.reconciler.queues import check_money
from engine.reconciler.shop import check_shop
from engine.servers import EmbeddedValkey
from engine.shelf import Placed, Shelf, ShelfSoldOut, Wish
from engine.store.database import Pool
from tests.support.shop import Shop

HOLD_SECONDS = 900


@pytest.fixture
async def shelf(pool: Pool) -> Shelf:
    """Three mugs and two plates."""
    made = Shelf(pool, SystemClock(), checkout_seconds=HOLD_SECONDS)
    await made.restock("mug", 3, "op", "first")
    await made.restock("plate", 2, "op", "second")
    return made


def wish(number: int, user: str = "u1", **items: int) -> Wish:
    return Wish(f"{number:020}", user, items or {"mug": 1}, 1200, "CNY")


async def place(pool: Pool, shelf: Shelf, wish: Wish) -> Placed | ShelfSoldOut:
    async with pool.acquire() as connection, connection.transaction():
        return await shelf.place(connection, wish)


async def counters(pool: Pool, sku: str = "mug") -> tuple[int, int, int]:
    row = await pool.fetchrow(
        "SELECT stocked, ordered, sold FROM sale_items WHERE sale_id = 'shop' AND sku = $1", sku
    )
    return row["stocked"], row["ordered"], row["sold"]


async def told(pool: Pool) -> list[tuple[str, str]]:
    rows = await pool.fetch(
        "SELECT type, data ->> 'sku' AS sku FROM events WHERE type LIKE 'stock.%' ORDER BY event_id"
    )
    return [(row["type"], row["sku"]) for row in rows]


async def check_books(pool: Pool) -> None:
    """Counters, orders, ledger and payments of the shop tell the same."""
    async with pool.acquire() as connection:
        evidence = await check_shop(connection)
        evidence.add(await check_money(connection, [SHOP]))
    assert evidence.clean, dict(evidence.problems)


async def test_an_order_of_the_shop_holds_its_units_until_its_deadline(
    pool: Pool, shelf: Shelf
) -> None:
    placed = await place(pool, shelf, wish(1, mug=2, plate=1))
    assert isinstance(placed, Placed)
    row = await pool.fetchrow("SELECT * FROM orders")
    assert (row["sale_id"], row["status"], row["items"]) == (
        SHOP,
        "awaiting_payment",
        {"mug": 2, "plate": 1},
    )
    assert row["reserved_until"] - row["reserved_at"] == timedelta(seconds=HOLD_SECONDS)
    assert (await counters(pool), await counters(pool, "plate")) == ((3, 2, 0), (2, 1, 0))
    await check_books(pool)


async def test_all_units_are_taken_or_none(pool: Pool, shelf: Shelf) -> None:
    assert await place(pool, shelf, wish(1, mug=1, plate=3)) == ShelfSoldOut("plate")
    assert await place(pool, shelf, wish(2, mug=1, spoon=1)) == ShelfSoldOut("spoon")
    assert await counters(pool) == (3, 0, 0)
    assert await pool.fetchval("SELECT count(*) FROM orders") == 0


async def test_the_same_id_is_the_same_order_however_often_it_is_asked_for(
    pool: Pool, shelf: Shelf
) -> None:
    answers = await asyncio.gather(*(place(pool, shelf, wish(1, mug=3)) for _ in range(5)))
    assert {type(answer) for answer in answers} == {Placed}
    assert sorted(answer.replayed for answer in answers if isinstance(answer, Placed)) == [
        False,
        *[True] * 4,
    ]
    assert await counters(pool) == (3, 3, 0)
    await check_books(pool)


async def test_the_last_unit_goes_to_exactly_one_of_a_crowd(pool: Pool, shelf: Shelf) -> None:
    wishes = [wish(n, f"u{n}", mug=1, plate=1) for n in range(20)]
    answers = await asyncio.gather(*(place(pool, shelf, w) for w in wishes))
    assert sum(isinstance(answer, Placed) for answer in answers) == 2
    assert answers.count(ShelfSoldOut("plate")) == 18
    await check_books(pool)


async def test_orders_of_the_same_things_in_any_order_never_wait_in_a_circle(
    pool: Pool, shelf: Shelf
) -> None:
    await shelf.restock("mug", 100, "op")
    await shelf.restock("plate", 100, "op")
    wishes = [wish(n, mug=1, plate=1) if n % 2 else wish(n, plate=1, mug=1) for n in range(40)]
    answers = await asyncio.gather(*(place(pool, shelf, w) for w in wishes))
    assert all(isinstance(answer, Placed) for answer in answers)
    assert await counters(pool) == (103, 40, 0)


async def test_a_restock_with_one_key_counts_once(pool: Pool, shelf: Shelf) -> None:
    totals = await asyncio.gather(*(shelf.restock("mug", 5, "op", "k") for _ in range(4)))
    assert totals == [8] * 4
    for sku, units in (("mug", 6), ("plate", 5)):
        with pytest.raises(Conflict) as refused:
            await shelf.restock(sku, units, "op", "k")
        assert refused.value.code == "idempotency_mismatch"
    rows = await pool.fetch("SELECT actor, action, detail FROM audit_log WHERE sale_id = 'shop'")
    assert [dict(row["detail"]) for row in rows][2:] == [{"sku": "mug", "units": 5, "stocked": 8}]
    await check_books(pool)


async def test_what_is_ordered_is_never_written_off(pool: Pool, shelf: Shelf) -> None:
    await place(pool, shelf, wish(1, mug=2))
    assert await shelf.write_off("mug", 1, "op", "w1") == 2
    assert await shelf.write_off("mug", 1, "op", "w1") == 2
    for sku, units in (("mug", 1), ("plate", 3), ("spoon", 1)):
        with pytest.raises(Conflict) as refused:
            await shelf.write_off(sku, units, "op")
        assert refused.value.code == "sold_out"
    assert await counters(pool) == (2, 2, 0)
    await check_books(pool)


async def test_that_a_sku_is_sold_out_or_back_is_told_once(pool: Pool, shelf: Shelf) -> None:
    assert await told(pool) == [("stock.restocked", "mug"), ("stock.restocked", "plate")]
    await place(pool, shelf, wish(1, mug=2))
    await place(pool, shelf, wish(2, mug=1))
    await place(pool, shelf, wish(3, mug=1))
    assert await told(pool) == [
        ("stock.restocked", "mug"),
        ("stock.restocked", "plate"),
        ("stock.sold_out", "mug"),
    ]
    await shelf.restock("mug", 1, "op")
    await shelf.restock("mug", 1, "op")
    assert (await told(pool))[3:] == [("stock.restocked", "mug")]


async def test_the_check_names_what_is_wrong_with_the_shop(pool: Pool, shelf: Shelf) -> None:
    await place(pool, shelf, wish(1))
    checkout = """
        INSERT INTO checkouts (sale_id, reservation_id, user_id, idempotency_key, request_hash,
                               amount_minor, currency, quote, language, state, created_at)
        VALUES ('shop', $1, 'u1', $1, '', 1, 'CNY', '{}', 'en', $2, now() - interval '1 h')
        """
    for number, state in ((1, "placed"), (2, "placed"), (3, "started"), (4, "dropped")):
        await pool.execute(checkout, f"{number:020}", state)
    await pool.execute("UPDATE orders SET status = 'paid'")  # At other terms than its checkout's.
    await pool.execute("UPDATE sale_items SET ordered = 2, sold = 1 WHERE sku = 'mug'")
    async with pool.acquire() as connection:
        evidence = await check_shop(connection)
    assert dict(evidence.problem_counts) == {1: 1, 3: 2, 6: 1, 11: 2}, dict(evidence.problems)


@pytest.fixture
async def shop(
    pool: Pool, redis: Redis, valkey: EmbeddedValkey, postgres_url: str
) -> AsyncIterator[Shop]:
    """A whole engine with a sale, and its ordinary stock: three mugs."""
    shop = await Shop.open(pool, redis, valkey.url, postgres_url, {"phone-black": 3})
    yield shop
    await shop.close()


@pytest.fixture
async def mugs(shop: Shop) -> Shelf:
    made = Shelf(shop.pool, shop.clock, checkout_seconds=HOLD_SECONDS)
    await made.restock("mug", 3, "op")
    return made


async def pay(shop: Shop, wish: Wish, key: str = "p") -> str:
    payment = await shop.payments.start(SHOP, wish.reservation_id, wish.user_id, "sandbox", {}, key)
    return payment.payment_id


async def test_an_order_of_the_shop_is_paid_and_refunded_like_any_other(
    shop: Shop, mugs: Shelf
) -> None:
    order = wish(1)
    await place(shop.pool, mugs, order)
    payment_id = await pay(shop, order)
    await shop.settle()
    assert await shop.status(order.reservation_id) == "paid"
    assert await counters(shop.pool) == (3, 1, 1)
    await shop.payments.request_refund(payment_id, "u1")
    await shop.settle()
    assert await shop.status(order.reservation_id) == "refunded"
    assert await counters(shop.pool) == (3, 0, 0)
    assert await shop.pool.fetchval("SELECT count(*) FROM outbox") == 0
    await check_books(shop.pool)


async def test_a_cancelled_order_of_the_shop_gives_its_units_back_once(
    shop: Shop, mugs: Shelf
) -> None:
    order = wish(1, mug=3)
    await place(shop.pool, mugs, order)
    with pytest.raises(UnknownReservation):
        await shop.orders.cancel(SHOP, order.reservation_id, "somebody-else")
    for _ in range(2):
        status = await shop.orders.cancel(SHOP, order.reservation_id, "u1")
        assert status is OrderStatus.CANCELLED
    with pytest.raises(UnknownReservation):
        await shop.orders.cancel(SHOP, "9" * 20, "u1")
    assert await counters(shop.pool) == (3, 0, 0)
    await check_books(shop.pool)


async def test_a_late_payment_takes_units_of_the_shop_again_or_goes_back(
    shop: Shop, mugs: Shelf
) -> None:
    shop.provider.answer = ChargeStatus.PENDING
    revived, refused = wish(1, mug=1), wish(2, mug=2)
    for order in (revived, refused):
        await place(shop.pool, mugs, order)
    payments = [await pay(shop, order) for order in (revived, refused)]
    await shop.settle()
    assert await shop.expire() == 2
    assert await counters(shop.pool) == (3, 0, 0)
    await place(shop.pool, mugs, wish(3, "u3", mug=2))
    for payment_id in payments:
        shop.provider.become(payment_id, ChargeStatus.CAPTURED)
        await shop.tell(payment_id, ChargeStatus.CAPTURED)
    await shop.settle()
    assert await shop.status(revived.reservation_id) == "paid"
    assert await shop.status(refused.reservation_id) == "expired"
    assert await shop.payment_status(payments[1]) == "refunded"
    assert await counters(shop.pool) == (3, 3, 1)
    await check_books(shop.pool)


async def test_cancel_against_payment_against_expiry_is_one_fate(shop: Shop, mugs: Shelf) -> None:
    for turn in range(6):
        await race(shop, mugs, wish(turn, mug=1), turn)
    await check_books(shop.pool)


async def race(shop: Shop, mugs: Shelf, order: Wish, turn: int) -> None:
    """One order, whose end several are at, each time another of them first."""
    before = await counters(shop.pool)
    if before[0] == before[1]:
        await mugs.restock("mug", 1, "op")
        before = await counters(shop.pool)
    await place(shop.pool, mugs, order)
    payment_id = await pay(shop, order)
    shop.clock.advance(seconds=10_000)

    async def cancel() -> None:
        with suppress(Conflict):
            await shop.orders.cancel(SHOP, order.reservation_id, "u1")

    racers = [cancel(), shop.payer.pay_once(), shop.reaper.reap_once()]
    await asyncio.gather(*racers[turn % 3 :], *racers[: turn % 3])
    await shop.settle()
    paid = await shop.status(order.reservation_id) == "paid"
    assert await shop.payment_status(payment_id) == "captured" or not paid
    stocked, ordered, sold = before
    assert await counters(shop.pool) == (stocked, ordered + paid, sold + paid)
