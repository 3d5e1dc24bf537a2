"""Promotions and coupons in Postgres: caps that hold in a crowd, given back once, promises kept."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import pytest

from api.pricing.promotion import Kind
from api.pricing.quote import Line, Quote, quote
from api.promotions.bodies import CodesBody, PromotionBody, PromotionChange
from api.promotions.codes import add_codes, list_codes, withdraw_code
from api.promotions.offering import (
    add_promotion,
    change_promotion,
    list_promotions,
    set_active,
)
from api.promotions.store import Applicable, applicable, give_back, redeem
from api.promotions.terms import Amounts, Terms
from api.promotions.wallet import claim
from engine.errors import Conflict, Invalid
from engine.store.database import Pool
from engine.store.resolutions import CANCEL, EXPIRE, PAY, REFUND, OrderKey, Resolution, resolve
from tests.support.shop import SerialIds
from tests.support.waiting import until

NOW = datetime(2026, 3, 1, tzinfo=UTC)
CART = (Line("phone-black", "phone", ("phones",), 2, 5_000),)
OFF = Terms(kind=Kind.AMOUNT, name={"en": "Ten off"}, currencies={"CNY": Amounts(off_minor=1_000)})


def other(**changes: Any) -> Terms:
    """The terms with other fields."""
    return msgspec.structs.replace(OFF, **changes)


async def offer(pool: Pool, promotion_id: str = "ten-off", **changes: Any) -> str:
    # With a cap, so that its uses are counted.
    body = PromotionBody(**({"terms": OFF, "valid_from": NOW, "uses_max": 1_000} | changes))
    async with pool.acquire() as connection, connection.transaction():
        await add_promotion(connection, "olga", promotion_id, body, NOW)
    return promotion_id


async def coupon(
    pool: Pool,
    code: str = "TEN-OFF",
    uses_max: int | None = 1,
    cap: int | None = 1_000,
    **changes: Any,
) -> str:
    """A promotion of its own with that code; `cap` is the promotion's."""
    changes = {"by_code": True, "uses_max": cap} | changes
    promotion_id = await offer(pool, f"for-{code.lower()}", **changes)
    body = CodesBody(code=code, uses_max=uses_max)
    async with pool.acquire() as connection, connection.transaction():
        await add_codes(connection, "olga", promotion_id, body, SerialIds())
    return promotion_id


async def look(
    pool: Pool, *codes: str, user: str | None = "ann", currency: str = "CNY", at: datetime = NOW
) -> Applicable:
    async with pool.acquire() as connection:
        return await applicable(connection, user_id=user, codes=codes, currency=currency, at=at)


async def quoted(pool: Pool, *codes: str, user: str = "ann") -> Quote:
    found = await look(pool, *codes, user=user)
    return quote(CART, found.promotions, currency="CNY")


async def change(pool: Pool, terms: Terms, uses_max: int | None = None) -> None:
    body = PromotionChange(
        terms=terms,
        public=True,
        valid_from=NOW,
        valid_until=None,
        per_user_max=None,
        uses_max=uses_max,
    )
    async with pool.acquire() as connection, connection.transaction():
        assert await change_promotion(connection, "olga", "ten-off", body)


def reservation(number: int) -> str:
    return f"{number:020d}"


async def check_out(pool: Pool, told: Quote, number: int, user: str = "ann") -> str:
    """'taken', or the code of the refusal."""
    try:
        async with pool.acquire() as connection, connection.transaction():
            await redeem(
                connection,
                user_id=user,
                sale_id="shop",
                reservation_id=reservation(number),
                quote=told,
            )
    except Conflict as refused:
        return refused.code
    return "taken"


async def store_order(
    pool: Pool, number: int, user: str = "ann", status: str = "awaiting_payment"
) -> OrderKey:
    await pool.execute(
        "INSERT INTO orders VALUES ('shop', $1, $2, '{}', 9000, 'CNY', $3, NULL, now(), now())",
        reservation(number),
        user,
        status,
    )
    return OrderKey("shop", reservation(number))


async def move(pool: Pool, resolution: Resolution, *orders: OrderKey) -> None:
    async with pool.acquire() as connection, connection.transaction():
        assert len(await resolve(connection, resolution, orders)) == len(orders)


async def used(pool: Pool) -> dict[str, Any]:
    """What all counters say."""
    return {
        "promotions": await pool.fetchval("SELECT sum(used) FROM promotion_counts"),
        "coupons": await pool.fetchval("SELECT coalesce(sum(used), 0) FROM coupons"),
        "users": await pool.fetchval("SELECT coalesce(sum(used), 0) FROM promotion_uses"),
        "rows": await pool.fetchval("SELECT count(*) FROM redemptions WHERE state = 'taken'"),
    }


async def states(pool: Pool) -> list[str]:
    rows = await pool.fetch("SELECT state FROM redemptions ORDER BY reservation_id, promotion_id")
    return [row["state"] for row in rows]


NOTHING = {"promotions": 0, "coupons": 0, "users": 0, "rows": 0}


async def test_the_last_of_n_coupons_goes_to_exactly_one_of_fifty_checkouts(pool: Pool) -> None:
    await coupon(pool, uses_max=3)
    told = await quoted(pool, "TEN-OFF")
    assert [await check_out(pool, told, number, f"early-{number}") for number in range(2)] == [
        "taken",
        "taken",
    ]
    words = await asyncio.gather(*(check_out(pool, told, n, f"u{n}") for n in range(10, 60)))
    assert sorted(set(words)) == ["coupon_used", "taken"]
    assert words.count("taken") == 1
    assert await used(pool) == {"promotions": 3, "coupons": 3, "users": 3, "rows": 3}


async def test_a_cap_of_all_holds_among_fifty_checkouts(pool: Pool) -> None:
    await offer(pool, uses_max=7)
    told = await quoted(pool)
    words = await asyncio.gather(*(check_out(pool, told, n, f"u{n}") for n in range(50)))
    assert sorted(words) == ["coupon_exhausted"] * 43 + ["taken"] * 7
    assert await used(pool) == {"promotions": 7, "coupons": 0, "users": 7, "rows": 7}


async def test_a_cap_of_one_user_holds_among_twenty_checkouts_at_once(pool: Pool) -> None:
    await offer(pool, per_user_max=2)
    told = await quoted(pool)
    words = await asyncio.gather(*(check_out(pool, told, n) for n in range(20)))
    assert sorted(words) == ["coupon_used"] * 18 + ["taken"] * 2
    assert await used(pool) == {"promotions": 2, "coupons": 0, "users": 2, "rows": 2}


async def test_of_several_promotions_all_are_taken_or_none(pool: Pool) -> None:
    await offer(pool, "a")
    await coupon(pool, "LAST-ONE")
    told = await quoted(pool, "LAST-ONE")
    assert len(told.discounts) == 2
    assert [await check_out(pool, told, n, f"u{n}") for n in range(2)] == ["taken", "coupon_used"]
    assert await used(pool) == {"promotions": 2, "coupons": 1, "users": 2, "rows": 2}


async def test_the_same_checkout_redeems_once_however_often_it_is_asked(pool: Pool) -> None:
    await coupon(pool)
    told = await quoted(pool, "TEN-OFF")
    words = await asyncio.gather(*(check_out(pool, told, 1) for _ in range(8)))
    assert set(words) == {"taken"}
    assert await used(pool) == {"promotions": 1, "coupons": 1, "users": 1, "rows": 1}


async def test_without_caps_nobody_waits_and_a_cap_that_is_set_counts_what_was_taken(
    pool: Pool,
) -> None:
    await offer(pool, "ten-off", uses_max=None)
    await coupon(pool, "FOR-ALL", uses_max=None, cap=None)
    told = await quoted(pool, "FOR-ALL")
    async with pool.acquire() as connection, connection.transaction():
        await redeem(
            connection, user_id="eve", sale_id="shop", reservation_id=reservation(0), quote=told
        )
        # Others do not wait for her transaction to end.
        words = await asyncio.gather(*(check_out(pool, told, n, f"u{n}") for n in range(1, 6)))
        assert words == ["taken"] * 5
        # Whoever sets a cap does.
        setting = asyncio.create_task(change(pool, OFF, uses_max=7))
        await until(lambda: waiting(pool), "the cap waits")
        assert not setting.done()
    await setting
    for number, moment in ((6, "taken"), (7, "coupon_exhausted")):
        told = await quoted(pool, "FOR-ALL") if number == 6 else told
        assert await check_out(pool, told, number, f"u{number}") == moment
    await move(pool, EXPIRE, await store_order(pool, 3, "u3"))
    async with pool.acquire() as connection:
        shown = {
            row["promotion_id"]: row["used"]
            for row in await list_promotions(connection, active=None, after=None, rows_max=9)
        }
        coupons = await list_codes(connection, "for-for-all", after=None, rows_max=9)
    assert shown == {"ten-off": 6, "for-for-all": 6}
    assert [row["used"] for row in coupons] == [6]


async def waiting(pool: Pool) -> bool:
    """Whether somebody waits for a lock."""
    return bool(await pool.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))


@pytest.mark.parametrize(
    "moves", [(CANCEL,), (EXPIRE,), (PAY, REFUND)], ids=["cancelled", "expired", "refunded"]
)
async def test_an_order_that_ends_gives_its_coupon_to_the_next(
    pool: Pool, moves: Sequence[Resolution]
) -> None:
    await coupon(pool)
    told = await quoted(pool, "TEN-OFF")
    await check_out(pool, told, 1)
    order = await store_order(pool, 1)
    for each in moves:
        assert await used(pool) == {"promotions": 1, "coupons": 1, "users": 1, "rows": 1}
        await move(pool, each, order)
    assert (await used(pool), await states(pool)) == (NOTHING, ["given_back"])
    assert await check_out(pool, told, 2, "bob") == "taken"


async def test_a_batch_gives_back_what_each_order_had(pool: Pool) -> None:
    await offer(pool, "a", per_user_max=3)
    await coupon(pool, "MANY", uses_max=100)
    told = await quoted(pool, "MANY")
    for number in range(9):
        assert await check_out(pool, told, number, f"u{number % 3}") == "taken"
    orders = [await store_order(pool, number, f"u{number % 3}") for number in range(9)]
    plain = await store_order(pool, 99)  # without any promotion
    await move(pool, EXPIRE, *orders[:6], plain)
    assert await used(pool) == {"promotions": 6, "coupons": 3, "users": 6, "rows": 6}
    rows = await pool.fetch("SELECT DISTINCT used FROM promotion_uses")
    assert [row["used"] for row in rows] == [1]


async def test_an_order_that_never_was_gives_back_once(pool: Pool) -> None:
    await coupon(pool)
    told = await quoted(pool, "TEN-OFF")
    await check_out(pool, told, 1)
    async with pool.acquire() as connection:
        for _ in range(2):
            await give_back(connection, "shop", reservation(1))
    assert (await used(pool), await states(pool)) == (NOTHING, ["dropped"])
    assert await check_out(pool, told, 1) == "taken"  # The same checkout, begun again.
    assert await states(pool) == ["taken"]


async def test_an_order_stored_as_cancelled_gives_back(pool: Pool) -> None:
    await coupon(pool)
    await check_out(pool, await quoted(pool, "TEN-OFF"), 1)
    await store_order(pool, 1, status="cancelled")
    assert await used(pool) == NOTHING


async def test_giving_back_and_redeeming_at_once_lose_and_make_no_use(pool: Pool) -> None:
    await coupon(pool, uses_max=4)
    told = await quoted(pool, "TEN-OFF")
    orders = []
    for number in range(4):
        assert await check_out(pool, told, number, f"u{number}") == "taken"
        orders.append(await store_order(pool, number, f"u{number}"))
    words = await asyncio.gather(
        *(check_out(pool, told, 10 + n, f"v{n}") for n in range(10)),
        *(move(pool, CANCEL, order) for order in orders),
        *(check_out(pool, told, 30 + n, f"w{n}") for n in range(10)),
    )
    taken = words.count("taken")
    assert await used(pool) == dict.fromkeys(NOTHING, taken)
    later = await asyncio.gather(*(check_out(pool, told, 50 + n, f"x{n}") for n in range(8)))
    assert taken + later.count("taken") == 4


async def test_late_paid_orders_keep_their_price_and_caps_stay_true(pool: Pool) -> None:
    await coupon(pool)
    told = await quoted(pool, "TEN-OFF")
    await check_out(pool, told, 1)
    order = await store_order(pool, 1)
    await move(pool, EXPIRE, order)
    await pool.execute("UPDATE orders SET status = 'paid'")
    assert await states(pool) == ["taken"]  # Nobody else had it meanwhile.
    assert (await used(pool))["coupons"] == 1

    await coupon(pool, "OTHER")
    told = await quoted(pool, "OTHER")
    await check_out(pool, told, 2)
    order = await store_order(pool, 2)
    await move(pool, EXPIRE, order)
    assert await check_out(pool, told, 3, "bob") == "taken"
    await pool.execute("UPDATE orders SET status = 'paid' WHERE status = 'expired'")
    assert await states(pool) == ["taken", "honoured", "taken"]
    await move(pool, REFUND, order)  # What was not counted is not given back.
    assert await used(pool) == {"promotions": 2, "coupons": 2, "users": 2, "rows": 2}


@pytest.mark.parametrize(
    ("changes", "at", "fault"),
    [
        ({}, NOW - timedelta(seconds=1), "coupon_not_applicable"),
        ({"valid_until": NOW + timedelta(hours=1)}, NOW + timedelta(hours=1), "coupon_expired"),
        ({"terms": other(currencies={"USD": Amounts(off_minor=1)})}, NOW, "coupon_not_applicable"),
    ],
)
async def test_a_coupon_that_is_not_for_now_says_why(
    pool: Pool, changes: dict[str, Any], at: datetime, fault: str
) -> None:
    await coupon(pool, **changes)
    found = await look(pool, "ten-off ", at=at)
    assert [(refused.code, refused.reason) for refused in found.refused] == [("TEN-OFF", fault)]
    assert found.promotions == ()


async def test_a_coupon_that_is_gone_says_how(pool: Pool) -> None:
    for code in ("USED", "WITHDRAWN", "STOPPED", "CLAIMED", "MINE"):
        await coupon(pool, code, per_user_max=1)
    await coupon(pool, "EXHAUSTED", uses_max=1)
    await pool.execute(
        "UPDATE promotion_counts SET uses_max = 1, used = 1 WHERE promotion_id = 'for-exhausted'"
    )
    await check_out(pool, await quoted(pool, "USED", user="bob"), 1, "bob")
    async with pool.acquire() as connection, connection.transaction():
        await withdraw_code(connection, "olga", "for-withdrawn", "WITHDRAWN")
        await set_active(connection, "olga", "for-stopped", active=False)
        await claim(connection, "bob", "CLAIMED", NOW)
        await claim(connection, "ann", "MINE", NOW)
    found = await look(
        pool, "USED", "WITHDRAWN", "STOPPED", "CLAIMED", "EXHAUSTED", "NOBODYS", "no code", "MINE"
    )
    assert {refused.code: refused.reason for refused in found.refused} == {
        "USED": "coupon_used",
        "WITHDRAWN": "coupon_expired",
        "STOPPED": "coupon_expired",
        "CLAIMED": "coupon_used",
        "EXHAUSTED": "coupon_exhausted",
        "NOBODYS": "coupon_unknown",
        "NO CODE": "coupon_unknown",
    }
    assert [promotion.code for promotion in found.promotions] == ["MINE"]


async def test_what_changed_between_look_and_checkout_is_refused(pool: Pool) -> None:
    for code in ("WITHDRAWN", "CLAIMED"):
        await coupon(pool, code)
    told = [await quoted(pool, code) for code in ("WITHDRAWN", "CLAIMED")]
    async with pool.acquire() as connection, connection.transaction():
        await withdraw_code(connection, "olga", "for-withdrawn", "WITHDRAWN")
        await claim(connection, "bob", "CLAIMED", NOW)
    assert [await check_out(pool, each, n) for n, each in enumerate(told)] == ["coupon_used"] * 2
    assert await used(pool) == NOTHING


async def test_promotions_for_new_buyers_are_for_those_without_an_order(pool: Pool) -> None:
    terms = other(new_buyers_only=True)
    await offer(pool, "welcome", terms=terms)
    await coupon(pool, "WELCOME", terms=terms)
    await store_order(pool, 1, "old")
    await store_order(pool, 2, "fickle", status="cancelled")
    found = {user: await look(pool, "WELCOME", user=user) for user in ("old", "fickle", None)}
    assert {user: len(look.promotions) for user, look in found.items()} == {
        "old": 0,
        "fickle": 2,
        None: 2,
    }
    assert found["old"].refused[0].reason == "coupon_not_applicable"
    told = [await quoted(pool) for _ in range(2)]
    assert [await check_out(pool, each, n) for n, each in enumerate(told, 3)] == [
        "taken",
        "coupon_used",
    ]


async def test_only_what_counts_now_applies_without_a_code_in_its_order(pool: Pool) -> None:
    await offer(pool, "second", terms=other(priority=2))
    await offer(pool, "first", terms=other(priority=1))
    await offer(pool, "by-code", by_code=True)
    await offer(pool, "over", valid_from=NOW - timedelta(days=2), valid_until=NOW)
    await offer(pool, "to-come", valid_from=NOW + timedelta(seconds=1))
    await offer(pool, "mine-once", per_user_max=1)
    await check_out(pool, await quoted(pool), 1)
    assert [p.promotion_id for p in (await look(pool)).promotions] == ["first", "second"]
    assert (await look(pool, currency="USD")).promotions == ()
    assert len((await look(pool, user="bob")).promotions) == 3


async def test_what_was_promised_is_kept_whatever_is_promised_next(pool: Pool) -> None:
    await offer(pool)
    await check_out(pool, await quoted(pool), 1)
    more = other(currencies={"CNY": Amounts(off_minor=2_000)})
    for _ in range(2):  # The same again is no other promise.
        await change(pool, more)
    told = await quoted(pool)
    assert (told.discount_minor, told.discounts[0].revision) == (2_000, 2)
    await check_out(pool, told, 2)
    rows = await pool.fetch("SELECT revision, amount_minor FROM redemptions ORDER BY revision")
    assert [tuple(row) for row in rows] == [(1, 1_000), (2, 2_000)]
    with pytest.raises(Conflict):
        await change(pool, more, uses_max=1)
    actions = await pool.fetch("SELECT action, count(*) FROM audit_log GROUP BY 1 ORDER BY 1")
    assert [tuple(row) for row in actions] == [("promotion_changed", 2), ("promotion_created", 1)]


async def test_the_schema_holds_the_caps_by_itself(pool: Pool) -> None:
    await coupon(pool, uses_max=1, per_user_max=1)
    await pool.execute("UPDATE promotion_counts SET uses_max = 1")
    await check_out(pool, await quoted(pool, "TEN-OFF"), 1)
    for statement in (
        "UPDATE promotion_revisions SET terms = '{}'",
        "DELETE FROM redemptions",
        "UPDATE promotion_counts SET used = uses_max + 1",
        "UPDATE coupons SET used = uses_max + 1",
        "UPDATE promotion_uses SET used = per_user_max + 1",
        "UPDATE promotion_counts SET used = -1",
    ):
        with pytest.raises((asyncpg.CheckViolationError, asyncpg.RestrictViolationError)):
            await pool.execute(statement)


async def test_more_codes_than_anybody_has_are_not_looked_up(pool: Pool) -> None:
    with pytest.raises(Invalid):
        await look(pool, *(f"CODE-{n}" for n in range(11)))


async def test_a_code_of_a_crowd_is_claimed_by_one(pool: Pool) -> None:
    await coupon(pool)

    async def wish(user: str) -> str:
        try:
            async with pool.acquire() as connection, connection.transaction():
                await claim(connection, user, "TEN-OFF", NOW)
        except Conflict as refused:
            return refused.code
        return "claimed"

    words = await asyncio.gather(*(wish(f"u{n}") for n in range(20)))
    assert sorted(words) == ["claimed"] + ["coupon_used"] * 19
    owner = await pool.fetchval("SELECT owner_id FROM coupons")
    assert await pool.fetchval("SELECT user_id FROM coupon_claims") == owner
