"""Gathers the reservations of one sale into one script call at a time. Knows no HTTP.

One call in flight makes the batch grow with the load by itself: no timer, no delay when idle.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from engine.errors import Overloaded, Unavailable
from ext import ReserveBatch

logger = logging.getLogger(__name__)

NO_ROOM: Final = 0
TICKET_MISSING: Final = -1

# The deadline (s since the Unix epoch, in digits) of what was reserved, and a reply for each.
Replies = tuple[bytes, list[bytes]]


class Waiter(Protocol):
    """Whoever waits for the reply to one reservation. Its methods must not raise."""

    def replied(self, until_s: bytes, reply: bytes) -> None:
        """`reply` is as reserve.lua says it."""

    def failed(self, error: Exception) -> None:
        """The outcome is unknown: Unavailable."""


class ReserveQueue:
    """The way of one sale's reservations from this process to Redis.

    A failed call fails its own batch and no other. A waiter that has left abandons its answer; the
    call it joined goes on, because others wait for it.
    """

    def __init__(
        self,
        call: Callable[[ReserveBatch], Awaitable[Replies]],
        *,
        batch_max: int,
        queue_max: int,
    ) -> None:
        self._call = call
        self._batch_max = min(batch_max, queue_max)
        self._full_max = queue_max // self._batch_max - 1  # Beside the open batch.
        self._open = ReserveBatch()
        self._full: deque[ReserveBatch] = deque()
        self._driver: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._stopped = False

    def join(
        self,
        waiter: Waiter,
        user_id: str,
        reservation_id: str,
        items_text: str,
        ticket: int = 0,
    ) -> None:
        """Adds a reservation to the open batch. Raises Overloaded, with nothing done, if all is full.

        `ticket`: the number of one whose turn has come; TICKET_MISSING: only an earlier answer may be
        given again; NO_ROOM: none is needed.
        """
        batch = self._open
        if len(batch) >= self._batch_max:
            batch = self._open_another()
        batch.add(waiter, user_id, reservation_id, items_text, ticket)
        if self._driver is None:
            self._driver = self._loop.create_task(self._drive(), name="reserve queue")

    @property
    def idle(self) -> bool:
        """Whether nobody waits."""
        return self._driver is None

    async def stop(self) -> None:
        """Refuses new requests and waits until every accepted one is answered. Idempotent."""
        self._stopped = True
        self._batch_max = 0  # Whoever joins finds the open batch full.
        if self._driver is not None:
            await asyncio.shield(self._driver)

    def _open_another(self) -> ReserveBatch:
        if self._stopped or len(self._full) >= self._full_max:
            raise Overloaded("The reservation queue is full.")
        self._full.append(self._open)
        self._open = ReserveBatch()
        return self._open

    async def _drive(self) -> None:
        try:
            while batch := self._next():
                await self._send(batch)
        finally:
            self._driver = None

    def _next(self) -> ReserveBatch | None:
        if self._full:
            return self._full.popleft()
        if not self._open:
            return None
        batch, self._open = self._open, ReserveBatch()
        return batch

    async def _send(self, batch: ReserveBatch) -> None:
        try:
            until_s, replies = await self._call(batch)
            batch.reply(until_s, replies)
        except Unavailable as error:
            batch.fail(error)
        except Exception as error:
            logger.exception("A batch of %d failed.", len(batch), extra={"action": "batch_failed"})
            batch.fail(Unavailable(f"The batch failed: {error}"))
