"""Looks at a waiting room without moving it: for people at a terminal, who are no front."""

from typing import Final

from redis.asyncio import Redis

from engine.admission.room.store import NOTHING_KNOWN, RoomLook, read_look
from engine.connections import redis_errors
from engine.keys import serve_keys
from engine.lua import LuaScript

NO_TURN: Final = ""  # In place of a pace.
CLOCK_OF_REDIS: Final = ""  # In place of a time.

_serve = LuaScript("serve")


async def glance(redis: Redis, sale_id: str) -> RoomLook | None:
    """The room as it stood at its last turn; None where no front looks after it. Raises RedisUnavailable.

    Only looks: it serves nobody, takes no time from the next turn and writes nothing.
    """
    with redis_errors():
        args = [NO_TURN, *NOTHING_KNOWN.as_args(), CLOCK_OF_REDIS]
        reply = await _serve.run(redis, serve_keys(sale_id), args)
    return None if reply is None else read_look(reply)
