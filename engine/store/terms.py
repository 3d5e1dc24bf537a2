"""Asks for the terms of checkouts. See `checkouts` in 0008_shop.sql.

They are written before units are taken, so an order has the checkout's price from the first: the
drainer stores it with that (store_orders.sql), the shelf makes it with that. No price changes later.
"""

from engine.store.database import Connection


async def redeems(connection: Connection, order: tuple[str, str]) -> bool:
    """Whether coupons or points were redeemed with this order; they go back when it expires."""
    return bool(
        await connection.fetchval(
            "SELECT redeems FROM checkouts WHERE sale_id = $1 AND reservation_id = $2", *order
        )
    )
