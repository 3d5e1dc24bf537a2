"""Runs loops: `poll` repeats one bounded pass, `supervise` brings a crashed loop back.

Knows nothing of what the loops do.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from engine.errors import Unavailable

logger = logging.getLogger(__name__)

RESTART_SECONDS: Final = 0.1  # The first pause after a crash; it doubles up to the next.
RESTART_SECONDS_MAX: Final = 2.0  # A server that comes back is noticed about so soon.


async def poll(
    once: Callable[[], Awaitable[int]], stopped: asyncio.Event, idle_seconds: float
) -> None:
    """Repeats `once` until stopped: without a pause while it finds work, else after `idle_seconds`."""
    while not stopped.is_set():
        if await once():
            await asyncio.sleep(0)  # Others' turn, even if `once` never had to wait.
        else:
            await pause(stopped, idle_seconds)


async def pause(stopped: asyncio.Event, seconds: float) -> None:
    """Waits, but not a moment longer than until stopped."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stopped.wait(), seconds)


async def supervise(name: str, run: Callable[[], Awaitable[None]], stopped: asyncio.Event) -> None:
    """Runs a loop until it returns by itself after `stopped`; starts it again when it crashes."""
    seconds = RESTART_SECONDS
    while True:
        began = asyncio.get_running_loop().time()
        try:
            await run()
        except Unavailable as error:
            logger.warning("%s waits: %s", name, error, extra={"action": "loop_waits"})
        except Exception:
            logger.exception("%s crashed and starts again.", name, extra={"action": "loop_crashed"})
        if stopped.is_set():
            return
        if asyncio.get_running_loop().time() - began > RESTART_SECONDS_MAX:
            seconds = RESTART_SECONDS  # It had run well for a while.
        await pause(stopped, seconds)
        seconds = min(2 * seconds, RESTART_SECONDS_MAX)
