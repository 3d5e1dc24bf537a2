"""Alipay, WeChat Pay and Stripe at their worst: every order still has one fate and one charge at most."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from functools import partial

import msgspec
import pytest
import pytest_asyncio

from api.sandbox.mischief import FAKE, Mischief
from api.sandbox.trades import TradeState
from engine.servers import EmbeddedPostgres, EmbeddedValkey
from tests.support.gateways import LATE_SECONDS, Practice, empty_database, empty_redis, practise

PROVIDERS = ("alipay", "wechatpay", "stripe")
OF_NOTICES = (
    Mischief.NONE,
    Mischief.DELAY,
    Mischief.DUPLICATE,
    Mischief.REORDER,
    Mischief.DROP,
    Mischief.FORGE,
    Mischief.TAMPER,
    Mischief.REPLAY,
    Mischief.SLOW_REFUND,
)
OF_ANSWERS = (
    Mischief.LATE_ANSWER,
    Mischief.UNSIGNED,
    Mischief.DOWN,
    Mischief.CUT,
    Mischief.NONSENSE,
)


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def practice(valkey: EmbeddedValkey, postgres: EmbeddedPostgres) -> AsyncIterator[Practice]:
    """One for all tests here: each has a sale, an order and a buyer's page of its own."""
    async with (
        empty_redis(valkey),
        empty_database(postgres) as postgres_url,
        practise(valkey.url, postgres_url) as practice,
    ):
        yield practice
        # Of all the orders that the tests left behind, at once: it takes a look at every one.
        await practice.work()
        await practice.check_oath()


@pytest.fixture(autouse=True)
def calm(practice: Practice) -> Iterator[None]:
    yield
    practice.calm_down()


@pytest.mark.parametrize("mischief", OF_NOTICES)
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_order_is_paid_once_and_paid_back_once_whatever_is_told(
    practice: Practice, provider: str, mischief: Mischief
) -> None:
    order = await practice.order(provider)
    payment = await practice.pending(order, provider)
    before = await practice.inbox_size()
    practice.mood(provider, mischief)
    assert await practice.decide(payment) == 200
    told = await practice.deliver() + await practice.deliver(LATE_SECONDS + 1)
    # Alipay's notifications say when they were sent, and are resent for 25 hours: an old one is good.
    if mischief in FAKE and (provider, mischief) != ("alipay", Mischief.REPLAY):
        assert told == [401]
        assert await practice.inbox_size() == before
    await practice.work()
    await practice.deadline()
    await practice.work()
    assert await practice.order_status(order) == "paid"
    assert await practice.states(order) == [TradeState.PAID]

    replies = await asyncio.gather(*(practice.refund(payment) for _ in range(3)))
    assert {reply.status for reply in replies} == {202}
    await practice.work()
    await practice.deliver(LATE_SECONDS + 1)
    await practice.work()
    await practice.ask()
    await practice.work()
    assert await practice.order_status(order) == "refunded"
    assert await practice.states(order) == [TradeState.REFUNDED]
    await practice.check_letters()


@pytest.mark.parametrize("mischief", OF_ANSWERS)
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_answers_that_do_not_come_charge_nothing_twice(
    practice: Practice, provider: str, mischief: Mischief
) -> None:
    order = await practice.order(provider)
    practice.mood(provider, mischief, calls=2)
    payment = await practice.pending(order, provider)
    practice.mood(provider, Mischief.DROP)
    assert await practice.decide(payment) == 200
    practice.mood(provider, mischief)
    await practice.ask()
    assert await practice.order_status(order) == "awaiting_payment"
    practice.calm_down()
    await practice.ask()
    await practice.work()
    assert await practice.order_status(order) == "paid"

    practice.mood(provider, mischief, calls=2)
    assert (await practice.refund(payment)).status == 202
    await practice.work()
    assert await practice.order_status(order) == "refunded"
    assert await practice.states(order) == [TradeState.REFUNDED]
    await practice.check_letters()


@pytest.mark.parametrize("mischief", [Mischief.WRONG_AMOUNT, Mischief.WRONG_CURRENCY])
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_wrong_charge_goes_back_and_is_shown_to_people(
    practice: Practice, provider: str, mischief: Mischief
) -> None:
    order = await practice.order(provider)
    payment = await practice.pending(order, provider)
    practice.mood(provider, mischief)
    assert await practice.decide(payment) == 200
    practice.mood(provider, Mischief.NONE)
    await practice.deliver()
    await practice.work()
    assert await practice.states(order) == [TradeState.REFUNDED]
    assert await practice.payment_status(payment) == "refunded"
    await practice.deadline()
    await practice.work()
    assert await practice.order_status(order) == "expired"
    await practice.check_letters(letters=1)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_forged_word_of_a_payment_that_nobody_made_is_refused_and_not_kept(
    practice: Practice, provider: str
) -> None:
    order = await practice.order(provider)
    payment = await practice.pending(order, provider)
    gateway, before = practice.gateway(provider), await practice.inbox_size()
    if (trade := gateway.book.find(provider, payment)) is None:  # Alipay knows of it by a visit.
        await practice.visit(payment)
        trade = gateway.book.find(provider, payment)
    assert trade is not None
    lie = msgspec.structs.replace(trade, state=TradeState.PAID, paid_ms=practice.clock.now_ms())
    now_ms = practice.clock.now_ms()
    for mischief in (Mischief.FORGE, Mischief.TAMPER):
        headers, body = gateway.sign_notice(lie, "evt_forged", now_ms, mischief)
        assert (await practice.http.post(trade.notify_url, body, headers)).status == 401
    headers, body = gateway.sign_notice(lie, "evt_forged", now_ms, Mischief.NONE)
    elsewhere = trade.notify_url.replace(provider, "sandbox")
    assert (await practice.http.post(elsewhere, body, headers)).status == 401
    if provider != "alipay":  # Whose signature is in the body.
        assert (await practice.http.post(trade.notify_url, body, {})).status == 401
    await practice.work()
    assert await practice.order_status(order) == "awaiting_payment"
    assert await practice.inbox_size() == before


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_gateway_takes_no_money_after_the_deadline(practice: Practice, provider: str) -> None:
    order = await practice.order(provider)
    payment = await practice.pending(order, provider)
    action = (await practice.shown(payment))["action"]
    await practice.deadline(at_gateways=True)
    await practice.work()  # Closes what the gateway does not close by itself.
    assert await practice.order_status(order) == "expired"
    assert await practice.pay_at(action) == 409
    practice.rewind()
    await practice.ask()
    await practice.work()
    assert await practice.payment_status(payment) == "failed"
    await practice.check_letters()


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_late_capture_takes_the_units_again_or_goes_back(
    practice: Practice, provider: str, left: bool
) -> None:
    order = await practice.order(provider)
    payment = await practice.pending(order, provider)
    action = (await practice.shown(payment))["action"]
    for gateway_is in (Mischief.DOWN, Mischief.DROP):
        practice.mood(provider, gateway_is)
        if gateway_is is Mischief.DOWN:  # Nobody can ask, nobody can close.
            await practice.overdue()
    assert await practice.order_status(order) == "expired"
    assert await practice.pay_at(action) == 200
    practice.mood(provider, Mischief.NONE)
    async with practice.sold_out(provider, unless=left):
        await practice.ask()
        await practice.work()
    assert await practice.order_status(order) == ("paid" if left else "expired")
    assert await practice.states(order) == [TradeState.PAID if left else TradeState.REFUNDED]


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_resolved_order_leaves_nothing_that_a_buyer_could_still_pay(
    practice: Practice, provider: str
) -> None:
    order = await practice.order(provider)
    first = await practice.pending(order, provider)
    second = await practice.pending(order, provider)
    await practice.visit(first)
    action = (await practice.shown(first))["action"]
    assert await practice.decide(second) == 200
    await practice.deliver()
    await practice.work()
    assert await practice.order_status(order) == "paid"
    assert await practice.states(order) == [TradeState.CLOSED, TradeState.PAID]
    assert await practice.pay_at(action) == 409
    assert await practice.payment_status(first) == "failed"
    await practice.check_letters()


async def test_both_payments_of_an_order_made_at_once_leave_one_charge(practice: Practice) -> None:
    order = await practice.order("alipay")
    payments = [await practice.pending(order, name) for name in ("alipay", "wechatpay")]
    for payment in payments:
        assert await practice.decide(payment) == 200
    await practice.deliver()
    await practice.work()
    assert await practice.order_status(order) == "paid"
    states = Counter(await practice.states(order))
    assert states == {TradeState.PAID: 1, TradeState.REFUNDED: 1}
    await practice.check_letters()


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_cancellation_word_and_expiry_at_once_have_one_winner(
    practice: Practice, provider: str
) -> None:
    chance = random.Random(provider)
    orders = [await practice.order(provider) for _ in range(4)]
    for order in orders:
        assert await practice.decide(await practice.pending(order, provider)) == 200
    await practice.deliver()
    await practice.pool.execute("UPDATE orders SET reserved_until = now() - interval '1 minute'")
    calls = [practice.inbox.handle_once, practice.reaper.reap_once, practice.payer.query_once]
    calls += [partial(practice.cancel, order) for order in orders]
    await asyncio.gather(*(call() for call in chance.sample(calls, len(calls))))
    await practice.work()
    for order in orders:
        status, states = await practice.order_status(order), await practice.states(order)
        assert (status, states) in [
            ("paid", [TradeState.PAID]),
            ("cancelled", [TradeState.REFUNDED]),
        ]
    await practice.check_letters()


async def test_authorized_card_is_captured_while_the_order_awaits_it(practice: Practice) -> None:
    order = await practice.order("stripe")
    manual = {"capture_method": "manual"}
    payment = await practice.pending(order, "stripe", options=manual)
    assert await practice.decide(payment) == 200
    assert await practice.states(order) == [TradeState.AUTHORIZED]
    await practice.deliver()
    await practice.ask()  # Heard twice, captured once.
    await practice.work()
    assert await practice.states(order) == [TradeState.PAID]
    assert await practice.order_status(order) == "paid"
    await practice.check_letters()


async def test_authorization_of_a_cancelled_order_is_let_go(practice: Practice) -> None:
    order = await practice.order("stripe")
    payment = await practice.pending(order, "stripe", options={"capture_method": "manual"})
    practice.mood("stripe", Mischief.DELAY)
    assert await practice.decide(payment) == 200
    await practice.cancel(order)
    await practice.deliver(LATE_SECONDS + 1)
    await practice.work()
    assert await practice.states(order) == [TradeState.CLOSED]
    assert await practice.payment_status(payment) == "failed"
    assert await practice.order_status(order) == "cancelled"
    await practice.check_letters()


async def test_authorized_word_that_comes_after_the_cancellation_lets_the_money_go(
    practice: Practice,
) -> None:
    order = await practice.order("stripe")
    payment = await practice.pending(order, "stripe", options={"capture_method": "manual"})
    assert await practice.decide(payment) == 200
    await practice.deliver()
    await asyncio.gather(practice.cancel(order), practice.inbox.handle_once())
    await practice.work()
    assert await practice.order_status(order) == "cancelled"
    assert await practice.states(order) == [TradeState.CLOSED]
    await practice.check_letters()


async def test_declined_card_leaves_time_for_another(practice: Practice) -> None:
    order = await practice.order("stripe")
    declined = await practice.start(order, "stripe", options={"payment_method": "pm_empty"})
    await practice.work()
    assert (await practice.shown(declined))["detail"] == "card_declined"
    good = {"payment_method": "pm_card_visa"}
    await practice.start(order, "stripe", options=good)
    await practice.work()
    assert await practice.order_status(order) == "paid"


async def test_charge_whose_making_nobody_heard_of_is_found_by_our_own_name(
    practice: Practice,
) -> None:
    order = await practice.order("stripe")
    practice.mood("stripe", Mischief.LATE_ANSWER, calls=1)
    await practice.start(order, "stripe", options={"payment_method": "pm_card_visa"})
    await practice.payer.pay_once()  # It happened, and was not heard.
    assert await practice.states(order) == [TradeState.PAID]
    practice.calm_down()
    await practice.pool.execute(
        "UPDATE payments SET tried_at = NULL, created_at = now() - interval '1 hour'"
    )
    await practice.pool.execute("UPDATE outbox SET due_at = now() + interval '1 hour'")
    await practice.deadline()
    assert await practice.order_status(order) == "paid"
    await practice.work()
    await practice.check_letters()


async def test_rotated_certificate_is_fetched_once_and_old_ones_stay_good(
    practice: Practice,
) -> None:
    gateway = practice.gateways.wechatpay
    order = await practice.order("wechatpay")
    payment = await practice.pending(order, "wechatpay")
    practice.clock.advance(seconds=61)  # Since the last look at the certificates.
    fetched = gateway.fetched
    gateway.rotate()
    assert await practice.decide(payment) == 200
    await practice.deliver()
    await practice.work()
    await practice.ask()
    assert await practice.order_status(order) == "paid"
    # One look by the front, which had none yet or an old one, and one by the worker.
    assert gateway.fetched - fetched <= 2
    for number in range(5):
        headers = {"Wechatpay-Serial": f"{number:040X}", "Wechatpay-Timestamp": practice.now_text()}
        url = f"{practice.served.url}/v1/webhooks/wechatpay"
        assert (await practice.http.post(url, b"{}", headers)).status == 401
    assert gateway.fetched - fetched <= 3


async def test_every_mischief_is_tried() -> None:
    tried = {*OF_NOTICES, *OF_ANSWERS, Mischief.WRONG_AMOUNT, Mischief.WRONG_CURRENCY}
    assert tried == set(Mischief)
