"""Proves the eleven invariants of the engine, on a live system or a drained one.

Things in motion are no failure; things stuck are: what looks wrong is looked at again until it
settles or patience ends.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from engine.clock import Clock
from engine.core import Engine
from engine.model import SHOP
from engine.progress import Progress, silent
from engine.reconciler.counters import check_counters, compare_counters
from engine.reconciler.finding import Evidence, Finding
from engine.reconciler.queues import check_money, check_queues
from engine.reconciler.records import RecordCheck
from engine.reconciler.shop import check_shop
from engine.sales import Sale
from engine.store.database import Connection, connect, postgres_errors
from engine.store.evidence import make_room

SETTLE_SECONDS: Final = 15.0  # Above the worst batch, lease and retry of a healthy system.
POLL_SECONDS: Final = 0.25


@dataclass
class Patience:
    """Time left for things to settle. Starts when it is first needed."""

    clock: Clock
    seconds: float
    _until: float | None = None

    async def wait(self) -> bool:
        """Waits a moment; False, at once, if there is no patience left."""
        if self._until is None:
            self._until = self.clock.monotonic() + self.seconds
        if self.clock.monotonic() >= self._until:
            return False
        await asyncio.sleep(POLL_SECONDS)
        return True


async def check(
    engine: Engine,
    sale_ids: Sequence[str] | None = None,
    progress: Progress = silent,
    *,
    settle_seconds: float = SETTLE_SECONDS,
) -> list[Finding]:
    """One finding per invariant, over the given sales or all and the shop. Changes nothing.

    Memory stays bounded: what has to be compared is joined in temporary tables of Postgres. Raises
    UnknownSale, RedisUnavailable or StoreUnavailable.
    """
    if sale_ids is None:
        sale_ids = [SHOP, *(sale.sale_id for sale in await engine.sales.standings())]
    sales = [sale_id for sale_id in sale_ids if sale_id != SHOP]
    assert engine.settings.postgres_url is not None
    connection = await connect(engine.settings.postgres_url)
    try:
        with postgres_errors():
            await make_room(connection)
            patience = Patience(engine.clock, settle_seconds)
            checking = _Check(engine, connection, patience, progress)
            if SHOP in sale_ids:
                await checking.shop()
            for number, sale_id in enumerate(sales):
                progress("sales", number, len(sales))
                await checking.sale(await engine.sales.get(sale_id))
            await checking.whole(sale_ids)
    finally:
        await connection.close()
    progress("sales", len(sales), len(sales))
    return checking.evidence.findings()


class _Check:
    """One check under way: gathers evidence sale by sale."""

    def __init__(
        self, engine: Engine, connection: Connection, patience: Patience, progress: Progress
    ) -> None:
        self._engine = engine
        self._connection = connection
        self._patience = patience
        self._progress = progress
        self.evidence = Evidence()

    async def sale(self, sale: Sale) -> None:
        """What concerns one sale alone."""
        self.evidence.add(await check_counters(self._connection, sale))
        if not sale.launched:
            self.evidence.count(10, "sales not launched yet", 1)
            return
        await self._settle(lambda: compare_counters(self._engine, self._connection, sale.sale_id))
        records = RecordCheck(self._engine, self._connection, sale, self._progress)
        self.evidence.add(await records.run(self._patience.wait))

    async def shop(self) -> None:
        """What is sold outside of sales."""
        await self._settle(lambda: check_shop(self._connection))

    async def whole(self, sale_ids: Sequence[str]) -> None:
        """What the sales share."""
        await self._settle(lambda: check_queues(self._engine, self._connection, sale_ids))
        self.evidence.add(await check_money(self._connection, sale_ids))

    async def _settle(self, probe: Callable[[], Awaitable[Evidence]]) -> None:
        """Repeats a cheap look until it finds nothing wrong or patience ends; the last one counts."""
        found = await probe()
        while not found.clean and await self._patience.wait():
            found = await probe()
        self.evidence.add(found)
