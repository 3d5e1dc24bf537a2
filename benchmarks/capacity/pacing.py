"""When requests are due, and a clock that says so to within a fifth of a millisecond.

Knows nothing of HTTP.
"""

import ctypes
import os
import random
from typing import Final

CLOCK_MONOTONIC: Final = 1
TFD_NONBLOCK_CLOEXEC: Final = 0o4000 | 0o2000000
TICK_SECONDS: Final = 200e-6  # An event loop's own timers count in whole milliseconds.
NANOSECONDS: Final = 1_000_000_000


def due_times(arrivals: str, rate: float, seconds: float, seed: int) -> list[float]:
    """Seconds after the start at which requests are due: `poisson` or `constant`."""
    if arrivals == "constant":
        return [number / rate for number in range(int(rate * seconds))]
    draw = random.Random(seed).expovariate
    due: list[float] = []
    at = draw(rate)
    while at < seconds:
        due.append(at)
        at += draw(rate)
    return due


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Ticker:
    """A timerfd that becomes readable every `tick_seconds`. Its owner closes it."""

    def __init__(self, tick_seconds: float = TICK_SECONDS) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = libc.timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        tick = _Timespec(0, int(tick_seconds * NANOSECONDS))
        if libc.timerfd_settime(self.fd, 0, ctypes.byref(_Itimerspec(tick, tick)), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def acknowledge(self) -> None:
        """Makes it unreadable until the next tick."""
        os.read(self.fd, 8)

    def close(self) -> None:
        os.close(self.fd)
