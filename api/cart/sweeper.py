"""Finishes checkouts that were cut short, and forgets guests' carts that nobody comes back to."""

import asyncio
import logging
from typing import Final

from api.cart.checkouts import Checkout, stale_checkouts
from api.cart.sale_checkout import drop, place
from api.cart.store import Carts
from api.moments import now_of
from engine.core import Engine
from engine.errors import Unavailable
from engine.polling import poll
from engine.store.database import postgres_errors

logger = logging.getLogger(__name__)

# A request that is still at it has long been answered: reserve calls wait a second, Redis two.
STALE_SECONDS: Final = 60.0
CHECKOUT_BATCH_MAX: Final = 100
CHECKOUT_IDLE_SECONDS: Final = 5.0
CART_IDLE_SECONDS: Final = 300.0


class CheckoutSweeper:
    """Asks the engine what became of the units: held, the checkout is placed; not, it is dropped."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Sweeps until stopped. Raises Unavailable: call it again."""
        await poll(self.sweep_once, self._stopped, CHECKOUT_IDLE_SECONDS)

    async def sweep_once(self) -> int:
        """One bounded pass; returns how many it finished. What is unknown is left for later."""
        now = now_of(self._engine.clock)
        with postgres_errors():
            async with self._engine.pool.acquire() as connection:
                found = await stale_checkouts(
                    connection, now, seconds=STALE_SECONDS, count=CHECKOUT_BATCH_MAX
                )
        finished = 0
        for checkout in found:
            try:
                finished += await self._finish(checkout)
            except Unavailable as error:
                logger.warning("%s", error, extra={"action": "checkout_unknown"})
        return finished

    def stop(self) -> None:
        """Makes `run` return after the pass it is in. Idempotent, safe before start."""
        self._stopped.set()

    async def _finish(self, checkout: Checkout) -> bool:
        sale = await self._engine.directory.get(checkout.sale_id)
        if sale is not None and sale.fenced is not None:
            return False  # What Redis says of a sale that is rebuilt is no answer.
        if await self._is_held(checkout):
            return await place(self._engine, checkout)
        logger.info("A checkout became nothing.", extra={"action": "checkout_dropped"})
        return await drop(self._engine, checkout)

    async def _is_held(self, checkout: Checkout) -> bool:
        """Redis first: what is not there any more, or not yet, is not on its way to Postgres."""
        order = (checkout.sale_id, checkout.reservation_id)
        found = await self._engine.inventory.reservation(
            checkout.sale_id, checkout.user_id, checkout.reservation_id
        )
        if found is not None:
            return True
        with postgres_errors():
            return bool(
                await self._engine.pool.fetchval(
                    "SELECT true FROM orders WHERE sale_id = $1 AND reservation_id = $2", *order
                )
            )


class CartSweeper:
    """Deletes guests' carts after `cart_days`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._carts = Carts(engine.pool)
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Sweeps until stopped. Raises StoreUnavailable: call it again."""
        await poll(self.sweep_once, self._stopped, CART_IDLE_SECONDS)

    async def sweep_once(self) -> int:
        """Deletes a batch at most; returns how many."""
        return await self._carts.sweep(now_of(self._engine.clock), self._engine.settings.cart_days)

    def stop(self) -> None:
        """Makes `run` return after the pass it is in. Idempotent, safe before start."""
        self._stopped.set()
