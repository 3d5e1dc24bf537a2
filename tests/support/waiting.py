"""Waits for what servers do in their own time, by asking again; the only place that pauses."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

WAIT_SECONDS_MAX: Final = 10.0
ASK_SECONDS: Final = 0.02

Value = TypeVar("Value")


async def until(
    condition: Callable[[], Awaitable[Value]],
    what: str,
    seconds_max: float = WAIT_SECONDS_MAX,
) -> Value:
    """The condition's first true value; AssertionError, naming `what`, if none comes in time."""
    deadline = time.monotonic() + seconds_max
    while not (value := await condition()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        await asyncio.sleep(ASK_SECONDS)
    return value
