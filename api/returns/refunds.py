"""Asks for the refunds of returns that have come back, until each is asked for.

The call that notes the goods' arrival asks at once; this loop is what guarantees it. The return is
`refunded` when the order is: the database sees to that.
"""

import asyncio
import logging
from typing import Final

from engine.errors import Conflict, UnknownReservation
from engine.payment.service import PaymentService
from engine.polling import poll
from engine.store.database import Pool, postgres_errors

logger = logging.getLogger(__name__)

BATCH_MAX: Final = 50
IDLE_SECONDS: Final = 2.0


class ReturnRefunds:
    """Serves returns in state received whose payment is still captured."""

    def __init__(self, pool: Pool, payments: PaymentService) -> None:
        self._pool = pool
        self._payments = payments
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Asks until stopped. Raises StoreUnavailable: call it again."""
        await poll(self.ask_once, self._stopped, IDLE_SECONDS)

    async def ask_once(self, return_id: str | None = None) -> int:
        """Asks for a batch of refunds, or for one return's; returns how many were asked for."""
        with postgres_errors():
            rows = await self._pool.fetch(
                """
                SELECT payment_id, decided_by FROM returns
                JOIN payments USING (sale_id, reservation_id)
                WHERE state = 'received' AND payments.status = 'captured'
                  AND ($1::text IS NULL OR return_id = $1)
                ORDER BY received_at LIMIT $2
                """,
                return_id,
                BATCH_MAX,
            )
        asked = [await self._ask(row["payment_id"], row["decided_by"]) for row in rows]
        return sum(asked)

    def stop(self) -> None:
        """Makes `run` return after the pass it is in. Idempotent, safe before start."""
        self._stopped.set()

    async def _ask(self, payment_id: str, actor: str) -> bool:
        try:
            await self._payments.request_refund(payment_id, actor)
        except (Conflict, UnknownReservation) as error:
            logger.warning("A return's payment %s is not refunded: %s", payment_id, error)
            return False
        return True
