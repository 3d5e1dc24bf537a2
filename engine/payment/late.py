"""Serves payments that came after their order expired: the units again if some are left, or a refund."""

from engine.inventory import Inventory
from engine.model import SHOP, OrderStatus, PaymentStatus
from engine.sales import SaleDirectory
from engine.store import outbox
from engine.store.database import Connection, Pool, postgres_errors
from engine.store.outbox import Message
from engine.store.payments import Row, fetch_charges, lock_orders_of_payments, start_refund
from engine.store.resolutions import OrderKey, hold_epoch, rereserve
from engine.store.terms import redeems

TAKEN = frozenset({"RERESERVED", "ALREADY_CONFIRMED"})
REDEEMED = "REDEEMED"  # Nobody took units: what the order was paid with went back when it expired.


class LateCaptures:
    """Takes units in Redis first, then in Postgres; either may say no, and then the money goes back.

    The shop's units are in Postgres alone. An order that redeemed a coupon or points is never revived:
    they were given back when it expired, and may be spent again by now.
    """

    def __init__(self, pool: Pool, inventory: Inventory, directory: SaleDirectory) -> None:
        self._pool = pool
        self._inventory = inventory
        self._directory = directory

    async def serve(self, message: Message, charge: Row) -> None:
        """Decides one late capture and finishes its message. Repeating it changes nothing."""
        word, epoch = "RELEASED", 0
        if charge["status"] == PaymentStatus.CAPTURED:
            word, epoch = await self._take_units(message.sale_id, charge)
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                if word != "STALE_EPOCH" and await self._decide(
                    connection, charge["payment_id"], word, epoch
                ):
                    await outbox.finish(connection, [message])
                    return
                await outbox.postpone(connection, [message], "the sale is fenced")
        self._directory.forget(message.sale_id)

    async def _take_units(self, sale_id: str, charge: Row) -> tuple[str, int]:
        """What Redis said, and the epoch of the stock of which it spoke."""
        if charge["order_status"] != OrderStatus.EXPIRED:
            return "ALREADY_CONFIRMED", 0
        if await self._redeems(OrderKey(sale_id, charge["reservation_id"])):
            return REDEEMED, 0
        if sale_id == SHOP:
            return "RERESERVED", 0
        sale = await self._directory.get(sale_id)
        if sale is None or sale.fenced is not None:
            return "STALE_EPOCH", 0
        word = await self._inventory.rereserve(
            sale.ref, charge["user_id"], charge["reservation_id"]
        )
        return word, sale.epoch

    async def _redeems(self, order: OrderKey) -> bool:
        with postgres_errors():
            async with self._pool.acquire() as connection:
                return await redeems(connection, order)

    async def _decide(self, connection: Connection, payment_id: str, word: str, epoch: int) -> bool:
        """False if the units that Redis took are of a stock that is gone or being rebuilt."""
        await lock_orders_of_payments(connection, [payment_id])
        (charge,) = await fetch_charges(connection, [payment_id], [])
        if charge["order_status"] != OrderStatus.EXPIRED:
            return True  # Served before.
        order = OrderKey(charge["sale_id"], charge["reservation_id"])
        captured = charge["status"] == PaymentStatus.CAPTURED
        if captured and word in TAKEN:
            in_redis = order.sale_id != SHOP
            if in_redis and not await hold_epoch(connection, order.sale_id, epoch):
                return False
            if await rereserve(connection, order):
                return True
        # Units that Redis may have taken for it, in this attempt or in one that was cut short.
        if order.sale_id != SHOP and word != REDEEMED:
            await outbox.put_release(connection, order, charge["user_id"], "refunded")
        if captured:
            why = "sold_out" if word in TAKEN else word.lower()
            await start_refund(connection, payment_id, f"late_and_{why}")
            await outbox.put(connection, "refund", [(order.sale_id, payment_id)])
        return True
