"""Takes away points that were not spent in time. Spending looks at their time by itself."""

import asyncio
import logging
from typing import Final

from api.moments import now_of
from api.points.store import expire
from engine.clock import Clock
from engine.polling import poll
from engine.store.database import Pool, postgres_errors

logger = logging.getLogger(__name__)

BATCH_MAX: Final = 500  # Lots of one pass: a lock on each user's balance for some milliseconds.
IDLE_SECONDS: Final = 60.0  # Nobody waits for it: balances are shown without overdue points.


class PointsExpiry:
    """The loop of the worker."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Expires until stopped. Raises StoreUnavailable: call it again."""
        await poll(self.expire_once, self._stopped, IDLE_SECONDS)

    async def expire_once(self) -> int:
        """One batch; from how many users it took points."""
        at = now_of(self._clock)
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                users = await expire(connection, at, users_max=BATCH_MAX)
        if users:
            logger.info(
                "Points of %d users expired.",
                users,
                extra={"action": "points_expired", "count": users},
            )
        return users

    def stop(self) -> None:
        """Makes `run` return after the pass it is in. Idempotent, safe before start."""
        self._stopped.set()
