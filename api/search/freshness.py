"""Brings stock and ratings of the index up, behind the buyers' and the reviewers' transactions.

They leave a note and wait for nobody. Texts and prices are `index`'s.
"""

import asyncio
from importlib.resources import files
from typing import Final

from engine.polling import poll
from engine.store.database import Pool, postgres_errors

NOTES_MAX: Final = 1000  # Per pass: some tens of milliseconds.
IDLE_SECONDS: Final = 0.5  # How old the index's stock may be.

_FRESHEN: Final = files("api.search").joinpath("freshen.sql").read_text("utf-8")
# Reads one page where nothing waits. Only who owns the index may.
_SORT_IN: Final = """
    SELECT gin_clean_pending_list(oid) FROM pg_class
    WHERE oid = 'product_search_words'::regclass AND pg_has_role(relowner, 'USAGE')"""


class Freshness:
    """The loop of one worker; several do not get in each other's way.

    It also sorts what was written to the index since into it: searches read what is not, whole.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        await poll(self.freshen_once, self._stopped, IDLE_SECONDS)

    async def freshen_once(self) -> int:
        """One pass. Returns how many notes there were."""
        with postgres_errors():
            noted = int(await self._pool.fetchval(_FRESHEN, NOTES_MAX))
            await self._pool.fetch(_SORT_IN)
            return noted

    def stop(self) -> None:
        self._stopped.set()
