"""Gathers the reservations of one sale into one script call at a time. Knows no HTTP.

One call in flight makes the batch grow with the load by itself: no timer, no delay when idle.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Final, NamedTuple, Protocol

from engine import metrics
from engine.admission.breaker import Breaker, BreakerState
from engine.clock import Clock, SystemClock
from engine.errors import CircuitOpen, Overloaded, Unavailable
from ext import ReserveBatch

logger = logging.getLogger(__name__)

SWEEPS: Final = 8  # Per deadline: nobody waits an eighth longer, and ages in a batch differ little.
NO_ROOM: Final = 0
TICKET_MISSING: Final = -1

# The deadline (s since the Unix epoch, in digits) of what was reserved, and a reply for each.
Replies = tuple[bytes, list[bytes]]


class Waiter(Protocol):
    """Whoever waits for the reply to one reservation. Its methods must not raise."""

    def replied(self, until_s: bytes, reply: bytes) -> None:
        """`reply` is as reserve.lua says it."""

    def failed(self, error: Exception) -> None:
        """Unavailable: the outcome is unknown. CircuitOpen, Overloaded: nothing was done."""


class _Closed(NamedTuple):
    """A batch that takes nobody in any more, and when its first one came (or a little earlier)."""

    batch: ReserveBatch
    opened_at: float


class ReserveQueue:
    """The way of one sale's reservations from this process to Redis.

    A failed call fails its own batch and no other. A waiter that has left abandons its answer; the
    call it joined goes on, because others wait for it. Whoever waited longer than the deadline before
    his call began is refused: nothing was done, and nobody reads an answer that late.
    """

    def __init__(
        self,
        call: Callable[[ReserveBatch], Awaitable[Replies]],
        *,
        batch_max: int,
        queue_max: int,
        deadline_seconds: float = math.inf,
        clock: Clock | None = None,
        breaker: Breaker | None = None,
    ) -> None:
        """`call` goes through `breaker`; while that is open, nobody joins."""
        self._call = call
        self._batch_max = min(batch_max, queue_max)
        # Beside the open batch, in reservations: batches closed by time are not full.
        self._closed_max = (queue_max // self._batch_max - 1) * self._batch_max
        self._deadline = deadline_seconds
        self._clock = clock or SystemClock()
        self._breaker = breaker
        self._open = ReserveBatch()
        self._opened_at = self._clock.monotonic()
        self._closed: deque[_Closed] = deque()
        self._closed_count = 0
        self._driver: asyncio.Task[None] | None = None
        self._sweeping: asyncio.TimerHandle | None = None
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
        """Adds a reservation to the open batch.

        `ticket`: the number of one whose turn has come; TICKET_MISSING: only an earlier answer may be
        given again; NO_ROOM: none is needed. Raises Overloaded if all is full, CircuitOpen if Redis is
        not asked now; nothing was done then.
        """
        batch = self._open
        if len(batch) >= self._batch_max:
            batch = self._open_another()
        if self._driver is None:
            self._start()
        batch.add(waiter, user_id, reservation_id, items_text, ticket)

    @property
    def idle(self) -> bool:
        """Whether nobody waits."""
        return self._driver is None

    def sweep_once(self) -> int:
        """Refuses whoever waited too long, and has those who come next wait in another batch.

        Returns how many it refused. Done by itself SWEEPS times per deadline while anybody waits.
        """
        now = self._clock.monotonic()
        if not self._open:
            self._opened_at = now
        elif now - self._opened_at >= self._deadline / SWEEPS and self._has_room(len(self._open)):
            self._close_open(now)
        refused = 0
        while self._closed and self._is_late(self._closed[0].opened_at, now):
            refused += self._refuse(self._take_closed().batch)
        return refused

    async def stop(self) -> None:
        """Refuses new requests and waits until every accepted one is answered. Idempotent."""
        self._stopped = True
        self._batch_max = 0  # Whoever joins finds the open batch full.
        if self._driver is not None:
            await asyncio.shield(self._driver)
        if self._sweeping is not None:
            self._sweeping.cancel()

    def _open_another(self) -> ReserveBatch:
        if self._stopped or not self._has_room(self._batch_max):
            raise Overloaded("The reservation queue is full.")
        self._close_open(self._clock.monotonic())
        return self._open

    def _has_room(self, count: int) -> bool:
        return self._closed_count + count <= self._closed_max

    def _close_open(self, now: float) -> None:
        self._closed.append(_Closed(self._open, self._opened_at))
        self._closed_count += len(self._open)
        self._open, self._opened_at = ReserveBatch(), now

    def _take_closed(self) -> _Closed:
        closed = self._closed.popleft()
        self._closed_count -= len(closed.batch)
        return closed

    def _start(self) -> None:
        # Asked once per drive, not per request: what comes meanwhile fails with its call.
        if self._breaker is not None and self._breaker.state is BreakerState.OPEN:
            raise CircuitOpen("Redis fails: it is not asked for a moment.")
        if not self._open:
            self._opened_at = self._clock.monotonic()
        self._driver = self._loop.create_task(self._drive(), name="reserve queue")
        if self._sweeping is None and self._deadline < math.inf:
            self._sweep_later()

    def _sweep_later(self) -> None:
        self._sweeping = self._loop.call_later(self._deadline / SWEEPS, self._sweep)

    def _sweep(self) -> None:
        self.sweep_once()
        # One that was armed is left to run out: cancelling it for every request would cost more.
        if self._driver is not None:
            self._sweep_later()
        else:
            self._sweeping = None

    async def _drive(self) -> None:
        try:
            while batch := self._next():
                await self._send(batch)
        finally:
            self._driver = None

    def _next(self) -> ReserveBatch | None:
        """The batch to send now: the oldest that is not late."""
        now = self._clock.monotonic()
        while self._closed or self._open:
            if not self._closed:
                self._close_open(now)
            batch, opened_at = self._take_closed()
            if not self._is_late(opened_at, now):
                return batch
            self._refuse(batch)
        return None

    def _is_late(self, opened_at: float, now: float) -> bool:
        return now - opened_at > self._deadline

    def _refuse(self, batch: ReserveBatch) -> int:
        metrics.refused.labels("deadline").inc(len(batch))
        batch.fail(Overloaded("The request waited too long."))
        return len(batch)

    async def _send(self, batch: ReserveBatch) -> None:
        try:
            with nullcontext() if self._breaker is None else self._breaker.guarding():
                until_s, replies = await self._call(batch)
            batch.reply(until_s, replies)
        except Unavailable as error:
            batch.fail(error)
        except Exception as error:
            logger.exception("A batch of %d failed.", len(batch), extra={"action": "batch_failed"})
            batch.fail(Unavailable(f"The batch failed: {error}"))
