"""Notices a Redis that lost data and shuts its sales until they are recovered.

Postgres remembers the fence; the config in Redis makes every script refuse. Rebuilding is left to
engine/recovery.
"""

import logging
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from engine.config import Durability
from engine.connections import redis_errors, server_run_id
from engine.errors import RedisUnavailable
from engine.inventory import Inventory, SaleRef
from engine.keys import DRAIN_GROUP, shard_keys
from engine.model import SaleState
from engine.store.database import Connection, Pool, postgres_errors
from engine.store.fences import (
    fence_sale,
    fetch_launched,
    is_fenced,
    mark_server_stopped,
    recovery_lock,
    server_standing,
    trust_server,
)
from engine.store.orders import entry_order
from engine.store.sales import Row

logger = logging.getLogger(__name__)

SALES_PER_PIPELINE: Final = 256  # Bounds one look's replies.


class Verdict(NamedTuple):
    """What a look at one sale found. `reason` is None for a sale that is intact."""

    sale_id: str
    reason: str | None

    @property
    def intact(self) -> bool:
        return self.reason is None


class Traces(NamedTuple):
    """What Redis holds of a sale, as far as a loss would show there."""

    epoch: int | None
    draining: bool
    last_entry: str | None  # None: there is no stream
    has_group: bool


class Fence:
    """Compares what Redis holds with what Postgres knows it held, and shuts what does not match."""

    def __init__(
        self, redis: Redis, pool: Pool, inventory: Inventory, durability: Durability
    ) -> None:
        self._redis = redis
        self._pool = pool
        self._inventory = inventory
        self._durability = durability

    async def inspect(self) -> list[Verdict]:
        """Looks at every sale that was launched and shuts those that lost data.

        A server on which nothing is amiss is trusted from then on. Raises RedisUnavailable or
        StoreUnavailable; nothing is decided then.
        """
        verdicts, _ = await self._look()
        return verdicts

    async def watch_once(self) -> int:
        """`inspect`, for the worker, again and again. Returns how many sales it shut."""
        _, shut = await self._look()
        return shut

    async def trust(self, run_id: str) -> None:
        """This Redis server's data is complete: found so, or recovered."""
        with postgres_errors():
            async with self._pool.acquire() as connection:
                await trust_server(connection, run_id)

    async def mark_stopped(self, run_id: str) -> None:
        """We stopped this Redis server ourselves and it wrote everything to disk.

        To be called after the stop: a server that is killed in between must not look stopped.
        """
        with postgres_errors():
            async with self._pool.acquire() as connection:
                await mark_server_stopped(connection, run_id)

    async def _look(self) -> tuple[list[Verdict], int]:
        run_id = await server_run_id(self._redis)
        with postgres_errors():
            async with self._pool.acquire() as connection:
                # Postgres first: whatever it knows, an intact Redis is at least as far.
                server = await server_standing(connection, run_id)
                sales = await fetch_launched(connection)
                traces = await self._traces([sale["sale_id"] for sale in sales])
                verdicts, shut = [], 0
                for sale, trace in zip(sales, traces, strict=True):
                    reason = sale["fenced"] or self._loss(sale, trace, trusted=server.trusted)
                    verdicts.append(Verdict(sale["sale_id"], reason))
                    if sale["fenced"] is not None:
                        await self._mend(connection, sale, trace)
                    elif reason is not None:
                        shut += await self._shut(connection, sale, reason)
                # On record at once: a successor of one that is not would be believed in its stead.
                sound = server.trusted or all(verdict.intact for verdict in verdicts)
                if sound and not server.known:
                    await trust_server(connection, run_id)
        return verdicts, shut

    def _loss(self, sale: Row, trace: Traces, *, trusted: bool) -> str | None:
        """Why this sale's stock in Redis cannot be believed."""
        if loss := _visible_loss(sale, trace):
            return loss
        if self._durability is not Durability.STRICT and not trusted:
            return (
                f"Redis restarted or failed over, and in durability {self._durability} "
                "that may have lost reservations"
            )
        return None

    async def _shut(self, connection: Connection, sale: Row, reason: str) -> int:
        sale_id = sale["sale_id"]
        if not await fence_sale(connection, sale_id, sale["epoch"], reason):
            return 0  # Somebody else did, or it was recovered meanwhile.
        logger.critical(
            "Sale %s is shut: %s. Run `doorbuster recover %s`.",
            sale_id,
            reason,
            sale_id,
            extra={"action": "sale_fenced", "sale_id": sale_id, "reason": reason},
        )
        await self._fence_redis(sale)
        return 1

    async def _mend(self, connection: Connection, sale: Row, trace: Traces) -> None:
        """Shuts in Redis what is shut in Postgres, unless a recovery is at work."""
        if trace.draining and trace.epoch == sale["epoch"]:
            return
        async with recovery_lock(connection, sale["sale_id"]) as alone:
            if alone and await is_fenced(connection, sale["sale_id"], sale["epoch"]):
                await self._fence_redis(sale)

    async def _fence_redis(self, sale: Row) -> None:
        try:
            await self._inventory.fence(SaleRef(sale["sale_id"], sale["epoch"]))
        except RedisUnavailable as error:
            logger.error(  # The next look tries again.
                "Sale %s is not yet fenced in Redis: %s", sale["sale_id"], error
            )

    async def _traces(self, sale_ids: Sequence[str]) -> list[Traces]:
        traces: list[Traces] = []
        for start in range(0, len(sale_ids), SALES_PER_PIPELINE):
            chunk = sale_ids[start : start + SALES_PER_PIPELINE]
            with redis_errors():
                async with self._redis.pipeline(transaction=False) as pipe:
                    for sale_id in chunk:
                        keys = shard_keys(sale_id)
                        pipe.hmget(keys.config, ["epoch", "state"])
                        pipe.xinfo_stream(keys.orders)
                        pipe.xinfo_groups(keys.orders)
                    replies = await pipe.execute(raise_on_error=False)
            traces += [_trace(*replies[at : at + 3]) for at in range(0, len(replies), 3)]
        return traces


def _visible_loss(sale: Row, trace: Traces) -> str | None:
    if trace.epoch is None:
        return "Redis no longer knows the sale"
    if trace.epoch != sale["epoch"]:
        return f"Redis is at epoch {trace.epoch}, Postgres at {sale['epoch']}"
    if trace.draining:
        return "Redis has the sale fenced, for a reason nobody recorded"
    if trace.last_entry is None or not trace.has_group:
        return "the stream of orders is gone from Redis"
    if entry_order(trace.last_entry) < entry_order(sale["drained_through"]):
        return (
            f"Redis is back at order entry {trace.last_entry}; "
            f"those up to {sale['drained_through']} were drained"
        )
    return None


def _trace(settings: Any, stream: Any, groups: Any) -> Traces:
    if isinstance(settings, Exception):
        with redis_errors():
            raise settings
    epoch, state = settings
    return Traces(
        epoch=int(epoch) if epoch is not None else None,
        draining=state == SaleState.DRAINING.value.encode(),
        # ResponseError: no such key.
        last_entry=None if isinstance(stream, ResponseError) else _entry(stream),
        has_group=not isinstance(groups, ResponseError)
        and any(group["name"] in (DRAIN_GROUP, DRAIN_GROUP.encode()) for group in groups),
    )


def _entry(stream: Any) -> str:
    if isinstance(stream, Exception):
        with redis_errors():
            raise stream
    last = stream["last-generated-id"]
    return last.decode() if isinstance(last, bytes) else str(last)
