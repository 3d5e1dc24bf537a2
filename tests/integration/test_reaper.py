"""The reaper against real Postgres: deadlines, and payments that are under way."""

from engine.model import OrderStatus
from engine.payment.provider import ChargeStatus
from engine.reaper import PAYMENT_GRACE_SECONDS
from tests.integration.test_payments import OpenShop, open_shop

__all__ = ["open_shop"]


async def test_order_expires_at_its_deadline_and_not_before(open_shop: OpenShop) -> None:
    shop = await open_shop(reservation_seconds=60)
    (order,) = await shop.order(["ann"])
    assert await shop.expire(seconds=58) == 0
    assert await shop.expire(seconds=3) == 1
    assert await shop.status(order) == OrderStatus.EXPIRED
    assert await shop.stock() == (9, 1, 0)  # Redis follows, it does not lead.
    await shop.settle()
    assert await shop.stock() == (10, 0, 0)
    assert await shop.expire() == 0
    await shop.check_books()


async def test_released_units_sell_again(open_shop: OpenShop) -> None:
    shop = await open_shop(1)
    await shop.order(["ann"])
    await shop.expire()
    await shop.settle()
    (order,) = await shop.order(["bob"])
    await shop.pay(order, "bob")
    await shop.settle()
    assert await shop.counters() == (1, 1)
    await shop.check_books()


async def test_overdue_orders_are_expired_a_batch_at_a_time(open_shop: OpenShop) -> None:
    shop = await open_shop(250)
    await shop.order([f"u{n}" for n in range(250)], "phone-black*1")
    passes = [await shop.expire(), await shop.reaper.reap_once(), await shop.reaper.reap_once()]
    assert passes == [100, 100, 50]
    lines = await shop.pool.fetchval("SELECT count(*) FROM ledger WHERE reason = 'expired'")
    assert lines == 3  # One per SKU and batch, not one per order.
    await shop.settle()
    await shop.check_books()


async def test_paid_order_never_expires(open_shop: OpenShop) -> None:
    shop = await open_shop()
    (order,) = await shop.order(["ann"])
    await shop.pay(order, "ann")
    await shop.settle()
    assert await shop.expire() == 0
    assert await shop.status(order) == OrderStatus.PAID


async def test_open_payment_is_asked_for_before_its_order_expires(open_shop: OpenShop) -> None:
    shop = await open_shop()
    shop.provider.answer = ChargeStatus.PENDING
    (order,) = await shop.order(["ann"])
    payment = await shop.pay(order, "ann")
    await shop.settle()
    # As if both had happened a quarter of an hour ago.
    await shop.pool.execute("UPDATE orders SET reserved_until = now()")
    await shop.pool.execute("UPDATE payments SET updated_at = now() - interval '15 minutes'")
    assert await shop.expire(seconds=1) == 0
    shop.provider.become(payment.payment_id, ChargeStatus.CAPTURED)
    assert await shop.payer.query_once() == 1
    assert await shop.status(order) == OrderStatus.PAID
    await shop.settle()
    await shop.check_books()


async def test_order_whose_payment_is_still_open_when_asked_expires(open_shop: OpenShop) -> None:
    shop = await open_shop()
    shop.provider.answer = ChargeStatus.PENDING
    (order,) = await shop.order(["ann"])
    await shop.pay(order, "ann")
    await shop.settle()
    await shop.pool.execute("UPDATE orders SET reserved_until = now()")
    await shop.pool.execute("UPDATE payments SET updated_at = now() - interval '15 minutes'")
    await shop.payer.query_once()
    assert await shop.expire(seconds=1) == 1
    assert await shop.status(order) == OrderStatus.EXPIRED


async def test_silent_provider_holds_an_expiry_up_for_a_bounded_time(open_shop: OpenShop) -> None:
    shop = await open_shop()
    (order,) = await shop.order(["ann"])
    await shop.pay(order, "ann")
    shop.provider.down = True
    await shop.payer.pay_once()
    await shop.pool.execute("UPDATE orders SET reserved_until = now()")
    await shop.pool.execute("UPDATE payments SET updated_at = now() - interval '15 minutes'")
    await shop.payer.query_once()
    assert await shop.expire(seconds=1) == 0
    assert await shop.expire(seconds=PAYMENT_GRACE_SECONDS) == 1
    assert await shop.status(order) == OrderStatus.EXPIRED
