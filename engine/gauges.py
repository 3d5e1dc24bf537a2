"""Measures how much work is waiting, for the metrics."""

from engine import metrics
from engine.connections import redis_errors
from engine.core import Engine
from engine.keys import shard_keys
from engine.store.database import postgres_errors


class Gauges:
    """Updates the gauges of the streams and of the outbox."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def measure_once(self) -> int:
        """Raises Unavailable where a server is gone. Returns 0: there is never more to do."""
        sale_ids = await self._engine.directory.launched()
        with redis_errors():
            async with self._engine.redis.pipeline(transaction=False) as pipe:
                for sale_id in sale_ids:
                    pipe.xlen(shard_keys(sale_id).orders)
                metrics.stream_entries.set(sum(await pipe.execute()))
        with postgres_errors():
            async with self._engine.pool.acquire() as connection:
                waiting = await connection.fetchval("SELECT count(*) FROM outbox")
                metrics.outbox_messages.set(waiting)
        return 0
