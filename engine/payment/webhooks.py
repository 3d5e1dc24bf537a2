"""Handles stored webhooks: effect and mark in one transaction, so neither is ever without the other."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from engine.payment.provider import Provider, WebhookEvent, WebhookRefused
from engine.payment.settlement import UNFORESEEN, settle
from engine.polling import poll
from engine.store import outbox
from engine.store.database import Connection, Pool, postgres_errors
from engine.store.payments import Row, fail_webhook, find_foreign, finish_webhooks, take_webhooks

logger = logging.getLogger(__name__)

BATCH_MAX: Final = 200
ATTEMPTS_MAX: Final = 10  # Then the dead letters: 20 s after it came.
IDLE_SECONDS: Final = 0.05


class Inbox:
    """Applies webhooks in the order in which they came, a batch per transaction."""

    def __init__(self, pool: Pool, providers: Mapping[str, Provider]) -> None:
        self._pool = pool
        self._providers = providers
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Handles webhooks until stopped. Raises StoreUnavailable: call it again."""
        await poll(self.handle_once, self._stopped, IDLE_SECONDS)

    async def handle_once(self) -> int:
        """Handles at most a batch; returns how many it took."""
        with postgres_errors():
            async with self._pool.acquire() as connection:
                try:
                    async with connection.transaction():
                        rows = await take_webhooks(connection, BATCH_MAX)
                        await self._handle(connection, rows)
                        return len(rows)
                except UNFORESEEN as error:
                    # One of them is bad; find it without holding its neighbours up.
                    logger.warning("A batch of webhooks failed: %s", error)
                return await self._handle_each(connection)

    def stop(self) -> None:
        """Makes `run` return after the pass it is in. Idempotent, safe before start."""
        self._stopped.set()

    async def _handle(self, connection: Connection, rows: Sequence[Row]) -> None:
        events: list[tuple[Row, WebhookEvent]] = []
        for row in rows:
            try:
                events.append((row, self._read(row)))
            except WebhookRefused as error:
                await _bury(connection, row, str(error))
        spoken_of = [
            (row["provider"], event.result) for row, event in events if event.result is not None
        ]
        # A provider speaks of its own payments: that it is genuine makes it no witness of others'.
        named = [(provider, result.payment_id) for provider, result in spoken_of]
        foreign = await find_foreign(connection, named)
        unknown = await settle(
            connection,
            [
                result
                for each, (_, result) in zip(named, spoken_of, strict=True)
                if each not in foreign
            ],
        )
        handled: list[Row] = []
        for row, event in events:
            if event.result is not None and (
                event.result.payment_id in unknown
                or (row["provider"], event.result.payment_id) in foreign
            ):
                await _fail(connection, row, f"no payment {event.result.payment_id}")
            else:
                handled.append(row)
        await finish_webhooks(connection, [_key(row) for row in handled])

    async def _handle_each(self, connection: Connection) -> int:
        rows = await take_webhooks(connection, BATCH_MAX)
        for row in rows:
            try:
                async with connection.transaction():
                    await self._handle(connection, [row])
            except UNFORESEEN as error:
                await _fail(connection, row, str(error))
        return len(rows)

    def _read(self, row: Row) -> WebhookEvent:
        provider = self._providers.get(row["provider"])
        if provider is None:
            raise WebhookRefused(f"There is no provider {row['provider']}.")
        return provider.read_event(row["body"])


async def _fail(connection: Connection, row: Row, error: str) -> None:
    if row["attempts"] + 1 >= ATTEMPTS_MAX:
        await _bury(connection, row, error)
    else:
        await fail_webhook(connection, *_key(row), error)


async def _bury(connection: Connection, row: Row, error: str) -> None:
    await outbox.bury(
        connection,
        source="webhook",
        sale_id=None,
        reference="/".join(_key(row)),
        body=row["body"],
        error=error,
    )
    await finish_webhooks(connection, [_key(row)])


def _key(row: Row) -> tuple[str, str]:
    return row["provider"], row["event_id"]
