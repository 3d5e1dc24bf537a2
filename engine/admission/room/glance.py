"""Looks at a waiting room without moving it: for people at a terminal, who are no front."""

from redis.asyncio import Redis

from engine.admission.room.store import RoomLook, RoomStore
from engine.clock import ManualClock
from engine.connections import redis_errors
from engine.keys import room_keys


async def glance(redis: Redis, sale_id: str) -> RoomLook | None:
    """The room as it stood at its last turn; None where no front looks after it. Raises RedisUnavailable.

    To serve.lua no time has passed since that turn, so it serves nobody and writes nothing. A front
    that turns at this very moment loses at most that one turn.
    """
    with redis_errors():
        turned_ms = await redis.hget(room_keys(sale_id).room, "turned_ms")
    if turned_ms is None:
        return None
    clock = ManualClock(int(turned_ms))
    return await RoomStore(redis, clock, our_clock_rules=True).serve(sale_id, 0.0)
