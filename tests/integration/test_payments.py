"""Payments, cancellations and refunds against real Postgres and Valkey; the provider obeys the test."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from redis.asyncio import Redis

from api.http_client import TIMEOUT_SECONDS as HTTP_SECONDS_MAX
from engine.errors import Conflict, ProviderUnavailable, UnknownReservation
from engine.keys import shard_keys
from engine.model import OrderStatus, PaymentStatus
from engine.payment import payer, settlement
from engine.payment.late import LateCaptures
from engine.payment.payer import QUERY_BATCH_MAX
from engine.payment.provider import (
    Action,
    ActionKind,
    Charge,
    ChargeStatus,
    PaymentRequest,
    ProviderRefused,
    ProviderResult,
)
from engine.payment.webhooks import ATTEMPTS_MAX as WEBHOOK_ATTEMPTS_MAX
from engine.payment.webhooks import Inbox
from engine.recovery import recover
from engine.servers import EmbeddedValkey
from engine.store import outbox
from engine.store.database import Pool
from engine.store.resolutions import OrderKey, lock_orders, resolve
from tests.support.shop import Shop
from tests.support.truth import opened_engine
from tests.support.waiting import until

OpenShop = Callable[..., Awaitable[Shop]]

STEPS = (
    *("reserve", "reserve", "pay", "pay", "cancel", "refund", "tell", "expire"),
    *("work", "work", "work"),
)
CAPTURED, PENDING, FAILED = ChargeStatus.CAPTURED, ChargeStatus.PENDING, ChargeStatus.FAILED


@pytest.fixture
async def open_shop(
    pool: Pool, redis: Redis, valkey: EmbeddedValkey, postgres_url: str
) -> AsyncIterator[OpenShop]:
    shops: list[Shop] = []

    async def make(units: int = 10, **changes: object) -> Shop:
        stock = {"phone-black": units, "phone-white": units}
        shops.append(await Shop.open(pool, redis, valkey.url, postgres_url, stock, **changes))
        return shops[-1]

    yield make
    for shop in shops:
        await shop.close()


async def test_captured_payment_pays_the_order_and_sells_its_units(open_shop: OpenShop) -> None:
    shop = await open_shop()
    (order,) = await shop.order(["ann"], "phone-black*2")
    payment = await shop.pay(order, "ann")
    assert (payment.status, payment.amount.amount_minor) == (PaymentStatus.CREATED, 259_800)
    await shop.settle()
    assert await shop.status(order) == OrderStatus.PAID
    assert await shop.payment_status(payment.payment_id) == "captured"
    assert await shop.stock() == (8, 0, 2)
    await shop.check_books()


async def test_same_key_gives_the_same_payment_and_another_body_is_refused(
    open_shop: OpenShop,
) -> None:
    shop = await open_shop()
    (order,) = await shop.order(["ann"])
    first = await shop.pay(order, "ann", key="once")
    assert await shop.pay(order, "ann", key="once") == first
    await shop.settle()
    assert (await shop.pay(order, "ann", key="once")).status == PaymentStatus.CAPTURED
    with pytest.raises(Conflict) as mismatch:
        await shop.payments.start("demo", order, "ann", "sandbox", {"scenario": "fail"}, "once")
    assert mismatch.value.code == "idempotency_mismatch"
    assert shop.provider.calls["create"] == 1


async def test_buyer_key_auto_is_not_the_engines_own(open_shop: OpenShop) -> None:
    shop = await open_shop(auto_capture=True)
    (order,) = await shop.order(["ann"])
    shop.provider.answer = FAILED
    await shop.pay(order, "ann", key="auto")
    await shop.settle()
    assert len(shop.provider.charges) == 2
    await shop.check_books()


async def test_only_the_buyers_own_awaiting_order_can_be_paid(open_shop: OpenShop) -> None:
    shop = await open_shop()
    (order,) = await shop.order(["ann"])
    with pytest.raises(UnknownReservation):
        await shop.pay(order, "eve")
    await shop.orders.cancel("demo", order, "ann")
    with pytest.raises(Conflict) as refused:
        await shop.pay(order, "ann")
    assert refused.value.code == "order_not_payable"


async def test_auto_capture_pays_every_drained_order(open_shop: OpenShop) -> None:
    shop = await open_shop(300, auto_capture=True)
    await shop.order([f"u{n}" for n in range(300)])
    await shop.settle()
    assert await shop.counters() == (300, 300)
    assert shop.provider.count(CAPTURED) == 300
    await shop.check_books()


async def test_failed_auto_capture_cancels_and_releases(open_shop: OpenShop) -> None:
    shop = await open_shop(auto_capture=True)
    shop.provider.answer = FAILED
    (order,) = await shop.order(["ann"])
    await shop.settle()
    assert await shop.status(order) == OrderStatus.CANCELLED
    reason = await shop.pool.fetchval("SELECT status_reason FROM orders")
    assert reason == "payment_failed"
    assert await shop.stock() == (10, 0, 0)
    await shop.check_books()


async def test_failed_payment_of_a_buyer_leaves_time_for_another(open_shop: OpenShop) -> None:
    shop = await open_shop()
    (order,) = await shop.order(["ann"])
    shop.provider.answer = FAILED
    await shop.pay(order, "ann", key="first")
    await shop.settle()
    assert await shop.status(order) == OrderStatus.AWAITING_PAYMENT
    shop.provider.answer = CAPTURED
    await shop.pay(order, "ann", key="second")
    await shop.settle()
    assert await shop.status(order) == OrderStatus.PAID
    await shop.check_books()


async def test_provider_down_and_back_charges_each_order_once(open_shop: OpenShop) -> None:
    shop = await open_shop(20, auto_capture=True)
    shop.provider.down = True
    await shop.order([f"u{n}" for n in range(20)])
    for _ in range(30):  # More often than any message may fail.
        await shop.payer.pay_once()
        await shop.pool.execute("UPDATE outbox SET due_at = now()")
    assert await shop.pool.fetchval("SELECT count(*) FROM dead_letters") == 0
    shop.provider.down = False
    await shop.settle()
    assert (await shop.counters(), shop.provider.count(CAPTURED)) == ((20, 20), 20)
    await shop.check_books()


async def test_lost_answer_is_asked_again_and_charges_once(open_shop: OpenShop) -> None:
    shop = await open_shop()
    (order,) = await shop.order(["ann"])
    await shop.pay(order, "ann")
    shop.provider.loses_answers = True
    await shop.payer.pay_once()
    assert await shop.status(order) == OrderStatus.AWAITING_PAYMENT
    shop.provider.loses_answers = False
    await shop.settle()
    assert await shop.status(order) == OrderStatus.PAID
    assert shop.provider.count(CAPTURED) == 1
    await shop.check_books()


async def test_payment_nobody_told_of_is_found_by_asking(open_shop: OpenShop) -> None:
    shop = await open_shop()
    (order,) = await shop.order(["ann"])
    shop.provider.answer = PENDING
    payment = await shop.pay(order, "ann")
    await shop.settle()
    shop.provider.become(payment.payment_id, CAPTURED)
    assert await shop.payer.query_once() == 0  # It is early yet.
    await shop.pool.execute("UPDATE payments SET updated_at = now() - interval '1 minute'")
    assert await shop.payer.query_once() == 1
    await shop.settle()
    assert await shop.status(order) == OrderStatus.PAID
    await shop.check_books()


async def test_payments_without_an_answer_keep_none_from_being_asked_about(
    open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = await open_shop(100)
    shop.provider.answer = PENDING
    users = [f"u{n}" for n in range(QUERY_BATCH_MAX + 1)]
    orders = await shop.order(users)
    payments = [await shop.pay(*pair) for pair in zip(orders, users, strict=True)]
    await shop.settle()
    last = payments[-1].payment_id
    await shop.pool.execute(
        "UPDATE payments SET updated_at = now() - CASE payment_id WHEN $1 THEN interval '50 s' "
        "ELSE interval '1 minute' END",
        last,
    )
    shop.provider.become(last, CAPTURED)
    query = shop.provider.query

    async def answer_for_one(charge: Charge) -> ProviderResult:
        if charge.payment_id != last:
            raise ProviderUnavailable("not for this one")
        return await query(charge)

    monkeypatch.setattr(shop.provider, "query", answer_for_one)
    assert [await shop.payer.query_once() for _ in range(3)] == [0, 1, 0]
    assert await shop.status(orders[-1]) == OrderStatus.PAID
    heard = "SELECT count(*) FROM payments WHERE updated_at > now() - interval '30 s'"
    assert await shop.pool.fetchval(heard) == 1  # To ask is not to hear.


@pytest.mark.parametrize("auto_capture", [True, False])
async def test_charge_on_its_way_is_not_taken_for_one_that_was_never_made(
    open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch, auto_capture: bool
) -> None:
    shop = await open_shop(auto_capture=auto_capture)
    (order,) = await shop.order(["ann"])
    if not auto_capture:
        await shop.pay(order, "ann")
    begun, arrives = asyncio.Event(), asyncio.Event()
    create = shop.provider.create

    async def create_slowly(request: PaymentRequest) -> ProviderResult:
        begun.set()
        await arrives.wait()
        return await create(request)

    monkeypatch.setattr(shop.provider, "create", create_slowly)
    paying = asyncio.create_task(shop.payer.pay_once())
    await begun.wait()
    await shop.pool.execute("UPDATE orders SET reserved_until = now()")
    await shop.payer.query_once()
    assert shop.provider.calls["query"] == 1
    assert await shop.pool.fetchval("SELECT status FROM payments") == "created"
    arrives.set()
    await paying
    assert await shop.status(order) == OrderStatus.PAID
    await shop.settle()
    await shop.check_books()


async def test_charge_tried_a_moment_ago_is_asked_about_again_before_it_is_given_up(
    open_shop: OpenShop,
) -> None:
    shop = await open_shop()
    (order,) = await shop.order(["ann"])
    payment = await shop.pay(order, "ann")
    shop.provider.down = True
    await shop.payer.pay_once()
    shop.provider.down = False
    await shop.orders.cancel("demo", order, "ann")
    await shop.pool.execute("UPDATE outbox SET due_at = now()")
    assert await shop.payer.pay_once() == 1
    assert await shop.payment_status(payment.payment_id) == "created"
    await shop.settle()  # Half a minute later.
    assert await shop.payment_status(payment.payment_id) == "failed"
    await shop.check_books()


async def test_call_ends_before_its_message_is_taken_again(
    open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert payer.BEGIN_SECONDS_MAX + payer.CALL_SECONDS_MAX < payer.LEASE_SECONDS
    assert payer.CALL_SECONDS_MAX > HTTP_SECONDS_MAX
    shop = await open_shop()
    (order,) = await shop.order(["ann"])
    await shop.pay(order, "ann")
    with monkeypatch.context() as patch:
        patch.setattr(payer, "BEGIN_SECONDS_MAX", -1.0)
        assert await shop.payer.pay_once() == 1
    assert shop.provider.calls == {}
    with monkeypatch.context() as patch:
        patch.setattr(payer, "CALL_SECONDS_MAX", 0.01)
        patch.setattr(shop.provider, "create", never)
        await shop.pool.execute("UPDATE outbox SET due_at = now()")
        async with asyncio.timeout(10):
            assert await shop.payer.pay_once() == 1
    await shop.settle()
    assert await shop.status(order) == OrderStatus.PAID


async def never(_: object) -> ProviderResult:
    return await asyncio.Event().wait()  # type: ignore[return-value]


async def test_wrong_amount_is_refunded_and_raises_an_alarm(open_shop: OpenShop) -> None:
    shop = await open_shop()
    (order,) = await shop.order(["ann"])
    shop.provider.answer = PENDING
    payment = await shop.pay(order, "ann")
    await shop.settle()
    shop.provider.become(payment.payment_id, CAPTURED)
    await shop.tell(payment.payment_id, CAPTURED, amount_minor=1)
    await shop.settle()
    assert await shop.status(order) == OrderStatus.AWAITING_PAYMENT
    assert await shop.payment_status(payment.payment_id) == "refunded"
    assert await shop.pool.fetchval("SELECT reference FROM dead_letters") == payment.payment_id
    await shop.check_books()


async def test_authorized_charge_is_captured_once_however_often_it_is_told(
    open_shop: OpenShop,
) -> None:
    shop = await open_shop()
    (order,) = await shop.order(["ann"])
    shop.provider.answer = ChargeStatus.AUTHORIZED
    payment = await shop.pay(order, "ann")
    await shop.payer.pay_once()
    for _ in range(2):
        await shop.tell(payment.payment_id, ChargeStatus.AUTHORIZED)
        await shop.inbox.handle_once()
    assert await shop.pool.fetchval("SELECT count(*) FROM outbox WHERE kind = 'collect'") == 1
    await shop.settle()
    assert await shop.status(order) == OrderStatus.PAID
    assert shop.provider.calls["capture"] == 1
    await shop.check_books()


@pytest.mark.parametrize("why", ["cancelled", "wrong amount", "paid by another"])
async def test_authorized_charge_that_is_not_wanted_is_let_go(
    open_shop: OpenShop, why: str
) -> None:
    shop = await open_shop()
    (order,) = await shop.order(["ann"])
    shop.provider.answer = PENDING
    payment = await shop.pay(order, "ann")
    await shop.settle()
    shop.provider.become(payment.payment_id, ChargeStatus.AUTHORIZED)
    if why == "cancelled":
        await shop.orders.cancel("demo", order, "ann")
    elif why == "paid by another":
        shop.provider.answer = CAPTURED
        await shop.pay(order, "ann", key="other")
        await shop.settle()
    amount = 1 if why == "wrong amount" else 129_900
    await shop.tell(payment.payment_id, ChargeStatus.AUTHORIZED, amount_minor=amount)
    await shop.settle()
    assert await shop.payment_status(payment.payment_id) == "failed"
    assert shop.provider.count(ChargeStatus.AUTHORIZED) == 0
    assert (shop.provider.calls["capture"], shop.provider.calls["cancel"]) == (0, 1)
    letters = await shop.pool.fetchval("SELECT count(*) FROM dead_letters")
    assert letters == (1 if why == "wrong amount" else 0)
    await shop.check_books()


async def test_action_that_comes_after_the_cancellation_is_taken_back(
    open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = await open_shop()
    (order,) = await shop.order(["ann"])
    shop.provider.answer = PENDING
    shop.provider.action = Action(ActionKind.REDIRECT, url="https://gateway/pay")
    payment = await shop.pay(order, "ann")
    create = shop.provider.create

    async def create_while_it_is_cancelled(request: PaymentRequest) -> ProviderResult:
        await shop.orders.cancel("demo", order, "ann")
        return await create(request)

    monkeypatch.setattr(shop.provider, "create", create_while_it_is_cancelled)
    await shop.settle()
    assert await shop.payment_status(payment.payment_id) == "failed"
    assert shop.provider.calls["cancel"] == 1
    await shop.check_books()


async def test_second_capture_is_refunded_and_the_order_stays_paid(open_shop: OpenShop) -> None:
    shop = await open_shop()
    (order,) = await shop.order(["ann"])
    await shop.pay(order, "ann", key="first")
    await shop.pay(order, "ann", key="second")
    await shop.settle()
    assert await shop.status(order) == OrderStatus.PAID
    assert (shop.provider.count(CAPTURED), shop.provider.count(ChargeStatus.REFUNDED)) == (1, 1)
    await shop.check_books()


@pytest.mark.parametrize("order_of_events", [[0, 1, 1], [1, 0, 0], [1, 1, 0], [0, 0, 1]])
async def test_duplicate_and_reordered_webhooks_change_nothing(
    open_shop: OpenShop, order_of_events: list[int]
) -> None:
    shop = await open_shop()
    (order,) = await shop.order(["ann"])
    shop.provider.answer = PENDING
    payment = await shop.pay(order, "ann")
    await shop.settle()
    shop.provider.become(payment.payment_id, CAPTURED)
    events = [shop.provider.event(payment.payment_id, status) for status in (PENDING, CAPTURED)]
    for number in order_of_events:
        await shop.payments.receive_webhook("sandbox", *events[number])
        await shop.inbox.handle_once()
    await shop.settle()
    assert await shop.status(order) == OrderStatus.PAID
    assert await shop.pool.fetchval("SELECT count(*) FROM webhook_inbox") == 2
    assert (
        await shop.pool.fetchval("SELECT count(*) FROM webhook_inbox WHERE handled_at IS NULL") == 0
    )
    await shop.check_books()


async def test_webhooks_received_together_are_new_once(open_shop: OpenShop) -> None:
    shop = await open_shop()
    new = await asyncio.gather(
        *(shop.payments.receive_webhook("sandbox", f"evt_{n}", b"{}") for n in range(50))
    )
    again = await asyncio.gather(
        *(shop.payments.receive_webhook("sandbox", f"evt_{n}", b"{}") for n in range(50))
    )
    assert (sum(new), sum(again)) == (50, 0)


async def test_webhook_of_an_unknown_payment_ends_in_the_dead_letters(open_shop: OpenShop) -> None:
    shop = await open_shop()
    (order,) = await shop.order(["ann"])
    shop.provider.answer = PENDING
    payment = await shop.pay(order, "ann")
    await shop.settle()
    await shop.tell(payment.payment_id, CAPTURED, payment_id="pay_of_nobody")
    await shop.tell(payment.payment_id, CAPTURED)
    await shop.payments.receive_webhook("sandbox", "evt_garbage", b"\xff")
    for _ in range(WEBHOOK_ATTEMPTS_MAX):
        await shop.inbox.handle_once()
        await shop.pool.execute("UPDATE webhook_inbox SET received_at = now() - interval '1 hour'")
    letters = await shop.pool.fetch("SELECT reference, error FROM dead_letters ORDER BY letter_id")
    assert [letter["reference"] for letter in letters] == ["sandbox/evt_garbage", "sandbox/evt_1"]
    assert "no payment pay_of_nobody" in letters[1]["error"]
    assert await shop.status(order) == OrderStatus.PAID  # Its neighbours were not held up.
    assert await shop.inbox.handle_once() == 0


async def test_provider_is_no_witness_of_payments_with_another(open_shop: OpenShop) -> None:
    shop = await open_shop()
    (order,) = await shop.order(["ann"])
    shop.provider.answer = PENDING
    payment = await shop.pay(order, "ann")
    await shop.settle()
    inbox = Inbox(shop.pool, {"other": shop.provider})
    event_id, body = shop.provider.event(payment.payment_id, CAPTURED)
    await shop.payments.receive_webhook("other", event_id, body)
    await inbox.handle_once()
    assert await shop.payment_status(payment.payment_id) == "pending"
    error = await shop.pool.fetchval("SELECT last_error FROM webhook_inbox")
    assert error == f"no payment {payment.payment_id}"


@pytest.mark.parametrize("at_ms", [10**18, -(10**18), 10**30])
async def test_time_beyond_the_calendar_holds_no_money_up(open_shop: OpenShop, at_ms: int) -> None:
    shop = await open_shop()
    (order,) = await shop.order(["ann"])
    shop.provider.answer = PENDING
    payment = await shop.pay(order, "ann")
    await shop.settle()
    word = ProviderResult(payment.payment_id, CAPTURED, 129_900, "CNY", "ref", at_ms=at_ms)
    async with shop.pool.acquire() as connection, connection.transaction():
        await settlement.settle(connection, [word])
    assert await shop.status(order) == OrderStatus.PAID


async def test_refund_asked_twice_gives_units_back_once(open_shop: OpenShop) -> None:
    shop = await open_shop()
    (order,) = await shop.order(["ann"])
    payment = await shop.pay(order, "ann")
    with pytest.raises(Conflict) as early:
        await shop.payments.request_refund(payment.payment_id, "ann")
    assert early.value.code == "not_refundable"
    await shop.settle()
    await asyncio.gather(
        *(shop.payments.request_refund(payment.payment_id, "ann") for _ in range(4))
    )
    await shop.settle()
    await shop.payments.request_refund(payment.payment_id, "ann")
    await shop.tell(payment.payment_id, ChargeStatus.REFUNDED)
    await shop.settle()
    assert await shop.status(order) == OrderStatus.REFUNDED
    assert (await shop.stock(), await shop.counters()) == ((10, 0, 0), (0, 0))
    assert await shop.pool.fetchval("SELECT count(*) FROM audit_log WHERE action = 'refund'") == 1
    await shop.check_books()


async def test_refund_that_was_given_up_is_tried_again_when_asked_for_again(
    open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = await open_shop()
    (order,) = await shop.order(["ann"])
    payment = await shop.pay(order, "ann")
    await shop.settle()
    await shop.payments.request_refund(payment.payment_id, "ops")
    with monkeypatch.context() as patch:
        patch.setattr(shop.provider, "refund", refused)
        for _ in range(outbox.ATTEMPTS_MAX):
            await shop.pool.execute("UPDATE outbox SET due_at = now()")
            await shop.payer.pay_once()
    await shop.settle()
    assert await shop.payment_status(payment.payment_id) == "refunding"
    for _ in range(2):
        await shop.payments.request_refund(payment.payment_id, "ops")
    assert await shop.pool.fetchval("SELECT count(*) FROM outbox") == 1
    await shop.settle()
    assert await shop.payment_status(payment.payment_id) == "refunded"
    assert await shop.status(order) == OrderStatus.REFUNDED
    await shop.check_books()


async def refused(_: object) -> ProviderResult:
    raise ProviderRefused("not today")


@pytest.mark.parametrize("told_by", ["repeating", "asking"])
async def test_refund_that_takes_its_time_is_followed_to_its_end(
    open_shop: OpenShop, monkeypatch: pytest.MonkeyPatch, told_by: str
) -> None:
    shop = await open_shop()
    (order,) = await shop.order(["ann"])
    payment = await shop.pay(order, "ann")
    await shop.settle()
    await shop.payments.request_refund(payment.payment_id, "ops")
    with monkeypatch.context() as patch:
        patch.setattr(shop.provider, "refund", under_way)
        for _ in range(outbox.ATTEMPTS_MAX + 5):
            await shop.pool.execute("UPDATE outbox SET due_at = now()")
            assert await shop.payer.pay_once() == 1
    if told_by == "asking":
        shop.provider.become(payment.payment_id, ChargeStatus.REFUNDED)
        await shop.pool.execute("UPDATE payments SET updated_at = now() - interval '1 minute'")
        assert await shop.payer.query_once() == 1
        assert await shop.payment_status(payment.payment_id) == "refunded"
    await shop.settle()
    assert await shop.status(order) == OrderStatus.REFUNDED
    assert await shop.pool.fetchval("SELECT count(*) FROM dead_letters") == 0
    await shop.check_books()


async def under_way(charge: Charge) -> ProviderResult:
    return ProviderResult(charge.payment_id, PENDING)


async def late_payment(shop: Shop) -> tuple[str, str]:
    """(order, payment) of a buyer whose capture comes after the order expired."""
    shop.provider.answer = PENDING
    (order,) = await shop.order(["ann"])
    payment = await shop.pay(order, "ann")
    await shop.settle()
    assert await shop.expire() == 1
    await shop.settle()
    assert await shop.status(order) == OrderStatus.EXPIRED
    shop.provider.become(payment.payment_id, CAPTURED)
    return order, payment.payment_id


async def test_late_payment_takes_the_units_again_while_some_are_left(open_shop: OpenShop) -> None:
    shop = await open_shop(1)
    order, payment = await late_payment(shop)
    assert await shop.stock() == (1, 0, 0)
    await shop.tell(payment, CAPTURED)
    await shop.tell(payment, CAPTURED)
    await shop.settle()
    assert await shop.status(order) == OrderStatus.PAID
    assert (await shop.stock(), await shop.counters()) == ((0, 0, 1), (1, 1))
    await shop.check_books()


async def test_late_payment_is_refunded_when_the_units_are_gone(open_shop: OpenShop) -> None:
    shop = await open_shop(1)
    order, payment = await late_payment(shop)
    await shop.order(["bob"])
    await shop.tell(payment, CAPTURED)
    await shop.settle()
    assert await shop.status(order) == OrderStatus.EXPIRED
    assert await shop.payment_status(payment) == "refunded"
    assert await shop.pool.fetchval("SELECT detail FROM payments") == "late_and_sold_out"
    assert (await shop.stock(), await shop.counters()) == ((0, 1, 0), (1, 0))
    await shop.check_books()


async def test_late_payment_is_refunded_when_postgres_alone_says_no(open_shop: OpenShop) -> None:
    shop = await open_shop(1)
    order, payment = await late_payment(shop)
    # Somebody sold the unit where Redis does not know of it.
    await shop.pool.execute("UPDATE sale_items SET ordered = 1")
    await shop.tell(payment, CAPTURED)
    await shop.settle()
    await shop.pool.execute("UPDATE sale_items SET ordered = 0")
    assert await shop.status(order) == OrderStatus.EXPIRED
    assert await shop.payment_status(payment) == "refunded"
    assert await shop.stock() == (1, 0, 0)
    await shop.check_books()


async def test_late_payment_whose_units_redis_still_holds_is_simply_sold(
    open_shop: OpenShop,
) -> None:
    shop = await open_shop(1)
    shop.provider.answer = PENDING
    (order,) = await shop.order(["ann"])
    payment = await shop.pay(order, "ann")
    await shop.payer.pay_once()
    assert await shop.expire() == 1
    shop.provider.become(payment.payment_id, CAPTURED)
    await shop.tell(payment.payment_id, CAPTURED)
    await shop.inbox.handle_once()
    await shop.payer.pay_once()  # Before the dispatcher told Redis of the expiry.
    await shop.settle()
    assert await shop.status(order) == OrderStatus.PAID
    await shop.check_books()


async def test_late_payment_waits_while_the_sale_is_fenced(open_shop: OpenShop) -> None:
    shop = await open_shop(1)
    order, payment = await late_payment(shop)
    await shop.tell(payment, CAPTURED)
    await shop.pool.execute("UPDATE sales SET fenced = 'a test'")
    shop.directory.forget("demo")
    await shop.inbox.handle_once()
    for _ in range(30):
        await shop.payer.pay_once()
        await shop.pool.execute("UPDATE outbox SET due_at = now()")
    assert await shop.payment_status(payment) == "captured"
    await shop.pool.execute("UPDATE sales SET fenced = NULL")
    shop.directory.forget("demo")
    await shop.settle()
    assert await shop.status(order) == OrderStatus.PAID
    await shop.check_books()


async def test_late_payment_takes_no_units_of_a_stock_that_is_gone(
    open_shop: OpenShop, valkey: EmbeddedValkey, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = await open_shop(1)
    order, payment = await late_payment(shop)
    await shop.tell(payment, CAPTURED)
    await shop.inbox.handle_once()
    decide = LateCaptures._decide  # After Redis gave the unit, before Postgres hears of it.
    async with opened_engine(valkey, postgres_url) as engine:

        async def recover_and_decide(*about: Any) -> bool:
            await recover(engine, "demo")
            return await decide(*about)

        with monkeypatch.context() as patch:
            patch.setattr(LateCaptures, "_decide", recover_and_decide)
            await shop.payer.pay_once()
        assert await shop.status(order) == OrderStatus.EXPIRED
        shop.sale = await engine.sales.get("demo")
    await shop.order(["bob"])  # The unit is on sale again, and sold to another.
    await shop.settle()
    assert await shop.payment_status(payment) == "refunded"
    assert (await shop.stock(), await shop.counters()) == ((0, 1, 0), (1, 0))
    await shop.check_books()


async def test_bad_late_payment_holds_up_none_and_ends_in_the_dead_letters(
    open_shop: OpenShop,
) -> None:
    shop = await open_shop()
    shop.provider.answer = PENDING
    (bad,) = await shop.order(["ann"], "phone-black*1")
    (good,) = await shop.order(["bob"], "phone-white*1")
    payments = [await shop.pay(bad, "ann"), await shop.pay(good, "bob")]
    await shop.settle()
    assert await shop.expire() == 2
    await shop.settle()
    await shop.redis.hdel(shard_keys("demo").stock, "phone-black:available")
    for payment in payments:
        await shop.tell(payment.payment_id, CAPTURED)
    await shop.inbox.handle_once()
    await shop.payer.pay_once()
    assert await shop.status(good) == OrderStatus.PAID
    for _ in range(outbox.ATTEMPTS_MAX):
        await shop.pool.execute("UPDATE outbox SET due_at = now()")
        await shop.payer.pay_once()
    assert await shop.pool.fetchval("SELECT count(*) FROM dead_letters") == 1


async def test_payment_and_drain_at_once_do_not_wait_for_each_other(
    open_shop: OpenShop, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = await open_shop()
    (paid,) = await shop.order(["ann"], "phone-white*1")
    (failed,) = await shop.order(["bob"], "phone-black*1")
    await shop.reserve(["cid"], "phone-black*1,phone-white*1")
    draining: list[asyncio.Task[int]] = []

    async def resolve_while_draining(connection: Any, *about: Any) -> Any:
        moved = await resolve(connection, *about)
        if not draining:  # The paid order's SKU is locked; the drainer comes and wants both.
            draining.append(asyncio.create_task(shop.drainer.drain_once(block_ms=1)))
            await a_lock_is_awaited(shop.pool)
        return moved

    monkeypatch.setattr(settlement, "resolve", resolve_while_draining)
    key = partial(OrderKey, "demo")
    async with shop.pool.acquire() as connection, connection.transaction():
        await lock_orders(connection, [key(paid), key(failed)])
        await settlement._write(
            connection, settlement.Settlement({}, paid=[key(paid)], failed=[key(failed)])
        )
    assert await draining[0] == 1
    assert await shop.counters("phone-black") == (1, 0)
    assert await shop.counters("phone-white") == (2, 1)


async def a_lock_is_awaited(pool: Pool) -> None:
    """Returns as soon as somebody waits for a lock in this database."""
    waiting = """
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'
        """
    await until(lambda: pool.fetchval(waiting), "somebody waits for a lock")


async def test_capture_of_a_cancelled_order_is_refunded(open_shop: OpenShop) -> None:
    shop = await open_shop()
    shop.provider.answer = PENDING
    (order,) = await shop.order(["ann"])
    payment = await shop.pay(order, "ann")
    await shop.settle()
    await shop.orders.cancel("demo", order, "ann")
    shop.provider.become(payment.payment_id, CAPTURED)
    await shop.tell(payment.payment_id, CAPTURED)
    await shop.settle()
    assert await shop.status(order) == OrderStatus.CANCELLED
    assert await shop.payment_status(payment.payment_id) == "refunded"
    await shop.check_books()


async def test_payment_never_sent_before_the_cancellation_is_not_charged(
    open_shop: OpenShop,
) -> None:
    shop = await open_shop()
    (order,) = await shop.order(["ann"])
    payment = await shop.pay(order, "ann")
    await shop.orders.cancel("demo", order, "ann")
    await shop.settle()
    assert await shop.payment_status(payment.payment_id) == "failed"
    assert shop.provider.charges == {}


async def test_cancel_frees_the_units_at_once_and_once(open_shop: OpenShop) -> None:
    shop = await open_shop()
    (order,) = await shop.order(["ann"], "phone-black*2")
    with pytest.raises(UnknownReservation):
        await shop.orders.cancel("demo", order, "eve")
    for _ in range(2):
        assert await shop.orders.cancel("demo", order, "ann") == OrderStatus.CANCELLED
        assert await shop.stock() == (10, 0, 0)
    await shop.settle()
    await shop.check_books()


async def test_cancel_before_the_drain_leaves_a_cancelled_order(open_shop: OpenShop) -> None:
    shop = await open_shop(auto_capture=True)
    (order,) = await shop.reserve(["ann"], "phone-black*1,phone-white*1")
    assert await shop.orders.cancel("demo", order, "ann") == OrderStatus.CANCELLED
    row = await shop.pool.fetchrow("SELECT * FROM orders")
    assert (row["amount_minor"], row["items"]) == (259_800, {"phone-black": 1, "phone-white": 1})
    assert (row["reserved_until"] - row["reserved_at"]).total_seconds() == 900
    assert await shop.stock() == (10, 0, 0)
    await shop.drain()
    await shop.settle()
    assert await shop.status(order) == OrderStatus.CANCELLED
    assert shop.provider.charges == {}
    await shop.check_books()


async def test_cancel_and_drain_at_once_count_the_units_once(open_shop: OpenShop) -> None:
    shop = await open_shop(100)
    users = [f"u{n}" for n in range(40)]
    reserved = await shop.reserve(users)
    await asyncio.gather(
        shop.drain(),
        *(
            shop.orders.cancel("demo", order, user)
            for order, user in zip(reserved, users, strict=True)
        ),
    )
    await shop.settle()
    assert (await shop.stock(), await shop.counters()) == ((100, 0, 0), (0, 0))
    await shop.check_books()


async def test_paid_order_cannot_be_cancelled(open_shop: OpenShop) -> None:
    shop = await open_shop()
    (order,) = await shop.order(["ann"])
    await shop.pay(order, "ann")
    await shop.settle()
    with pytest.raises(Conflict) as refused:
        await shop.orders.cancel("demo", order, "ann")
    assert refused.value.code == "not_cancellable"


async def test_cancel_payment_and_expiry_at_once_have_one_winner(open_shop: OpenShop) -> None:
    shop = await open_shop(200)
    shop.provider.answer = PENDING
    chance = random.Random(11)
    winners: Counter[str] = Counter()
    for number in range(8):
        users = [f"u{number}-{n}" for n in range(4)]
        orders = await shop.order(users)
        payments = [await shop.pay(*pair) for pair in zip(orders, users, strict=True)]
        await shop.settle()
        for payment in payments:
            shop.provider.become(payment.payment_id, CAPTURED)
            await shop.tell(payment.payment_id, CAPTURED)
        shop.clock.advance(seconds=1000)
        calls = [
            shop.reaper.reap_once,
            shop.inbox.handle_once,
            *(partial(cancelled, shop, *pair) for pair in zip(orders, users, strict=True)),
        ]
        expired, handled, *cancels = await at_once(calls, chance)
        assert handled == 4
        statuses = Counter([await shop.status(order) for order in orders])
        assert (statuses["expired"], statuses["cancelled"]) == (expired, sum(cancels))
        assert statuses["paid"] == 4 - expired - sum(cancels)
        winners += statuses
    assert len(winners) >= 2, "nobody wins every race"
    await shop.settle()
    # What expired was taken again; what was cancelled got its money back.
    assert await shop.counters() == (32 - winners["cancelled"],) * 2
    assert shop.provider.count(ChargeStatus.REFUNDED) == winners["cancelled"]
    await shop.check_books()


async def cancelled(shop: Shop, order: str, user: str) -> int:
    """1 if this cancellation won."""
    try:
        await shop.orders.cancel("demo", order, user)
    except Conflict:
        return 0
    return 1


async def at_once(calls: list[Callable[[], Awaitable[int]]], chance: random.Random) -> list[int]:
    """All answers, in order; the calls run together and start in any order."""
    tasks = {number: calls[number] for number in chance.sample(range(len(calls)), len(calls))}
    answers = await asyncio.gather(*(call() for call in tasks.values()))
    return [answer for _, answer in sorted(zip(tasks, answers, strict=True))]


@pytest.mark.parametrize("seed", range(6))
async def test_books_balance_after_anything(open_shop: OpenShop, seed: int) -> None:
    chance = random.Random(seed)
    shop = await open_shop(12, per_user_max=4, auto_capture=chance.random() < 0.3)
    known: list[tuple[str, str]] = []
    for step in range(40):
        user = f"u{chance.randrange(8)}"
        shop.provider.answer = chance.choice([CAPTURED, CAPTURED, PENDING, FAILED])
        shop.provider.down = chance.random() < 0.1
        match chance.choice(STEPS):
            case "reserve":
                known += await try_reserve(shop, chance, user, step)
            case "pay" if known:
                await tolerate(shop.pay(*chance.choice(known), key=f"p{step}"))
            case "cancel" if known:
                await tolerate(shop.orders.cancel("demo", *chance.choice(known)))
            case "refund" if shop.provider.charges:
                payment = chance.choice(list(shop.provider.charges))
                await tolerate(shop.payments.request_refund(payment, "ops"))
            case "tell":
                await tell_something(shop, chance)
            case "expire":
                await shop.expire(chance.choice([300, 1000]))
            case "work":
                passes = [shop.drain, shop.payer.pay_once, shop.inbox.handle_once]
                for work in chance.sample([*passes, shop.dispatcher.dispatch_once], 2):
                    await work()
    shop.provider.down = False
    await shop.drain()
    await shop.settle()
    await shop.check_books()


async def tolerate(call: Awaitable[object]) -> None:
    """Refusals are part of life."""
    with suppress(Conflict, UnknownReservation):
        await call


async def try_reserve(
    shop: Shop, chance: random.Random, user: str, step: int
) -> list[tuple[str, str]]:
    items = chance.choice(["phone-black*1", "phone-white*2", "phone-black*1,phone-white*1"])
    try:
        return [((await shop.reserve([user], items, f"k{step}"))[0], user)]
    except AssertionError:
        return []  # Sold out, or the limit.


async def tell_something(shop: Shop, chance: random.Random) -> None:
    """A pending charge is captured and told, now and then twice."""
    waiting = [c for c in shop.provider.charges.values() if c.status is PENDING]
    if waiting:
        charge = chance.choice(waiting)
        shop.provider.become(charge.payment_id, CAPTURED)
        for _ in range(chance.choice([1, 2])):
            await shop.tell(charge.payment_id, CAPTURED)
