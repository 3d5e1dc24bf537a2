"""Reconciles: once a day and provider by itself, and whenever somebody wants it.

Leaves comparing to `compare` and reading statements to the providers.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

from api.http_client import AioHttpClient
from api.reconciliation.compare import Difference, compare
from api.reconciliation.statements import OFFSET_HOURS
from api.reconciliation.store import Reconciliation, Reconciliations
from engine import metrics
from engine.clock import Clock
from engine.core import Engine
from engine.errors import Unavailable
from engine.payment.provider import (
    Provider,
    ProviderRefused,
    StatementLine,
    StatementUnreadable,
)
from engine.payment.providers import plain_providers
from engine.polling import poll

logger = logging.getLogger(__name__)

IDLE_SECONDS: Final = 2.0  # Somebody may wait for what was asked for.
STATEMENT_SECONDS_MAX: Final = 300.0  # A large day, in pages of a hundred.
DOWNLOAD_SECONDS_MAX: Final = 120.0  # One file or page of it.
CONNECTIONS_MAX: Final = 2


class ReconcilerLoop:
    """The daily reconciler with an HTTP client of its own: statements are large and slow."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Reconciles until stopped."""
        engine = self._engine
        async with AioHttpClient(
            connections_max=CONNECTIONS_MAX, timeout_seconds=DOWNLOAD_SECONDS_MAX
        ) as http:
            reconciler = DailyReconciler(
                Reconciliations(engine.pool),
                plain_providers(engine.settings, http, engine.clock),
                engine.clock,
                reconcile_at=engine.settings.reconcile_at,
            )
            await poll(reconciler.reconcile_once, self._stopped, IDLE_SECONDS)

    def stop(self) -> None:
        """Makes `run` return after the pass it is in. Idempotent, safe before start."""
        self._stopped.set()


class DailyReconciler:
    """`reconcile_at` is the hour at the provider after which yesterday's statement is there."""

    def __init__(
        self,
        book: Reconciliations,
        providers: Mapping[str, Provider],
        clock: Clock,
        *,
        reconcile_at: int,
    ) -> None:
        self._book = book
        self._providers = providers
        self._clock = clock
        self._reconcile_at = reconcile_at
        self._put_up: dict[str, date] = {}

    async def reconcile_once(self) -> int:
        """Puts up what the day wants, and does one that is due; returns how many were done."""
        for provider in self._providers.values():
            await self._put_up_yesterday(provider)
        wanted = await self._book.take(list(self._providers))
        if wanted is None:
            return 0
        await self._do(wanted, self._providers[wanted.provider])
        return 1

    async def _put_up_yesterday(self, provider: Provider) -> None:
        now = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)
        there = now + timedelta(hours=provider.bill_offset_hours)
        day = there.date() - timedelta(days=1 if there.hour >= self._reconcile_at else 2)
        if self._put_up.get(provider.name) != day:
            await self._book.want_daily(provider.name, day)
            self._put_up[provider.name] = day

    async def _do(self, wanted: Reconciliation, provider: Provider) -> None:
        try:
            async with asyncio.timeout(STATEMENT_SECONDS_MAX):
                lines = await provider.statement(wanted.day)
        except (Unavailable, TimeoutError, ProviderRefused) as error:
            await self._book.fail(wanted, str(error) or "no answer in time", for_good=False)
            logger.warning("No statement of %s: %s", provider.name, error)
            return
        except StatementUnreadable as error:
            await self._book.fail(wanted, str(error), for_good=True)
            logger.error("%s", error, extra={"action": "statement_unreadable"})
            return
        await settle_day(self._book, wanted, lines)


async def settle_day(
    book: Reconciliations, wanted: Reconciliation, lines: Sequence[StatementLine]
) -> list[Difference]:
    """Compares a statement and writes what was found."""
    offset = OFFSET_HOURS[wanted.provider]
    kept = await book.kept(wanted.provider, wanted.day, offset, lines)
    differences = await asyncio.to_thread(compare, lines, kept)
    await book.finish(wanted.reconciliation_id, len(lines), differences)
    metrics.reconciliation_differences.labels(wanted.provider).inc(len(differences))
    log = logger.warning if differences else logger.info
    log(
        "%s on %s: %d lines, %d differences.",
        wanted.provider,
        wanted.day,
        len(lines),
        len(differences),
        extra={"action": "reconciled", "count": len(differences)},
    )
    return differences
