"""Cancels orders, those included that are still on their way from Redis to Postgres."""

import logging
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

import asyncpg

from engine.clock import Clock
from engine.errors import Conflict, Unavailable, UnknownReservation, UnknownSale
from engine.inventory import Inventory
from engine.model import SHOP, OrderStatus, Reservation, ReservationState, items_from_text
from engine.sales import Sale, SaleDirectory
from engine.store.database import Pool, postgres_errors
from engine.store.resolutions import CANCEL, OrderKey, add_cancelled, find_order, resolve

logger = logging.getLogger(__name__)

CANCEL_ATTEMPTS_MAX: Final = 5  # The drainer, a payment or the reaper may come between; each once.


class OrderService:
    """What a buyer may do to an order besides paying it."""

    def __init__(
        self, pool: Pool, inventory: Inventory, directory: SaleDirectory, clock: Clock
    ) -> None:
        self._pool = pool
        self._inventory = inventory
        self._directory = directory
        self._clock = clock

    async def cancel(
        self, sale_id: str, reservation_id: str, user_id: str, reason: str = "by_buyer"
    ) -> OrderStatus:
        """Gives the units back, once; cancelling again changes nothing.

        Raises Conflict `not_cancellable`, UnknownReservation, UnknownSale or Unavailable.
        """
        key = OrderKey(sale_id, reservation_id)
        for _ in range(CANCEL_ATTEMPTS_MAX):
            with suppress(asyncpg.DeadlockDetectedError):
                if await self._cancel_stored(key, user_id, reason) or await self._cancel_undrained(
                    key, user_id, reason
                ):
                    await self._release(key, user_id)
                    return OrderStatus.CANCELLED
        raise Unavailable("The order is changing; ask again.")

    async def _cancel_stored(self, key: OrderKey, user_id: str, reason: str) -> bool:
        """False if Postgres has no such order."""
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                order = await find_order(connection, key)
                if order is None:
                    return False
                if order["user_id"] != user_id:
                    raise UnknownReservation("There is no such reservation.")
                if order["status"] == OrderStatus.CANCELLED:
                    return True
                if not await resolve(connection, CANCEL, [key], reason):
                    raise Conflict("not_cancellable", f"The order is {order['status']}.")
        return True

    async def _cancel_undrained(self, key: OrderKey, user_id: str, reason: str) -> bool:
        """Stores the order as cancelled before the drainer does; False if the drainer was first."""
        if key.sale_id == SHOP:  # Whose orders are made in Postgres.
            raise UnknownReservation("There is no such order.")
        reservation = await self._inventory.reservation(key.sale_id, user_id, key.reservation_id)
        if reservation is None:
            raise UnknownReservation("There is no such reservation.")
        if reservation.state is not ReservationState.RESERVED:
            return False  # Resolved a moment ago: Postgres has it by now.
        sale = await self._sale(key.sale_id)
        items = {item.sku: item.quantity for item in items_from_text(reservation.items_text)}
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                return await add_cancelled(
                    connection,
                    key,
                    user_id=user_id,
                    items=items,
                    amount_minor=sum(sale.prices[sku] * units for sku, units in items.items()),
                    currency=sale.currency,
                    reason=reason,
                    reserved_at=_reserved_at(sale, reservation),
                    reserved_until=_time(reservation.reserved_until_ms),
                )

    async def _release(self, key: OrderKey, user_id: str) -> None:
        """At once, as a kindness to the next buyer; the outbox is what guarantees it."""
        if key.sale_id == SHOP:  # Whose units are back already.
            return
        with suppress(Unavailable, UnknownSale):
            sale = await self._sale(key.sale_id)
            await self._inventory.release(sale.ref, [(user_id, key.reservation_id, "released")])

    async def _sale(self, sale_id: str) -> Sale:
        sale = await self._directory.get(sale_id)
        if sale is None:
            raise UnknownSale(f"There is no sale {sale_id}.")
        return sale


def _reserved_at(sale: Sale, reservation: Reservation) -> datetime:
    return _time(reservation.reserved_until_ms - sale.reservation_seconds * 1000)


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
