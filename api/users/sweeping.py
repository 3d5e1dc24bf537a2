"""Deletes what has expired: sessions, links, logins that never came back. Changes nothing else."""

import asyncio
from typing import Final

from engine.clock import Clock
from engine.polling import poll
from engine.store.database import Pool, postgres_errors

BATCH_MAX: Final = 1000  # Rows of one table in one statement: no lock lasts.
IDLE_SECONDS: Final = 60.0  # Nobody waits for it: what has expired is refused anyway.

_EXPIRED: Final = {
    "sessions": "session_id",
    "user_links": "token_hash",
    "oauth_logins": "state_hash",
}


class Sweeper:
    """The loop that keeps those tables small."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Sweeps until stopped. Raises StoreUnavailable: call it again."""
        await poll(self.sweep_once, self._stopped, IDLE_SECONDS)

    async def sweep_once(self) -> int:
        """Deletes at most a batch of each table; returns how many rows."""
        swept = 0
        for table, key in _EXPIRED.items():
            with postgres_errors():
                done: str = await self._pool.execute(
                    f"DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table}"  # noqa: S608
                    " WHERE expires_at <= to_timestamp($1) LIMIT $2 FOR UPDATE SKIP LOCKED)",
                    self._clock.now_ms() / 1000,
                    BATCH_MAX,
                )
            swept += int(done.rsplit(maxsplit=1)[-1])
        return swept

    def stop(self) -> None:
        """Makes `run` return after the pass it is in. Idempotent, safe before start."""
        self._stopped.set()
