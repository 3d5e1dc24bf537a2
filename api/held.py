"""Holds refusals back for a moment, so that who asks again at once waits here and costs nothing.

Decides nothing: what is held, and whether at all, is said by others.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

HELD_MAX: Final = 16_384  # About 1 kB each. Whoever comes beyond is answered at once.
TICK_SECONDS: Final = 0.02  # Answers due within it go out together.


class HeldAnswers:
    """Answers that wait for their time, all equally long: first in, first out."""

    def __init__(self, seconds: float, *, held_max: int = HELD_MAX) -> None:
        self._seconds = seconds
        self._held_max = held_max if seconds else 0
        self._held: deque[tuple[float, Callable[[], object]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, answer: Callable[[], object]) -> bool:
        """Calls `answer` in a moment; False: answer now."""
        if len(self._held) >= self._held_max:
            return False
        loop = asyncio.get_running_loop()
        due = loop.time() + self._seconds
        self._held.append((due, answer))
        if self._timer is None:
            self._timer = loop.call_at(due, self._tick)
        return True

    async def wait(self) -> None:
        """Returns in a moment; at once when too many wait."""
        released = asyncio.Event()
        if self.hold(released.set):
            await released.wait()

    def release_once(self, until: float) -> int:
        """Answers all that are due by then. Returns how many they were."""
        count = 0
        while self._held and self._held[0][0] <= until:
            _, answer = self._held.popleft()
            answer()
            count += 1
        return count

    def stop(self) -> None:
        """Answers everybody now, and holds nobody any more. Idempotent."""
        self._held_max = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.release_once(float("inf"))

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            self.release_once(loop.time() + TICK_SECONDS)
        finally:
            # Whoever was held meanwhile found this tick's timer still set.
            self._timer = loop.call_at(self._held[0][0], self._tick) if self._held else None
