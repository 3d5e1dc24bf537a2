"""Reads, claims and deletes the entries of the orders streams. Knows nothing of Postgres."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from engine.connections import redis_errors
from engine.keys import DRAIN_GROUP, shard_keys

SALES_PER_PIPELINE: Final = 256  # Bounds one look's replies.


@dataclass(frozen=True)
class Entry:
    """One batch of reservations, as reserve.lua wrote it."""

    sale_id: str
    entry_id: str
    until_s: int
    at_ms: int
    batch: bytes  # lines `id user items`
    raw: bytes  # what to keep if the rest makes no sense


@dataclass(frozen=True)
class Malformed:
    """An entry that reserve.lua did not write."""

    sale_id: str
    entry_id: str
    raw: bytes


class OrderStreams:
    """The streams of all sales, as one consumer of the drain group sees them.

    `blocking` is a client of its own: a waiting read must not hold others up.
    """

    def __init__(self, blocking: Redis, consumer: str) -> None:
        self._redis = blocking
        self._consumer = consumer

    async def read_new(
        self, sale_ids: Sequence[str], *, count: int, block_ms: int | None
    ) -> list[Entry | Malformed]:
        """Entries nobody has read yet, at most `count` per sale.

        Waits `block_ms` for the first, or not at all.
        """
        return await self._read(sale_ids, ">", count, block_ms)

    async def read_own(self, sale_ids: Sequence[str], *, count: int) -> list[Entry | Malformed]:
        """Entries this consumer has read but not finished: after a start or an error."""
        return await self._read(sale_ids, "0", count, None)

    async def _read(
        self, sale_ids: Sequence[str], after: str, count: int, block_ms: int | None
    ) -> list[Entry | Malformed]:
        sale_of = {shard_keys(sale_id).orders.encode(): sale_id for sale_id in sale_ids}
        streams: dict[Any, Any] = dict.fromkeys(sale_of, after)
        with redis_errors():
            # redis-py types its answers as unions of everything they could be.
            found: Any = await self._redis.xreadgroup(
                DRAIN_GROUP, self._consumer, streams, count=count, block=block_ms
            )
        return [parse(sale_of[key], *entry) for key, entries in found or () for entry in entries]

    async def claim(
        self, sale_id: str, *, idle_ms: int, count: int
    ) -> tuple[list[Entry | Malformed], list[str]]:
        """Takes over what other consumers left lying for `idle_ms`.

        Returns the entries, and the ids whose entry is gone: read by somebody, never finished, and
        deleted. That is data loss.
        """
        orders = shard_keys(sale_id).orders
        with redis_errors():
            _, entries, gone = await self._redis.xautoclaim(
                orders, DRAIN_GROUP, self._consumer, idle_ms, "0-0", count=count
            )
        return [parse(sale_id, *entry) for entry in entries], [
            entry_id.decode() for entry_id in gone
        ]

    async def finish(self, sale_id: str, entry_ids: Sequence[str]) -> None:
        """Acknowledges and deletes entries, in one step: their orders are stored."""
        orders = shard_keys(sale_id).orders
        with redis_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.xack(orders, DRAIN_GROUP, *entry_ids)
                pipe.xdel(orders, *entry_ids)
                await pipe.execute()

    async def present(self, sale_ids: Sequence[str]) -> list[str]:
        """Those of the sales whose stream and group exist."""
        found: list[str] = []
        for start in range(0, len(sale_ids), SALES_PER_PIPELINE):
            chunk = sale_ids[start : start + SALES_PER_PIPELINE]
            with redis_errors():
                async with self._redis.pipeline(transaction=False) as pipe:
                    for sale_id in chunk:
                        pipe.xinfo_groups(shard_keys(sale_id).orders)
                    replies = await pipe.execute(raise_on_error=False)
            found += [
                sale_id
                for sale_id, groups in zip(chunk, replies, strict=True)
                if _has_group(groups)
            ]
        return found


def _has_group(groups: Any) -> bool:
    if isinstance(groups, ResponseError):  # no such key
        return False
    if isinstance(groups, Exception):
        with redis_errors():
            raise groups
    return any(group["name"] in (DRAIN_GROUP, DRAIN_GROUP.encode()) for group in groups)


def parse(sale_id: str, entry_id: bytes, fields: Mapping[bytes, bytes] | None) -> Entry | Malformed:
    """An entry as redis-py hands it over. Anything reserve.lua would not write is Malformed."""
    fields = fields or {}
    raw = b"\n".join(key + b"=" + value for key, value in fields.items())
    try:
        return Entry(
            sale_id,
            entry_id.decode(),
            int(fields[b"until_s"]),
            int(fields[b"at_ms"]),
            fields[b"batch"],
            raw,
        )
    except (KeyError, ValueError):
        return Malformed(sale_id, entry_id.decode(), raw)
