"""Holds refusals back for a moment, so that who asks again at once waits here and costs nothing.

Decides nothing: what is held, and whether at all, is said by others.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Final

HELD_MAX: Final = 16_384  # About 1 kB each. Whoever comes beyond is answered at once.
TICK_SECONDS: Final = 0.01  # Answers due within it go out together.
TOGETHER_MIN: Final = 8  # So few may always go out in one tick.


class HeldAnswers:
    """Answers that wait for their time, all equally long: first in, first out.

    Where many came at once they do not leave at once: each tick lets out the part of them that it is of
    the time they wait. Else a burst of refusals would return as a burst of requests, a moment later.
    """

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

    def release_once(self, until: float, count_max: int | None = None) -> int:
        """Answers those that are due by then, `count_max` at most. Returns how many they were."""
        count = 0
        while self._held and self._held[0][0] <= until and count != count_max:
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
        now = loop.time()
        share = math.ceil(len(self._held) * TICK_SECONDS / self._seconds)
        try:
            self.release_once(now, max(TOGETHER_MIN, share))
        finally:
            # Whoever was held meanwhile found this tick's timer still set.
            self._timer = self._next_tick(loop, now)

    def _next_tick(self, loop: asyncio.AbstractEventLoop, now: float) -> asyncio.TimerHandle | None:
        if not self._held:
            return None
        return loop.call_at(max(self._held[0][0], now + TICK_SECONDS), self._tick)
