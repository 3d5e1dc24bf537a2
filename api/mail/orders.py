"""Tells buyers by mail what happened to their orders, from the events that say so. Sends nothing."""

import asyncio
from importlib.resources import files
from typing import Final

from engine.polling import poll
from engine.store.database import Pool, postgres_errors

# Events of a rush come by the thousand; one statement of them takes some 30 ms.
BATCH_MAX: Final = 1000
IDLE_SECONDS: Final = 1.0

_WRITE: Final = files("api.mail").joinpath("write_order_mails.sql").read_text("utf-8")


class OrderMails:
    """The loop that follows the events. Several may run: one statement at a time moves the mark."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Follows until stopped. Raises StoreUnavailable: call it again."""
        await poll(self.write_once, self._stopped, IDLE_SECONDS)

    async def write_once(self) -> int:
        """Puts up the mails of at most a batch of events; returns how many events."""
        with postgres_errors():
            count: int = await self._pool.fetchval(_WRITE, BATCH_MAX)
        return count

    def stop(self) -> None:
        """Makes `run` return after the pass it is in. Idempotent, safe before start."""
        self._stopped.set()
