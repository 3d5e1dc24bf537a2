"""Waits until a crowd's reservations are orders, and sees when the last of them was stored.

Reads counters while the crowd runs, which costs next to nothing, and counts orders when they stand still.
"""

import asyncio
import time
from typing import Final

from rich.progress import Progress

from api.cli.rush_orders import StoredOrders, count_orders, count_units
from engine.errors import StoreUnavailable
from engine.sales import Sale
from engine.store.database import Pool

LOOK_SECONDS: Final = 0.05
STALL_SECONDS_MAX: Final = 30.0  # Nothing moved for so long: waiting longer proves nothing.
COUNT_SHARE_MAX: Final = 0.25  # Of the time that counting orders may take from Postgres.


class StoreWatch:
    """Notes when the sale's counter of ordered units moved."""

    def __init__(self, pool: Pool, sale_id: str) -> None:
        self._pool = pool
        self._sale_id = sale_id
        self._ordered = -1
        self.looks = 0
        self.moved_s: float | None = None  # the last move, by the machine's monotonic clock
        self.still = False  # since the look before the last

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        try:
            ordered = (await count_units(self._pool, self._sale_id)).ordered
        except StoreUnavailable:
            return  # Postgres may come back while we wait.
        self.still = ordered == self._ordered
        if not self.still and self._ordered >= 0:
            self.moved_s = time.monotonic()
        self._ordered = ordered
        self.looks += 1


class Wait:
    """Waits after the crowd has gone home, also for payments if the sale captures by itself.

    Bounded: by `seconds_max`, and by the time in which nothing moves.
    """

    def __init__(
        self, watch: StoreWatch, pool: Pool, sale: Sale, crowd: str, seconds_max: float
    ) -> None:
        self._watch = watch
        self._pool = pool
        self.sale: Final = sale
        self._crowd = crowd
        self._seconds_max = seconds_max
        self._acknowledged = 0
        self._start_s = 0.0
        self.orders = StoredOrders()
        self.stored_at_s: float | None = None  # by the machine's monotonic clock
        self.paid_seconds: float | None = None  # after the last answer

    async def run(self, progress: Progress, acknowledged: int, last_answer_s: float) -> None:
        self._acknowledged, self._start_s = acknowledged, last_answer_s
        task = progress.add_task("stored", total=acknowledged, told="")
        changed_s = time.monotonic()
        while True:
            before, count_s = self.orders, await self._count()
            told = f"paid {self.orders.paid:,}"
            progress.update(task, completed=self.orders.stored, told=told, refresh=True)
            now_s = time.monotonic()
            if self.orders != before:
                changed_s = now_s
            stalled = now_s - changed_s > STALL_SECONDS_MAX
            if self._settled() or stalled or now_s - self._start_s >= self._seconds_max:
                return
            await asyncio.sleep(max(LOOK_SECONDS, count_s / COUNT_SHARE_MAX))

    async def _count(self) -> float:
        """Counts the crowd's orders. Returns how long that took; 0 if they are still coming in."""
        await self._watch.look()
        if not self._watch.still:
            return 0.0
        start_s = time.monotonic()
        try:
            self.orders = await count_orders(self._pool, self.sale.sale_id, self._crowd)
        except StoreUnavailable:
            return 0.0
        self._note()
        return time.monotonic() - start_s

    def _note(self) -> None:
        if self.orders.stored < self._acknowledged:
            return
        if self.stored_at_s is None:
            # Nothing moved: all of it was stored before this crowd came.
            self.stored_at_s = self._watch.moved_s or self._start_s
        if (
            self.paid_seconds is None
            and self.sale.auto_capture
            and not self.orders.awaiting_payment
        ):
            self.paid_seconds = round(time.monotonic() - self._start_s, 3)

    @property
    def stored_seconds(self) -> float | None:
        """From the last answer until all was seen stored; 0 if it was by then."""
        if self.stored_at_s is None:
            return None
        return round(max(0.0, self.stored_at_s - self._start_s), 3)

    def _settled(self) -> bool:
        paid = self.paid_seconds is not None or not self.sale.auto_capture
        return self.stored_at_s is not None and paid and not self.orders.messages
