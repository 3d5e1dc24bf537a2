"""Keeps the complete set of buyers who have a record in a sale, or says that it has none.

Whoever has a record may be asking for an earlier answer again, which only Redis knows.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from redis.asyncio import Redis

from engine.connections import redis_errors
from engine.inventory.holders_feed import HoldersFeed, Listener
from engine.keys import shard_keys
from ext import HolderTable

HOLDERS_MAX: Final = 4_000_000  # Of one sale: 64 to 96 MiB. Beyond it Redis is asked.
SCAN_COUNT: Final = 1000  # Records per HSCAN: about 0.4 ms of Redis.
SCAN_PAUSE_SECONDS: Final = 0.001  # Between two: a load takes a quarter of one Redis core at most.


class Holders:
    """The holders of one sale at one epoch."""

    def __init__(
        self, redis: Redis, feed: HoldersFeed, sale_id: str, *, holders_max: int = HOLDERS_MAX
    ) -> None:
        self._redis: Any = redis
        self._feed = feed
        self._lost: Callable[[], object] = lambda: None
        self._keys = shard_keys(sale_id)
        self._holders_max = holders_max
        self._table: HolderTable = HolderTable()
        self._listening = False
        self._loaded_epoch: int | None = None
        self.too_many = False

    def when_lost(self, lost: Callable[[], object]) -> None:
        """`lost` will be called at the moment they are no longer complete."""
        self._lost = lost

    def are_complete(self, epoch: int) -> bool:
        """Whether everyone who got a record up to the last `catch_up` is known."""
        return self._listening and self._loaded_epoch == epoch and not self.too_many

    def __contains__(self, user_id: str) -> bool:
        return user_id in self._table

    async def load(self, epoch: int) -> None:
        """Listens first, then reads all records, so that nobody is missed in between.

        `epoch` is that of an unfenced snapshot made before; whoever calls makes another one after:
        if it says the same, nobody rebuilt the records meanwhile. Raises RedisUnavailable.
        """
        self._loaded_epoch = None
        if not self._listening:
            # Before the first word: what is heard of a record before it is read belongs here too.
            self._table = HolderTable()
            self._listening = True
            try:
                await self._feed.listen(self._keys.arrivals, Listener(self._hear, self._lose))
            except BaseException:
                self._listening = False
                raise
        await self._read_records()
        if self._listening and not self.too_many:
            self._loaded_epoch = epoch

    async def catch_up(self) -> None:
        """Returns once every record made before this call is known. Raises RedisUnavailable."""
        await self._feed.catch_up()

    async def stop(self) -> None:
        """Listens no more. Idempotent."""
        self._loaded_epoch = None
        if self._listening:
            self._listening = False
            await self._feed.forget(self._keys.arrivals)

    async def _read_records(self) -> None:
        with redis_errors():
            self._bound(await self._redis.hlen(self._keys.buyers))
            cursor = 0
            while self._listening and not self.too_many:
                cursor, records = await self._redis.hscan(
                    self._keys.buyers, cursor, count=SCAN_COUNT
                )
                self._table.add_users(records)
                self._bound(len(self._table))
                if cursor == 0:
                    return
                await asyncio.sleep(SCAN_PAUSE_SECONDS)

    def _hear(self, batch: bytes) -> None:
        if not self.too_many:
            self._table.add_batch(batch)
            self._bound(len(self._table))

    def _bound(self, count: int) -> None:
        if count > self._holders_max:
            self.too_many = True
            self._lost()
            self._table = HolderTable()  # Gives the memory back; nobody is looked up any more.

    def _lose(self) -> None:
        self._listening = False
        self._loaded_epoch = None
        self._lost()
