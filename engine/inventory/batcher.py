"""Gathers waiting requests into one call at a time. Knows nothing of what the call does.

One call in flight makes the batch grow with the load by itself: no timer, no delay when idle.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from engine.errors import Overloaded, Unavailable

logger = logging.getLogger(__name__)

Request = TypeVar("Request")
Reply = TypeVar("Reply")


class Batcher(Generic[Request, Reply]):
    """Answers each request with its own reply of a batched call.

    A failed call fails its own batch and no other. A caller that is cancelled abandons its answer;
    the call it joined goes on, because others wait for it.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Request]], Awaitable[Sequence[Reply]]],
        *,
        batch_max: int,
        queue_max: int,
    ) -> None:
        self._call = call
        self._batch_max = batch_max
        self._queue_max = queue_max
        self._waiting: deque[tuple[Request, asyncio.Future[Reply]]] = deque()
        self._driver: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = False

    def submit(self, request: Request) -> asyncio.Future[Reply]:
        """A future of the reply. Raises Overloaded, with nothing done, if the queue is full."""
        if self._stopped or len(self._waiting) >= self._queue_max:
            raise Overloaded("The reservation queue is full.")
        if self._loop is None:
            # Asked once, not per request: before Python 3.12 it costs a system call.
            self._loop = asyncio.get_running_loop()
        answer: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting.append((request, answer))
        if self._driver is None:
            self._driver = self._loop.create_task(self._drive(), name="batcher")
        return answer

    @property
    def idle(self) -> bool:
        """Whether nobody waits."""
        return self._driver is None

    async def stop(self) -> None:
        """Refuses new requests and waits until every accepted one is answered. Idempotent."""
        self._stopped = True
        if self._driver is not None:
            await asyncio.shield(self._driver)

    async def _drive(self) -> None:
        try:
            while self._waiting:
                count = min(len(self._waiting), self._batch_max)
                await self._send([self._waiting.popleft() for _ in range(count)])
        finally:
            self._driver = None

    async def _send(self, batch: list[tuple[Request, asyncio.Future[Reply]]]) -> None:
        try:
            replies = await self._call([request for request, _ in batch])
            if len(replies) != len(batch):
                raise AssertionError(f"{len(replies)} replies to {len(batch)} requests")
        except Exception as error:
            self._fail(batch, error)
            return
        for (_, answer), reply in zip(batch, replies, strict=True):
            if not answer.done():
                answer.set_result(reply)

    def _fail(self, batch: list[tuple[Request, asyncio.Future[Reply]]], error: Exception) -> None:
        if not isinstance(error, Unavailable):
            logger.exception("A batch of %d failed.", len(batch), extra={"action": "batch_failed"})
            error = Unavailable(f"The batch failed: {error}")
        for _, answer in batch:
            if not answer.done():
                answer.set_exception(error)
                # Waiters may have left; asyncio would report their answers as never read.
                answer.exception()
