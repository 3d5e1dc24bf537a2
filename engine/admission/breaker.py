"""Stops asking a server that fails, and finds out with single probes when it is back.

Knows no server: whoever asks one says what a failure of it is.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from random import Random
from typing import Final

from engine import metrics
from engine.clock import Clock
from engine.errors import CircuitOpen, Unavailable

logger = logging.getLogger(__name__)

IN_A_ROW_MAX: Final = 5  # Failures with no success between them.
WINDOW_SECONDS: Final = 10.0
SHARE_MAX: Final = 0.5  # Of a window's calls may fail, …
CALLS_MIN: Final = 20  # … once it has so many.
CALLS_MAX: Final = 1000  # Remembered; the share is of the newest.
PAUSE_SECONDS: Final = 0.5  # From opening to the first probe; doubles with every probe that fails.
PAUSE_SECONDS_MAX: Final = 2.0  # So soon a server of ours that is back is noticed.
JITTER: Final = 0.2  # Of a pause, either way: not every process knocks at once.
PROBE_SECONDS_MAX: Final = 5.0  # Of which nothing is heard for so long: another one is made.
CUT_SECONDS_MIN: Final = 0.1  # A call cut short sooner says nothing of the server.

FAILURES: Final = (Unavailable, TimeoutError)


class BreakerState(IntEnum):
    """As the metric shows it."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """One server's circuit breaker, for one event loop (Nygard, Release It!).

    Closed: everybody may ask. After too many failures open: nobody may. After a pause half open:
    one probe at a time may; its success closes, its failure opens for twice as long.
    """

    def __init__(
        self,
        name: str,
        clock: Clock,
        random: Random,
        *,
        pause_seconds_max: float = PAUSE_SECONDS_MAX,
    ) -> None:
        self.name = name
        self._clock = clock
        self._random = random
        self._pause_seconds_max = pause_seconds_max
        self._pause = PAUSE_SECONDS
        self._opens_again_at: float | None = None  # None: closed.
        self._probe_began: float | None = None
        self._period = 0  # Counts openings and closings: what began before one says nothing after.
        self._forget()
        self._show(BreakerState.CLOSED)

    @property
    def state(self) -> BreakerState:
        if self._opens_again_at is None:
            return BreakerState.CLOSED
        if self._clock.monotonic() < self._opens_again_at:
            return BreakerState.OPEN
        return BreakerState.HALF_OPEN

    def allows(self) -> bool:
        """Whether to ask the server now; `succeeded` or `failed` must follow a True."""
        match self.state:
            case BreakerState.CLOSED:
                return True
            case BreakerState.OPEN:
                return False
        now = self._clock.monotonic()
        if self._probe_began is not None and now - self._probe_began < PROBE_SECONDS_MAX:
            return False
        self._probe_began = now
        self._show(BreakerState.HALF_OPEN)
        return True

    def succeeded(self) -> None:
        """The server answered."""
        match self.state:
            case BreakerState.CLOSED:
                self._in_a_row = 0
                self._remember(failed=False)
            case BreakerState.HALF_OPEN:
                self._close()

    def failed(self) -> None:
        """The server did not answer, or answered that it cannot serve."""
        match self.state:
            case BreakerState.CLOSED:
                self._in_a_row += 1
                self._remember(failed=True)
                if self._in_a_row >= IN_A_ROW_MAX or self._fails_too_often():
                    self._open(PAUSE_SECONDS)
            case BreakerState.HALF_OPEN:
                self._open(min(2 * self._pause, self._pause_seconds_max))

    @contextmanager
    def guarding(self, failures: tuple[type[BaseException], ...] = FAILURES) -> Iterator[None]:
        """Around one call of the server. Raises CircuitOpen where it is not to be asked.

        Of what the call raises, `failures` are the server's; anything else is an answer. A call
        that is cancelled has outlasted its caller's patience, unless that was over at once.
        """
        if not self.allows():
            raise CircuitOpen(f"{self.name} fails: it is not asked for a moment.")
        period, began = self._period, self._clock.monotonic()
        try:
            yield
        except CircuitOpen:  # Another server's, on the way: this one was not asked.
            self._withdraw(period)
            raise
        except failures:
            self._conclude(period, failed=True)
            raise
        except asyncio.CancelledError:
            if self._clock.monotonic() - began < CUT_SECONDS_MIN:
                self._withdraw(period)
            else:
                self._conclude(period, failed=True)
            raise
        except BaseException:
            self._conclude(period, failed=False)
            raise
        self._conclude(period, failed=False)

    def _conclude(self, period: int, *, failed: bool) -> None:
        if period == self._period:
            self.failed() if failed else self.succeeded()

    def _withdraw(self, period: int) -> None:
        """A call that says nothing; if it was the probe, the next one is."""
        if period == self._period:
            self._probe_began = None

    def _remember(self, *, failed: bool) -> None:
        now = self._clock.monotonic()
        if len(self._calls) == CALLS_MAX:
            self._failures -= self._calls[0][1]
        self._calls.append((now, failed))
        self._failures += failed
        while self._calls[0][0] < now - WINDOW_SECONDS:
            self._failures -= self._calls.popleft()[1]

    def _fails_too_often(self) -> bool:
        calls = len(self._calls)
        return calls >= CALLS_MIN and self._failures >= SHARE_MAX * calls

    def _open(self, pause: float) -> None:
        self._pause = pause
        jitter = 1 + JITTER * (2 * self._random.random() - 1)
        self._opens_again_at = self._clock.monotonic() + pause * jitter
        self._begin_period(BreakerState.OPEN)
        logger.warning(
            "%s fails: not asked for %.1f s.", self.name, pause, extra={"action": "breaker_opened"}
        )

    def _close(self) -> None:
        self._opens_again_at = None
        self._pause = PAUSE_SECONDS
        self._begin_period(BreakerState.CLOSED)
        logger.info("%s answers again.", self.name, extra={"action": "breaker_closed"})

    def _begin_period(self, state: BreakerState) -> None:
        self._period += 1
        self._probe_began = None
        self._forget()
        self._show(state)

    def _forget(self) -> None:
        self._in_a_row = 0
        self._failures = 0
        self._calls: deque[tuple[float, bool]] = deque(maxlen=CALLS_MAX)

    def _show(self, state: BreakerState) -> None:
        metrics.breaker.labels(self.name).set(state)
