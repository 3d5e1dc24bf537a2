"""The constraints of the schema hold the invariants by themselves."""

from itertools import product

import asyncpg
import pytest

from engine.model import ORDER_TRANSITIONS, OrderStatus
from engine.store.database import Pool


@pytest.fixture
async def shop(pool: Pool) -> Pool:
    """A sale with three units, written by hand."""
    await pool.execute(
        """
        INSERT INTO sales (sale_id, name, opens_at, closes_at, per_user_max, reservation_seconds,
                           auto_capture, state)
        VALUES ('demo', '{}', now(), now() + interval '1 day', 2, 900, false, 'open')
        """
    )
    await pool.execute(
        """
        INSERT INTO sale_items (sale_id, sku, position, name, price_minor, currency, stocked)
        VALUES ('demo', 'phone-black', 0, '{}', 129900, 'CNY', 3)
        """
    )
    return pool


async def insert_order(pool: Pool, reservation_id: str, status: str = "awaiting_payment") -> None:
    await pool.execute(
        """
        INSERT INTO orders (sale_id, reservation_id, user_id, items, amount_minor, currency, status,
                            reserved_at, reserved_until)
        VALUES ('demo', $1, 'buyer', '{"phone-black": 1}', 129900, 'CNY', $2, now(), now())
        """,
        reservation_id,
        status,
    )


@pytest.mark.parametrize(("old", "new"), list(product(OrderStatus, OrderStatus)))
async def test_trigger_allows_exactly_the_table_of_transitions(
    shop: Pool, old: OrderStatus, new: OrderStatus
) -> None:
    await insert_order(shop, "A" * 20, old)
    change = "UPDATE orders SET status = $1"
    if new is old or new in ORDER_TRANSITIONS[old]:
        assert await shop.execute(change, new) == "UPDATE 1"
        return
    with pytest.raises(asyncpg.RestrictViolationError, match="cannot go from"):
        await shop.execute(change, new)


async def test_more_ordered_than_stocked_is_refused(shop: Pool) -> None:
    await shop.execute("UPDATE sale_items SET ordered = 3")
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await shop.execute("UPDATE sale_items SET ordered = 4")
    assert refused.value.constraint_name == "no_oversell"


async def test_more_sold_than_ordered_is_refused(shop: Pool) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await shop.execute("UPDATE sale_items SET ordered = 1, sold = 2")


async def test_a_reservation_is_one_order(shop: Pool) -> None:
    await insert_order(shop, "A" * 20)
    with pytest.raises(asyncpg.UniqueViolationError):
        await insert_order(shop, "A" * 20)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger SET units = 1",
        "DELETE FROM ledger",
        "TRUNCATE ledger",
        "UPDATE audit_log SET actor = 'nobody'",
        "DELETE FROM audit_log",
        "DELETE FROM orders",
    ],
)
async def test_history_cannot_be_rewritten(shop: Pool, statement: str) -> None:
    await shop.execute(
        "INSERT INTO ledger (sale_id, sku, counter, units, reason)"
        " VALUES ('demo', 'phone-black', 'stocked', 3, 'created')"
    )
    with pytest.raises(asyncpg.RestrictViolationError):
        await shop.execute(statement)


async def test_an_order_has_at_most_one_captured_payment(shop: Pool) -> None:
    await insert_order(shop, "A" * 20)
    insert = """
        INSERT INTO payments (payment_id, sale_id, reservation_id, idempotency_key, provider,
                              amount_minor, currency, status)
        VALUES ($1, 'demo', $2, $1, 'sandbox', 129900, 'CNY', $3)
    """
    await shop.execute(insert, "pay_1", "A" * 20, "captured")
    await shop.execute(insert, "pay_2", "A" * 20, "refunding")
    with pytest.raises(asyncpg.UniqueViolationError):
        await shop.execute("UPDATE payments SET status = 'captured' WHERE payment_id = 'pay_2'")


async def test_an_event_is_in_the_inbox_once(shop: Pool) -> None:
    insert = "INSERT INTO webhook_inbox (provider, event_id, body) VALUES ('sandbox', 'e1', '')"
    await shop.execute(insert)
    with pytest.raises(asyncpg.UniqueViolationError):
        await shop.execute(insert)
