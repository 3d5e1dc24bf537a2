"""Waits a moment for an order that is on its way from Redis to Postgres. Leaves storing it to the worker."""

import asyncio
from typing import Final

from aiohttp import web

from api.bodies import PLACE
from api.front import Front
from api.orders.store import Order, OrderBook
from api.problems import Code, Refusal
from engine.model import ReservationState

# A drainer that keeps up stores an order within the first; all of them are a second: ever rarer, so
# that those who wait for one that is behind do not hold it up.
PAUSES_SECONDS: Final = (0.05, 0.05, 0.1, 0.2, 0.3, 0.3)


async def order_on_its_way(
    front: Front, request: web.Request, sale_id: str, reservation_id: str
) -> Order | None:
    """The order, once it is stored; None if nothing of the caller's is on its way.

    Raises Refusal `unavailable` where that takes too long.
    """
    book = OrderBook(front.engine.pool)
    if not await _is_reserved(front, request, sale_id, reservation_id):
        return await book.find(sale_id, reservation_id)  # Perhaps stored and resolved meanwhile.
    place = request[PLACE]
    place.measured = False  # By how fast the worker is, not this process.
    with front.limit.stepped_out(place.priority):
        for seconds in PAUSES_SECONDS:
            await asyncio.sleep(seconds)
            order = await book.find(sale_id, reservation_id)
            if order is not None:
                return order
    raise Refusal(Code.UNAVAILABLE, "The order is being stored; ask again in a moment.")


async def _is_reserved(
    front: Front, request: web.Request, sale_id: str, reservation_id: str
) -> bool:
    user_id = front.caller(request).user_id
    found = await front.engine.inventory.reservation(sale_id, user_id, reservation_id)
    return found is not None and found.state is ReservationState.RESERVED
