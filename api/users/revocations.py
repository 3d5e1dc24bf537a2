"""Which access tokens are void before they expire: those of users who logged out everywhere, changed
their password or role, or were blocked. Voids none itself."""

import asyncio
from collections.abc import Callable
from typing import Final

from engine.clock import Clock
from engine.polling import poll
from engine.store.database import Pool, postgres_errors

REFRESH_SECONDS: Final = 1.0  # Every front follows so soon.
ALL_SECONDS: Final = 300  # Then all are read again, and those that are over forgotten.
LATE_SECONDS: Final = 60  # Of a transaction's end, and of another machine's clock.
REVOCATIONS_MAX: Final = 100_000  # The newest, ~150 bytes each.

_SINCE: Final = (
    "SELECT user_id, tokens_from FROM users WHERE tokens_from > $1"
    " ORDER BY tokens_from DESC LIMIT $2"
)


class Revocations:
    """Per user the first `iat` (whole seconds) that counts, in memory; the last known ones while
    Postgres is away. `seconds` is how long access tokens last at most."""

    def __init__(self, pool: Pool, clock: Clock, *, seconds: int) -> None:
        self._pool = pool
        self._clock = clock
        self._seconds = seconds
        self._first: dict[str, int] = {}
        self._read_at = 0  # Seconds since the Unix epoch.
        self._all_read_at = 0
        self._listeners: list[Callable[[], None]] = []
        self._stopped = asyncio.Event()

    def is_revoked(self, user_id: str, issued_at: float) -> bool:
        """Whether a token of that `iat` is void. Does no I/O."""
        first = self._first.get(user_id)
        return first is not None and issued_at < first

    def concerns(self, user_id: str) -> bool:
        """Whether any token of this user's may be void."""
        return user_id in self._first

    def note(self, user_id: str, tokens_from: int) -> None:
        """What this process did itself counts at once."""
        if self._first.get(user_id, 0) < tokens_from:
            self._first[user_id] = tokens_from
            self._tell()

    def tell(self, listener: Callable[[], None]) -> None:
        """Calls it whenever tokens became void, for those who remember tokens they verified."""
        self._listeners.append(listener)

    async def run(self) -> None:
        """Refreshes until stopped. Raises StoreUnavailable: call it again."""
        await poll(self.refresh_once, self._stopped, REFRESH_SECONDS)

    async def refresh_once(self) -> int:
        """Reads what was voided since the last look. Returns 0: the next look can wait.

        Raises StoreUnavailable.
        """
        now_s = self._clock.now_ms() // 1000
        read_all = now_s - self._all_read_at >= ALL_SECONDS
        since = now_s - self._seconds if read_all else self._read_at - LATE_SECONDS
        with postgres_errors():
            rows = await self._pool.fetch(_SINCE, since, REVOCATIONS_MAX)
        news = any(self._first.get(user_id, 0) < first for user_id, first in rows)
        if read_all:
            self._all_read_at = now_s
            self._forget(now_s - LATE_SECONDS)
        self._read_at = now_s
        for user_id, first in rows:
            # What this process noted while Postgres was asked is newer than the answer.
            self._first[user_id] = max(first, self._first.get(user_id, 0))
        if news:
            self._tell()
        return 0

    def stop(self) -> None:
        """Makes `run` return after the pass it is in. Idempotent, safe before start."""
        self._stopped.set()

    def _forget(self, since: int) -> None:
        self._first = {user_id: first for user_id, first in self._first.items() if first > since}

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()
