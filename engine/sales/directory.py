"""What the front reads of sales: copies, at most a moment old, that spare Postgres and Redis."""

from typing import Final

from engine.clock import Clock
from engine.inventory import Inventory, StockSnapshot
from engine.sales.cache import Kept, ShortMemory
from engine.sales.rows import load_sale, load_sales, load_standings
from engine.sales.sale import Sale
from engine.store.database import Pool

FRESH_SECONDS: Final = 1.0
UNKNOWN_SECONDS: Final = 0.2  # A sale that was just created is found at once.
# With Postgres away or slow the front goes on with what it knows: the scripts check the epoch.
STALE_SECONDS_MAX: Final = 600.0
SALES_CACHED_MAX: Final = 1024  # Names of sales that do not exist are remembered too.
STOCK_FRESH_SECONDS: Final = 0.1
_ALL: Final = "all"


class SaleDirectory:
    """The sales, at most a second old while Postgres answers at once."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool = pool
        self.changes = 0  # How often a copy was given up. What was made of copies is old then too.
        self._sales = ShortMemory[Sale | None](
            self._load,
            clock,
            fresh_seconds=lambda sale: FRESH_SECONDS if sale else UNKNOWN_SECONDS,
            # That there was no sale is no answer for later: it may have been created since.
            stale_seconds=lambda sale: STALE_SECONDS_MAX if sale else 0.0,
            keys_max=SALES_CACHED_MAX,
        )
        self._lists = ShortMemory[list[Sale]](
            self._load_all,
            clock,
            fresh_seconds=lambda _: FRESH_SECONDS,
            stale_seconds=lambda _: STALE_SECONDS_MAX,
            keys_max=1,
        )

        self._launched = ShortMemory[list[str]](
            self._load_launched,
            clock,
            fresh_seconds=lambda _: FRESH_SECONDS,
            stale_seconds=lambda _: STALE_SECONDS_MAX,
            keys_max=1,
        )

    def peek(self, sale_id: str) -> Sale | None:
        """The sale if a fresh copy is here. Does no I/O."""
        return self._sales.peek(sale_id)

    async def get(self, sale_id: str) -> Sale | None:
        """The sale, or None if there is none. Raises StoreUnavailable."""
        return await self._sales.get(sale_id)

    async def all(self) -> list[Sale]:
        """The newest SALES_LISTED_MAX sales, newest window first. Raises StoreUnavailable."""
        return await self._lists.get(_ALL)

    async def launched(self) -> list[str]:
        """The ids of all sales whose stock was put up, however many. Raises StoreUnavailable."""
        return await self._launched.get(_ALL)

    def forget(self, sale_id: str) -> None:
        """The next read of this sale, and of the lists, is from Postgres."""
        self.changes += 1
        self._sales.forget(sale_id)
        self._lists.forget(_ALL)
        self._launched.forget(_ALL)

    async def _load(self, sale_id: str) -> Sale | None:
        return await load_sale(self._pool, sale_id)

    async def _load_all(self, _: str) -> list[Sale]:
        return await load_sales(self._pool)

    async def _load_launched(self, _: str) -> list[str]:
        return [sale.sale_id for sale in await load_standings(self._pool) if sale.launched]


class LiveStock:
    """The counters in Redis, at most 100 ms old."""

    def __init__(self, inventory: Inventory, clock: Clock) -> None:
        self._snapshots = ShortMemory[StockSnapshot](
            inventory.snapshot,
            clock,
            fresh_seconds=lambda _: STOCK_FRESH_SECONDS,
            stale_seconds=lambda _: 0.0,  # Old stock is a false promise.
            keys_max=SALES_CACHED_MAX,
        )

    async def get(self, sale_id: str) -> StockSnapshot:
        """Config and counters. Raises RedisUnavailable."""
        return await self._snapshots.get(sale_id)

    def peek(self, sale_id: str) -> Kept[StockSnapshot] | None:
        """A fresh copy and when it was asked for. Does no I/O."""
        return self._snapshots.peek_kept(sale_id)

    async def renew(self, sale_id: str) -> None:
        """Looks again, however fresh the copy is. Raises RedisUnavailable."""
        await self._snapshots.renew(sale_id)
