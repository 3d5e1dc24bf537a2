"""Delivers webhooks until each is answered with 2xx. Knows nothing of what they say."""

import asyncio
import logging
from typing import Final

from api.sandbox.ledger import ChargeLedger, Delivery
from engine.clock import Clock
from engine.errors import ProviderUnavailable
from engine.payment.http import HttpClient
from engine.payment.signature import sign
from engine.polling import poll

logger = logging.getLogger(__name__)

BATCH_MAX: Final = 128
CONNECTIONS_MAX: Final = 32  # Deliveries at a time; each keeps its connection.
IDLE_SECONDS: Final = 0.05
RETRY_SECONDS: Final = 0.2  # Doubles up to the next.
RETRY_SECONDS_MAX: Final = 60.0
ATTEMPTS_MAX: Final = 4320  # About three days of tries.


class Deliveries:
    """Sends what is due, a bounded number at a time, signed at the moment of sending."""

    def __init__(
        self, ledger: ChargeLedger, http: HttpClient, clock: Clock, *, url: str, secret: str
    ) -> None:
        self._ledger = ledger
        self._http = http
        self._clock = clock
        self._url = url
        self._secret = secret
        self._turns = asyncio.Semaphore(CONNECTIONS_MAX)
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Delivers until stopped."""
        await poll(self.deliver_once, self._stopped, IDLE_SECONDS)

    async def deliver_once(self) -> int:
        """Tries a batch of what is due; returns how many were delivered or given up."""
        due = await self._ledger.due(self._clock.now_ms(), BATCH_MAX)
        if not due:
            return 0
        answers = await asyncio.gather(*(self._deliver(delivery) for delivery in due))
        done = [
            delivery.number
            for delivery, delivered in zip(due, answers, strict=True)
            if delivered or delivery.attempts >= ATTEMPTS_MAX
        ]
        again = [delivery for delivery in due if delivery.number not in set(done)]
        await self._ledger.report(
            done, [(self._next_try_ms(delivery), delivery.number) for delivery in again]
        )
        return len(done)

    def stop(self) -> None:
        """Makes `run` return after the pass it is in. Idempotent, safe before start."""
        self._stopped.set()

    async def _deliver(self, delivery: Delivery) -> bool:
        headers = sign(self._secret, delivery.body, self._clock.now_ms())
        try:
            async with self._turns:
                reply = await self._http.post(self._url, delivery.body, headers)
        except ProviderUnavailable:
            return False
        if not 200 <= reply.status < 300:
            logger.warning("A webhook was answered %d.", reply.status)
            return False
        return True

    def _next_try_ms(self, delivery: Delivery) -> int:
        pause = min(RETRY_SECONDS * 2 ** min(delivery.attempts, 20), RETRY_SECONDS_MAX)
        return self._clock.now_ms() + int(pause * 1000)
