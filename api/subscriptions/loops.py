"""Hands events to the subscriptions, and delivers them: at least once, in no certain order."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from random import Random
from typing import Final

import msgspec

from api.subscriptions import store
from api.subscriptions.message import message_body, signed_headers
from api.subscriptions.store import Row
from engine import metrics
from engine.clock import Clock
from engine.errors import ProviderUnavailable
from engine.payment.http import HttpClient
from engine.polling import poll
from engine.store.database import Connection, Pool, postgres_errors

logger = logging.getLogger(__name__)

EVENTS_MAX: Final = 1000  # Handed on per statement.
RECEIVERS_MAX: Final = 16  # Called at once. Each has its own pace: a slow one holds no other up.
EACH_MAX: Final = 8  # Deliveries to one of them under way at once.
CONNECTIONS_MAX: Final = RECEIVERS_MAX * EACH_MAX
LEASE_SECONDS: Final = 60.0  # Well above the HTTP client's time-out and the writing of the answer.
IDLE_SECONDS: Final = 0.2
# Before each further attempt, as Standard Webhooks advises: three days in all. Then it is dead.
PAUSES_SECONDS: Final = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
JITTER: Final = 0.2  # Of the pause, so that what failed together does not come back together.
GONE: Final = 410  # Says that nobody there wants to be told any more.
ERROR_BYTES_MAX: Final = 300


class Verdict(msgspec.Struct, frozen=True):
    """What became of one attempt."""

    status: int | None
    error: str | None  # None: it was taken

    @property
    def is_gone(self) -> bool:
        return self.status == GONE


class FanOut:
    """Makes deliveries of events. Several may run: they take turns at one row."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Until stopped. Raises StoreUnavailable: call it again."""
        await poll(self.fan_out_once, self._stopped, IDLE_SECONDS)

    async def fan_out_once(self) -> int:
        """Hands at most EVENTS_MAX events on; returns how many."""
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                taken, waited_seconds = await store.fan_out(connection, EVENTS_MAX)
        metrics.events_waited.set(waited_seconds)
        return taken

    def stop(self) -> None:
        self._stopped.set()


class Deliverer:
    """Sends what is due. No connection and no lock is held while a receiver is called."""

    def __init__(self, pool: Pool, http: HttpClient, clock: Clock, dice: Random) -> None:
        self._pool = pool
        self._http = http
        self._clock = clock
        self._dice = dice
        self._calls: dict[str, asyncio.Task[None]] = {}  # by subscription
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Until stopped. Raises StoreUnavailable: call it again."""
        try:
            await poll(self._start_once, self._stopped, IDLE_SECONDS)
        finally:
            await asyncio.gather(*self._calls.values(), return_exceptions=True)

    async def deliver_once(self) -> int:
        """Makes at most EACH_MAX attempts for each of RECEIVERS_MAX receivers; returns how many."""
        attempts = await self._start()
        await asyncio.gather(*self._calls.values())
        return attempts

    def stop(self) -> None:
        self._stopped.set()

    async def _start_once(self) -> int:
        """Calls who is not being called, or waits a moment for one of those to have answered."""
        started = await self._start()
        if started or not self._calls:
            return started
        answered, _ = await asyncio.wait(
            self._calls.values(), timeout=IDLE_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        return len(answered)

    async def _start(self) -> int:
        """Begins what is due for receivers that are not at work; how many attempts that is."""
        for subscription_id, call in list(self._calls.items()):
            if call.done():
                del self._calls[subscription_id]
                call.result()  # Raises what went wrong.
        with postgres_errors():
            async with self._pool.acquire() as connection:
                rows = await store.take_due(
                    connection,
                    each_max=EACH_MAX,
                    receivers_max=RECEIVERS_MAX - len(self._calls),
                    busy=list(self._calls),
                    lease_seconds=LEASE_SECONDS,
                )
        for subscription_id, due in groupby(rows, key=itemgetter("subscription_id")):
            self._calls[subscription_id] = asyncio.create_task(self._deliver(list(due)))
        return len(rows)

    async def _deliver(self, rows: Sequence[Row]) -> None:
        """One attempt for each of some deliveries to one receiver."""
        verdicts = await asyncio.gather(*(self._attempt(row) for row in rows))
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                for row, verdict in zip(rows, verdicts, strict=True):
                    await self._write(connection, row, verdict)

    async def _attempt(self, row: Row) -> Verdict:
        body = message_body(row)
        now = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)
        secrets = [secret for secret in (row["secret"], row["old_secret"]) if secret]
        try:
            reply = await self._http.post(
                row["url"], body, signed_headers(row["event_id"], body, secrets, now)
            )
        except ProviderUnavailable as error:
            return Verdict(None, str(error))
        if 200 <= reply.status < 300:
            return Verdict(reply.status, None)
        said = reply.body[:ERROR_BYTES_MAX].decode(errors="replace").replace("\x00", "")
        return Verdict(reply.status, f"{reply.status}: {said}")

    async def _write(self, connection: Connection, row: Row, verdict: Verdict) -> None:
        delivery_id, tried = row["delivery_id"], row["attempts"]
        status, error = verdict.status, verdict.error
        if error is None:
            metrics.deliveries.labels("delivered").inc()
            await store.finish(connection, delivery_id, "delivered", status=status, error=None)
        elif verdict.is_gone or tried > len(PAUSES_SECONDS):
            await self._give_up(connection, row, verdict)
        else:
            metrics.deliveries.labels("failed").inc()
            pause = PAUSES_SECONDS[tried - 1] * (1 + JITTER * self._dice.random())
            await store.finish(
                connection,
                delivery_id,
                "waiting",
                status=status,
                error=error,
                again_in_seconds=pause,
            )

    async def _give_up(self, connection: Connection, row: Row, verdict: Verdict) -> None:
        metrics.deliveries.labels("dead").inc()
        logger.error(
            "Event %d was not delivered to subscription %s: %s",
            row["event_id"],
            row["subscription_id"],
            verdict.error,
            extra={"action": "delivery_dead"},
        )
        await store.finish(
            connection, row["delivery_id"], "dead", status=verdict.status, error=verdict.error
        )
        if verdict.is_gone:
            await store.change_subscription(
                connection,
                row["subscription_id"],
                url=None,
                description=None,
                types=None,
                state="gone",
            )
