"""Bounds how long a caller waits for a read. The pool is small: those who queue for it give up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from engine.errors import StoreUnavailable

READ_SECONDS_MAX: Final = 2.0  # A buyer has reloaded by then; a read takes milliseconds.


@asynccontextmanager
async def reading() -> AsyncIterator[None]:
    """Lets a read take READ_SECONDS_MAX, then raises StoreUnavailable. Never around a write."""
    try:
        async with asyncio.timeout(READ_SECONDS_MAX):
            yield
    except TimeoutError as error:
        raise StoreUnavailable("A read took too long.") from error
