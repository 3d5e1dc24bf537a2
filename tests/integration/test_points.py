"""Points in Postgres: earned once, spent once, given back, expired; the ledger explains every balance."""

import asyncio
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import asyncpg
import msgspec
import pytest

from api.points import expiry
from api.points.bodies import RATE_MAX, Balance, DeductionBody, GrantBody, RuleBody
from api.points.expiry import PointsExpiry
from api.points.store import balance_of, deduct, grant, put_rule, spending_rule
from api.pricing.quote import Line, PointsRule, Quote, quote
from api.promotions.store import give_back, redeem
from engine.clock import ManualClock, SystemClock
from engine.errors import Conflict
from engine.store.database import Pool, connect
from engine.store.resolutions import (
    CANCEL,
    EXPIRE,
    PAY,
    REFUND,
    OrderKey,
    Resolution,
    lock_orders,
    resolve,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
RULE = RuleBody(earned_per_thousand=1_000)  # 1 point per unit of money, good for a year
CART = (Line("phone-black", "phone", (), 1, 1_000_000),)


@pytest.fixture
async def shop(pool: Pool) -> Pool:
    """A shop that gives points for CNY."""
    async with pool.acquire() as connection, connection.transaction():
        await put_rule(connection, "olga", "CNY", RULE)
    return pool


async def give(pool: Pool, points: int, user: str = "ann", **options: Any) -> None:
    body = GrantBody(points=points, reason="sorry", valid_days=options.get("valid_days"))
    async with pool.acquire() as connection, connection.transaction():
        at = options.get("at", NOW)
        await grant(connection, "olga", user, body, key=options.get("key"), at=at)


async def balance(pool: Pool, user: str = "ann", at: datetime = NOW) -> Balance:
    async with pool.acquire() as connection:
        return await balance_of(connection, user, at)


def spending(points: int) -> Quote:
    told = quote(CART, [], currency="CNY", points=points, points_rule=PointsRule())
    assert told.points == points
    return told


def reservation(number: int) -> str:
    return f"{number:020d}"


async def spend(pool: Pool, points: int, number: int, user: str = "ann") -> str:
    """'spent', or the code of the refusal."""
    try:
        async with pool.acquire() as connection, connection.transaction():
            await redeem(
                connection,
                user_id=user,
                sale_id="shop",
                reservation_id=reservation(number),
                quote=spending(points),
            )
    except Conflict as refused:
        return refused.code
    return "spent"


async def store_order(
    pool: Pool, number: int, user: str = "ann", amount_minor: int = 12_399, currency: str = "CNY"
) -> OrderKey:
    await pool.execute(
        "INSERT INTO orders VALUES"
        " ('shop', $1, $2, '{}', $3, $4, 'awaiting_payment', NULL, now(), now())",
        reservation(number),
        user,
        amount_minor,
        currency,
    )
    return OrderKey("shop", reservation(number))


async def move(pool: Pool, resolution: Resolution, *orders: OrderKey) -> int:
    async with pool.acquire() as connection, connection.transaction():
        await lock_orders(connection, orders)
        return len(await resolve(connection, resolution, orders))


async def lines(pool: Pool, user: str = "ann") -> list[tuple[str, int]]:
    rows = await pool.fetch(
        "SELECT kind, points FROM point_lines WHERE user_id = $1 ORDER BY line_id", user
    )
    return [tuple(row) for row in rows]


async def check_books(pool: Pool) -> None:
    """The ledger reproduces every balance, and so do the lots."""
    wrong = await pool.fetch(
        """
        SELECT user_id, balance, owed, lines.points, lots.points_left FROM point_balances
        LEFT JOIN LATERAL (SELECT coalesce(sum(points), 0) AS points FROM point_lines
            WHERE point_lines.user_id = point_balances.user_id) AS lines ON true
        LEFT JOIN LATERAL (SELECT coalesce(sum(points_left), 0) AS points_left FROM point_lots
            WHERE point_lots.user_id = point_balances.user_id) AS lots ON true
        WHERE balance - owed <> lines.points OR balance <> lots.points_left
        """
    )
    assert wrong == []
    strangers = await pool.fetchval(
        "SELECT count(*) FROM point_lines WHERE user_id NOT IN (SELECT user_id FROM point_balances)"
    )
    assert strangers == 0


async def test_the_last_points_pay_for_exactly_one_of_fifty_checkouts(shop: Pool) -> None:
    await give(shop, 149)
    words = await asyncio.gather(*(spend(shop, 100, number) for number in range(50)))
    assert sorted(words) == ["points_short"] * 49 + ["spent"]
    assert (await balance(shop)).balance == 49
    assert await shop.fetchval("SELECT count(*) FROM point_uses") == 1
    await check_books(shop)


async def test_a_paid_order_earns_its_amount_rounded_down_and_a_refund_takes_it_back(
    shop: Pool,
) -> None:
    order = await store_order(shop, 1)
    await store_order(shop, 2, currency="USD")  # No rule, no points.
    assert await move(shop, PAY, order, OrderKey("shop", reservation(2))) == 2
    assert await lines(shop) == [("earned", 123)]
    expires_at = await shop.fetchval("SELECT expires_at FROM point_lots")
    assert timedelta(days=364) < expires_at - datetime.now(UTC) < timedelta(days=366)
    assert await move(shop, REFUND, order) == 1
    assert await lines(shop) == [("earned", 123), ("reversed", -123)]
    assert await balance(shop) == Balance(0, 0, None)
    await check_books(shop)


async def test_earned_points_that_were_spent_are_owed_after_a_refund(shop: Pool) -> None:
    order = await store_order(shop, 1)
    await move(shop, PAY, order)
    assert await spend(shop, 100, 2) == "spent"
    await move(shop, REFUND, order)
    assert (await balance(shop)).owed == 100
    assert await spend(shop, 1, 3) == "points_short"
    await give(shop, 130)  # The next points pay for them first.
    assert await balance(shop) == Balance(30, 0, None)
    await check_books(shop)


@pytest.mark.parametrize(
    "moves", [(CANCEL,), (EXPIRE,), (PAY, REFUND)], ids=["cancelled", "expired", "refunded"]
)
async def test_an_order_that_ends_gives_its_points_back_once(
    shop: Pool, moves: tuple[Resolution, ...]
) -> None:
    await give(shop, 500, valid_days=1, at=datetime.now(UTC))
    assert await spend(shop, 300, 1) == "spent"
    order = await store_order(shop, 1)
    for each in moves:
        assert (await balance(shop)).balance == 200 + 123 * (each is REFUND)
        await move(shop, each, order)
    await give_back_unordered(shop, 1)  # Again it changes nothing.
    assert (await balance(shop)).balance == 500
    assert ("given_back", 300) in await lines(shop)
    # They were to expire tomorrow; the buyer has a month at least.
    soonest = await shop.fetchval("SELECT max(expires_at) FROM point_lots WHERE points_left = 300")
    assert soonest - datetime.now(UTC) > timedelta(days=29)
    await check_books(shop)


async def give_back_unordered(pool: Pool, number: int) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await give_back(connection, "shop", reservation(number))


async def test_a_checkout_spends_once_and_may_be_begun_again(shop: Pool) -> None:
    await give(shop, 100)
    assert [await spend(shop, 60, 1) for _ in range(3)] == ["spent"] * 3
    assert (await balance(shop)).balance == 40
    for _ in range(2):
        await give_back_unordered(shop, 1)
    assert (await balance(shop)).balance == 100
    assert await spend(shop, 80, 1) == "spent"
    assert (await balance(shop)).balance == 20
    await check_books(shop)


async def test_an_order_paid_after_it_expired_spends_its_points_again(shop: Pool) -> None:
    await give(shop, 100)
    await spend(shop, 100, 1)
    await move(shop, EXPIRE, await store_order(shop, 1))
    await spend(shop, 70, 2)  # What it had back is gone elsewhere.
    await shop.execute("UPDATE orders SET status = 'paid'")
    assert await lines(shop) == [
        ("granted", 100),
        ("spent", -100),
        ("given_back", 100),
        ("spent", -70),
        ("earned", 123),
        ("spent", -100),
    ]
    assert (await balance(shop)).balance == 53
    await check_books(shop)


async def test_points_that_expire_first_are_spent_first_and_the_rest_expires_in_time(
    shop: Pool,
) -> None:
    began = datetime.now(UTC)
    await give(shop, 100, valid_days=20, at=began)
    await give(shop, 100)
    await give(shop, 100, valid_days=10, at=began)
    await give(shop, 5, user="bob", valid_days=10, at=began)
    await spend(shop, 150, 1)
    left = await shop.fetch("SELECT points_left FROM point_lots ORDER BY lot_id")
    assert [row[0] for row in left] == [50, 100, 0, 5]
    shown = await balance(shop, at=began)
    assert shown.next_to_expire is not None
    assert (shown.balance, shown.next_to_expire.points) == (150, 50)

    clock = ManualClock(SystemClock().now_ms())
    loop = PointsExpiry(shop, clock)
    assert await loop.expire_once() == 0
    clock.advance(seconds=21 * 86_400)
    later = began + timedelta(days=21)
    assert (await balance(shop, at=later)).balance == 100  # Before the loop has come by, too.
    assert await loop.expire_once() == 2
    assert await loop.expire_once() == 0
    assert (await balance(shop, at=later)) == Balance(100, 0, None)
    assert await lines(shop, "bob") == [("granted", 5), ("expired", -5)]
    await check_books(shop)


async def test_overdue_points_pay_for_nothing_though_nobody_took_them_away_yet(shop: Pool) -> None:
    await give(shop, 100, valid_days=1, at=datetime.now(UTC) - timedelta(days=2))
    assert await spend(shop, 100, 1) == "points_short"


async def test_the_expiry_goes_on_batch_by_batch(
    shop: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "BATCH_MAX", 2)
    for number in range(5):
        await give(shop, 1, user=f"u{number}", valid_days=1)
    loop = PointsExpiry(shop, SystemClock())
    assert [await loop.expire_once() for _ in range(4)] == [2, 2, 1, 0]


async def test_operators_give_and_take_once_per_key(shop: Pool) -> None:
    await asyncio.gather(*(give(shop, 10, key="k") for _ in range(5)))
    assert (await balance(shop)).balance == 10
    with pytest.raises(Conflict, match="other points"):
        await give(shop, 11, key="k")
    for points, outcome in ((4, "done"), (4, "done"), (11, "points_short")):
        try:
            async with shop.acquire() as connection, connection.transaction():
                body = DeductionBody(points=points, reason="mistake")
                await deduct(connection, "olga", "ann", body, key=f"take-{points}", at=NOW)
            word = "done"
        except Conflict as refused:
            word = refused.code
        assert word == outcome
    assert await lines(shop) == [("granted", 10), ("deducted", -4)]
    actions = [row[0] for row in await shop.fetch("SELECT action FROM audit_log ORDER BY entry_id")]
    assert actions == ["points_rule_set", "points_granted", "points_deducted"]
    await check_books(shop)


async def test_the_ledger_explains_every_balance_after_a_random_year(shop: Pool) -> None:
    seed = 20260301
    dice = Random(seed)
    users = ["ann", "bob", "cyn"]
    orders: list[tuple[OrderKey, str]] = []
    clock = ManualClock(SystemClock().now_ms())
    loop = PointsExpiry(shop, clock)
    for number in range(120):
        user = dice.choice(users)
        match dice.randrange(7):
            case 0:
                await give(shop, dice.randint(1, 300), user, valid_days=dice.choice([None, 1, 90]))
            case 1:
                await spend(shop, dice.randint(1, 200), number, user)
                orders.append((await store_order(shop, number, user, 20_000), user))
            case 2:
                await spend(shop, dice.randint(1, 200), number, user)
                await give_back_unordered(shop, number)
            case 3:
                clock.advance(seconds=10 * 86_400)
                await loop.expire_once()
            case _ if orders:
                order, _ = dice.choice(orders)
                await move(shop, dice.choice([PAY, PAY, CANCEL, EXPIRE, REFUND]), order)
        await check_books(shop)
    kinds = {row[0] for row in await shop.fetch("SELECT DISTINCT kind FROM point_lines")}
    assert kinds >= {"earned", "spent", "given_back", "granted", "expired"}, f"seed {seed}"


async def test_orders_of_a_crowd_earn_in_one_batch(shop: Pool) -> None:
    orders = [await store_order(shop, number, f"u{number % 7}") for number in range(40)]
    await move(shop, PAY, *orders)
    assert await shop.fetchval("SELECT count(*) FROM point_lines") == 40
    assert await shop.fetchval("SELECT sum(balance) FROM point_balances") == 40 * 123
    await asyncio.gather(
        move(shop, REFUND, *orders[:20]),
        move(shop, REFUND, *reversed(orders[10:])),
        *(spend(shop, 100, 100 + number, f"u{number % 7}") for number in range(14)),
    )
    assert (
        await shop.fetchval("SELECT sum(points) FROM point_lines WHERE kind = 'reversed'") == -4920
    )
    await check_books(shop)


async def test_the_schema_holds_balances_by_itself(shop: Pool) -> None:
    await give(shop, 10)
    for statement in (
        "UPDATE point_balances SET balance = -1",
        "UPDATE point_balances SET owed = -1",
        "UPDATE point_lots SET points_left = points + 1",
        "UPDATE point_lots SET points_left = -1",
        "UPDATE point_lines SET points = 5",
        "DELETE FROM point_lines",
    ):
        with pytest.raises((asyncpg.CheckViolationError, asyncpg.RestrictViolationError)):
            await shop.execute(statement)


async def test_what_points_are_worth_is_the_rule_of_the_currency(shop: Pool) -> None:
    async with shop.acquire() as connection, connection.transaction():
        body = msgspec.structs.replace(RULE, points_per_major=10, share_max_percent=30)
        await put_rule(connection, "olga", "CNY", body)
        assert await spending_rule(connection, "CNY") == PointsRule(10, 30)
        assert await spending_rule(connection, "USD") is None


async def test_paying_is_not_hindered_by_more_points_than_a_number_holds(pool: Pool) -> None:
    async with pool.acquire() as connection, connection.transaction():
        dear = RuleBody(earned_per_thousand=RATE_MAX * 1000)
        await put_rule(connection, "olga", "JPY", dear)
    paid = await store_order(pool, 1, amount_minor=10**17, currency="JPY")
    assert await move(pool, PAY, paid) == 1
    assert (await balance(pool)).balance == 10**12


async def test_a_batch_after_single_moves_is_not_compared_pair_by_pair(
    shop: Pool, postgres_url: str
) -> None:
    orders = [await store_order(shop, number) for number in range(10)]
    plans: list[str] = []
    connection = await connect(postgres_url)
    try:
        connection.add_log_listener(lambda _, message: plans.append(str(message)))
        await connection.execute(
            "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0;"
            "SET auto_explain.log_nested_statements = on; SET client_min_messages = log"
        )
        for order in orders:
            await resolve(connection, PAY, [order])
    finally:
        await connection.close()
    plans = [plan for plan in plans if plan.count("Named Tuplestore Scan") > 1]
    assert plans
    assert all("Hash Full Join" in plan for plan in plans), plans
