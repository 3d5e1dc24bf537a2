"""Expires orders whose deadline passed. Redis gives the units back through the outbox."""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Final

from engine import metrics
from engine.clock import Clock
from engine.polling import poll
from engine.store.database import Pool, postgres_errors
from engine.store.resolutions import EXPIRE, lock_overdue, resolve

logger = logging.getLogger(__name__)

IDLE_SECONDS: Final = 0.25  # How late an expiry may be on top of its batch.
# An open payment holds the expiry up until the provider was asked, but no longer than this.
PAYMENT_GRACE_SECONDS: Final = 30.0


class Reaper:
    """Finds overdue orders and expires them, a batch per transaction."""

    def __init__(self, pool: Pool, clock: Clock, *, batch_max: int) -> None:
        self._pool = pool
        self._clock = clock
        self._batch_max = batch_max
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Reaps until stopped. Raises StoreUnavailable: call it again."""
        await poll(self.reap_once, self._stopped, IDLE_SECONDS)

    async def reap_once(self) -> int:
        """Expires at most a batch of overdue orders; returns how many."""
        now = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                overdue = await lock_overdue(
                    connection, now, count=self._batch_max, grace_seconds=PAYMENT_GRACE_SECONDS
                )
                expired = await resolve(connection, EXPIRE, overdue)
        if expired:
            metrics.orders_expired.inc(len(expired))
            count = len(expired)
            logger.info(
                "Expired %d orders.", count, extra={"action": "orders_expired", "count": count}
            )
        return len(expired)

    def stop(self) -> None:
        """Makes `run` return after the pass it is in. Idempotent, safe before start."""
        self._stopped.set()
