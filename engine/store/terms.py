"""Writes the terms of checkouts into their orders. See `checkouts` in 0008_shop.sql.

A drained order has the sale's list price; what its buyer was told, after discounts and with shipping,
is in the checkout, which was written before the units were taken. So whoever is about to charge an
order calls `apply_terms` first, and the order's amount is the truth from then on.
"""

from collections.abc import Sequence
from typing import Final

from engine.store.database import Connection

# Most orders have no checkout: for them this is all that is done.
_LOCK_DIFFERING: Final = """
    SELECT orders.sale_id, orders.reservation_id
    FROM unnest($1::text[], $2::text[]) AS wanted(sale_id, reservation_id)
    JOIN checkouts USING (sale_id, reservation_id)
    JOIN orders USING (sale_id, reservation_id)
    WHERE checkouts.state <> 'dropped' AND orders.status = 'awaiting_payment'
      AND (orders.amount_minor, orders.currency) <> (checkouts.amount_minor, checkouts.currency)
    ORDER BY orders.sale_id, orders.reservation_id
    FOR NO KEY UPDATE OF orders
    """

_APPLY: Final = """
    UPDATE orders
    SET amount_minor = checkouts.amount_minor, currency = checkouts.currency, updated_at = now()
    FROM unnest($1::text[], $2::text[]) AS wanted(sale_id, reservation_id)
    JOIN checkouts USING (sale_id, reservation_id)
    WHERE (orders.sale_id, orders.reservation_id) = (wanted.sale_id, wanted.reservation_id)
      AND checkouts.state <> 'dropped' AND orders.status = 'awaiting_payment'
    """


async def apply_terms(connection: Connection, orders: Sequence[tuple[str, str]]) -> None:
    """Gives these orders, (sale_id, reservation_id), the amounts of their checkouts, if they have any.

    Belongs into the transaction that makes the charge. Locks the orders that it changes. Running it
    again changes nothing.
    """
    rows = await connection.fetch(_LOCK_DIFFERING, *_columns(orders))
    if rows:
        await connection.execute(_APPLY, *_columns([(row[0], row[1]) for row in rows]))


async def redeems(connection: Connection, order: tuple[str, str]) -> bool:
    """Whether coupons or points were redeemed with this order; they go back when it expires."""
    return bool(
        await connection.fetchval(
            "SELECT redeems FROM checkouts WHERE sale_id = $1 AND reservation_id = $2", *order
        )
    )


def _columns(orders: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [sale_id for sale_id, _ in orders], [reservation_id for _, reservation_id in orders]
