"""Serves payments that came after their order expired: the units again if some are left, or a refund."""

from engine.inventory import Inventory
from engine.model import OrderStatus, PaymentStatus
from engine.sales import SaleDirectory
from engine.store import outbox
from engine.store.database import Connection, Pool, postgres_errors
from engine.store.outbox import Message
from engine.store.payments import Row, fetch_charges, lock_orders_of_payments, start_refund
from engine.store.resolutions import OrderKey, rereserve

TAKEN = frozenset({"RERESERVED", "ALREADY_CONFIRMED"})


class LateCaptures:
    """Takes units in Redis first, then in Postgres; either may say no, and then the money goes back."""

    def __init__(self, pool: Pool, inventory: Inventory, directory: SaleDirectory) -> None:
        self._pool = pool
        self._inventory = inventory
        self._directory = directory

    async def serve(self, message: Message, charge: Row) -> None:
        """Decides one late capture and finishes its message. Repeating it changes nothing."""
        word = "RELEASED"
        if charge["status"] == PaymentStatus.CAPTURED:
            word = await self._take_units(message.sale_id, charge)
        with postgres_errors():
            async with self._pool.acquire() as connection:
                if word == "STALE_EPOCH":
                    await outbox.postpone(connection, [message], "the sale is fenced")
                    return
                async with connection.transaction():
                    await self._decide(connection, charge["payment_id"], word)
                    await outbox.finish(connection, [message])

    async def _take_units(self, sale_id: str, charge: Row) -> str:
        if charge["order_status"] != OrderStatus.EXPIRED:
            return "ALREADY_CONFIRMED"
        sale = await self._directory.get(sale_id)
        if sale is None or sale.fenced is not None:
            return "STALE_EPOCH"
        word = await self._inventory.rereserve(
            sale.ref, charge["user_id"], charge["reservation_id"]
        )
        if word == "STALE_EPOCH":
            self._directory.forget(sale_id)
        return word

    async def _decide(self, connection: Connection, payment_id: str, word: str) -> None:
        await lock_orders_of_payments(connection, [payment_id])
        (charge,) = await fetch_charges(connection, [payment_id], [])
        if charge["order_status"] != OrderStatus.EXPIRED:
            return  # Served before.
        order = OrderKey(charge["sale_id"], charge["reservation_id"])
        captured = charge["status"] == PaymentStatus.CAPTURED
        if captured and word in TAKEN and await rereserve(connection, order):
            return
        # Units that Redis may have taken for it, in this attempt or in one that was cut short.
        await outbox.put_release(connection, order, charge["user_id"], "refunded")
        if captured:
            why = "sold_out" if word in TAKEN else word.lower()
            await start_refund(connection, payment_id, f"late_and_{why}")
            await outbox.put(connection, "refund", [(order.sale_id, payment_id)])
