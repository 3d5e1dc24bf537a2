"""Measures how much work is waiting, for the metrics and for the pacer."""

from collections.abc import Set as AbstractSet
from typing import Final, Protocol

from engine import metrics
from engine.connections import redis_errors
from engine.core import Engine
from engine.keys import shard_keys
from engine.model import PaymentStatus
from engine.store.database import postgres_errors

# What a charge ends with.
CHARGED: Final = frozenset({PaymentStatus.CAPTURED.value, PaymentStatus.FAILED.value})


class Charging(Protocol):
    """What is asked of the payer."""

    @property
    def charges_of(self) -> AbstractSet[str]: ...
    @property
    def is_away(self) -> bool: ...


class Gauges:
    """Updates the gauges of the streams and of the outbox. Without a payer, nobody charges."""

    def __init__(self, engine: Engine, payer: Charging | None = None) -> None:
        self._engine = engine
        self._payer = payer
        self.payments_waiting = 0  # For a provider to be asked now: at the last look.

    @property
    def payments_away(self) -> bool:
        """Whether a provider does not answer."""
        return self._payer is not None and self._payer.is_away

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
                waiting, self.payments_waiting = await connection.fetchrow(
                    """
                    SELECT count(*), count(*) FILTER (WHERE kind = ANY ($1) AND due_at <= now())
                    FROM outbox
                    """,
                    [] if self._payer is None else list(self._payer.charges_of),
                )
                metrics.outbox_messages.set(waiting)
        return 0

    @staticmethod
    def payments_done() -> int:
        """Charges that this process brought to an end, since its start."""
        return int(
            sum(
                sample.value
                for family in metrics.payments.collect()
                for sample in family.samples
                if sample.name.endswith("_total") and sample.labels["status"] in CHARGED
            )
        )
