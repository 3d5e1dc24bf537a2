"""Tells Redis what Postgres decided: confirm, release, restock. Decides nothing itself.

The scripts are idempotent, so a message that was told twice, or in another order, changes nothing.
"""

import asyncio
import logging
from collections.abc import Sequence
from itertools import groupby
from typing import Final

from engine import metrics
from engine.errors import Unavailable
from engine.inventory import Inventory
from engine.polling import poll
from engine.sales import Sale, SaleDirectory
from engine.store import outbox
from engine.store.database import Pool, postgres_errors
from engine.store.outbox import Message

logger = logging.getLogger(__name__)

KINDS: Final = ("confirm", "release", "restock")
BATCH_MAX: Final = 1024  # Two script calls of 512 at most for one sale and kind.
LEASE_SECONDS: Final = 10.0  # Above a batch of which every script call times out, for a few sales.
IDLE_SECONDS: Final = 0.05
FENCED: Final = "STALE_EPOCH"
LOST: Final = frozenset({"NOT_FOUND", "UNKNOWN_SKU"})


class Dispatcher:
    """Serves 'confirm', 'release' and 'restock' messages in batches per sale."""

    def __init__(self, pool: Pool, inventory: Inventory, directory: SaleDirectory) -> None:
        self._pool = pool
        self._inventory = inventory
        self._directory = directory
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Dispatches until stopped. Raises StoreUnavailable: call it again."""
        await poll(self.dispatch_once, self._stopped, IDLE_SECONDS)

    async def dispatch_once(self) -> int:
        """Serves at most a batch of messages; returns how many it took."""
        with postgres_errors():
            async with self._pool.acquire() as connection:
                messages = await outbox.take(
                    connection, KINDS, count=BATCH_MAX, lease_seconds=LEASE_SECONDS
                )
        messages.sort(key=_group_of)
        for (sale_id, kind), group in groupby(messages, key=_group_of):
            await self._serve(sale_id, kind, list(group))
        return len(messages)

    def stop(self) -> None:
        """Makes `run` return after the pass it is in. Idempotent, safe before start."""
        self._stopped.set()

    async def _serve(self, sale_id: str, kind: str, messages: list[Message]) -> None:
        try:
            sale = await self._directory.get(sale_id)
            fenced = sale is None or sale.fenced is not None
            words = (
                [FENCED] * len(messages)
                if sale is None or fenced
                else await self._tell(sale, kind, messages)
            )
        except Unavailable as error:
            await self._settle([], messages, str(error))
            return
        except Exception as error:
            logger.exception("%s failed.", kind, extra={"action": "dispatch_failed"})
            await self._fail(messages, f"{type(error).__name__}: {error}")
            return
        again = [message for message, word in zip(messages, words, strict=True) if word == FENCED]
        done = [message for message, word in zip(messages, words, strict=True) if word != FENCED]
        if again:
            self._directory.forget(sale_id)
        if lost := sum(word in LOST for word in words):
            _report_lost(sale_id, kind, lost)
        await self._settle(done, again, "the sale is fenced")

    async def _tell(self, sale: Sale, kind: str, messages: Sequence[Message]) -> list[str]:
        """One word of the script per message."""
        match kind:
            case "confirm":
                pairs = [(m.user_id or "", m.reference) for m in messages]
                return await self._inventory.confirm(sale.ref, pairs)
            case "release":
                triples = [(m.user_id or "", m.reference, m.reason or "") for m in messages]
                return await self._inventory.release(sale.ref, triples)
            case _:
                return [await self._restock(sale.sale_id, m.reference) for m in messages]

    async def _restock(self, sale_id: str, sku: str) -> str:
        # The total may have grown since the copy was made.
        self._directory.forget(sale_id)
        sale = await self._directory.get(sale_id)
        assert sale is not None, sale_id
        units = {item.sku: item.units for item in sale.items}
        return await self._inventory.restock(sale.ref, sku, units[sku])

    async def _settle(self, done: Sequence[Message], again: Sequence[Message], error: str) -> None:
        with postgres_errors():
            async with self._pool.acquire() as connection:
                await outbox.finish(connection, done)
                await outbox.postpone(connection, again, error)

    async def _fail(self, messages: Sequence[Message], error: str) -> None:
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                await outbox.fail(connection, messages, error)


def _group_of(message: Message) -> tuple[str, str]:
    return message.sale_id, message.kind


def _report_lost(sale_id: str, kind: str, count: int) -> None:
    metrics.dispatched_to_nothing.labels(kind).inc(count)
    logger.error(
        "Redis does not know %d reservations of %s that Postgres wants to %s: it lost data.",
        count,
        sale_id,
        kind,
        extra={"action": "reservations_lost", "count": count},
    )
