"""Deletes what has expired: sessions, links, logins that never came back, mails of long ago.

Changes nothing else.
"""

import asyncio
from typing import Final

from engine.clock import Clock
from engine.polling import poll
from engine.store.database import Pool, postgres_errors

BATCH_MAX: Final = 1000  # Rows of one table in one statement: no lock lasts.
IDLE_SECONDS: Final = 60.0  # Nobody waits for it: what has expired is refused anyway.

MAIL_SECONDS: Final = 30 * 86_400  # Long enough to answer whether, and why not, a mail went out.

# Per table its key, and which rows are over $1 seconds after the Unix epoch.
_EXPIRED: Final = {
    "sessions": ("session_id", "expires_at <= to_timestamp($1)"),
    "user_links": ("token_hash", "expires_at <= to_timestamp($1)"),
    "oauth_logins": ("state_hash", "expires_at <= to_timestamp($1)"),
    "mails": (
        "mail_id",
        f"state <> 'waiting' AND ended_at <= to_timestamp($1) - interval '{MAIL_SECONDS} s'",
    ),
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
        for table, (key, is_over) in _EXPIRED.items():
            with postgres_errors():
                done: str = await self._pool.execute(
                    f"DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table}"  # noqa: S608
                    f" WHERE {is_over} LIMIT $2 FOR UPDATE SKIP LOCKED)",
                    self._clock.now_ms() / 1000,
                    BATCH_MAX,
                )
            swept += int(done.rsplit(maxsplit=1)[-1])
        return swept

    def stop(self) -> None:
        """Makes `run` return after the pass it is in. Idempotent, safe before start."""
        self._stopped.set()
