"""Delivers the gateways' notices: signed when they are sent, repeated until they are taken.

Kept in memory only: a gateway that is killed forgets them, and whoever waits for one has to ask.
"""

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from engine.clock import Clock
from engine.errors import ProviderUnavailable
from engine.payment.http import HttpClient, HttpReply
from engine.polling import poll

logger = logging.getLogger(__name__)

WAITING_MAX: Final = 100_000  # Beyond it the oldest are forgotten.
BATCH_MAX: Final = 64
IDLE_SECONDS: Final = 0.05
RETRY_SECONDS: Final = 0.5  # Doubles up to the next.
RETRY_SECONDS_MAX: Final = 60.0
ATTEMPTS_MAX: Final = 1500  # About a day of tries.
ANSWERS_MAX: Final = 1000

Signed = tuple[Mapping[str, str], bytes]  # headers and body


class Notice(NamedTuple):
    """`sign` makes what is sent at a time in milliseconds; `is_taken` reads the answer."""

    url: str
    sign: Callable[[int], Signed]
    is_taken: Callable[[HttpReply], bool]
    due_ms: int
    attempts: int = 0
    once: bool = False  # A forger does not insist.


class Notices:
    """Those on their way. `statuses` are the answers of late, newest last."""

    def __init__(self, http: HttpClient, clock: Clock) -> None:
        self._http = http
        self._clock = clock
        self._waiting: deque[Notice] = deque(maxlen=WAITING_MAX)
        self._stopped = asyncio.Event()
        self.statuses: deque[int] = deque(maxlen=ANSWERS_MAX)

    def put(self, notice: Notice) -> None:
        self._waiting.append(notice)

    def forget(self) -> None:
        """Drops what is on its way."""
        self._waiting.clear()

    async def run(self) -> None:
        """Delivers until stopped."""
        await poll(self.deliver_once, self._stopped, IDLE_SECONDS)

    async def deliver_once(self) -> int:
        """Tries what is due, one after the other as they are due; returns how many were taken."""
        now_ms = self._clock.now_ms()
        due = sorted(
            (notice for notice in self._waiting if notice.due_ms <= now_ms),
            key=lambda notice: notice.due_ms,
        )
        taken = 0
        for notice in itertools.islice(due, BATCH_MAX):
            self._waiting.remove(notice)
            if await self._deliver(notice):
                taken += 1
            elif not notice.once and notice.attempts < ATTEMPTS_MAX:
                self._waiting.append(self._again(notice))
        return taken

    def stop(self) -> None:
        """Makes `run` return after the pass it is in. Idempotent, safe before start."""
        self._stopped.set()

    async def _deliver(self, notice: Notice) -> bool:
        headers, body = notice.sign(self._clock.now_ms())
        try:
            reply = await self._http.post(notice.url, body, headers)
        except ProviderUnavailable:
            return False
        self.statuses.append(reply.status)
        if notice.is_taken(reply):
            return True
        logger.warning("A notice was answered %d.", reply.status)
        return False

    def _again(self, notice: Notice) -> Notice:
        pause = min(RETRY_SECONDS * 2 ** min(notice.attempts, 20), RETRY_SECONDS_MAX)
        due_ms = self._clock.now_ms() + int(pause * 1000)
        return notice._replace(due_ms=due_ms, attempts=notice.attempts + 1)
