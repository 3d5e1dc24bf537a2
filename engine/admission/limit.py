"""Bounds the requests in work at once; sheds the rest early and cheaply, browsing before buying.

The algorithm is a kernel, ext/limit.pyx; here are the words for it and its context managers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Final, Self

import ext
from engine.clock import Clock
from engine.config import LimitKind, Settings
from engine.errors import Overloaded

MESSAGE: Final = "Too many requests are being worked on."


class Priority(IntEnum):
    """Who is shed last, first. The kernel knows them by number."""

    PAYMENT = 0  # Payments, and the status of orders and reservations.
    RESERVE = 1
    BROWSE = 2  # Everything else.


class AdmissionLimit(ext.Limit):
    """The limit of one process, for one event loop. See ext.Limit."""

    __slots__ = ()

    @classmethod
    def of(cls, settings: Settings, clock: Clock) -> Self:
        return cls(
            clock,
            floor=settings.in_flight_min,
            ceiling=settings.in_flight_max,
            adaptive=settings.limit is LimitKind.ADAPTIVE,
        )

    @contextmanager
    def slot(self, priority: Priority) -> Iterator[None]:
        """Holds one place. Raises Overloaded if there is none."""
        entered = self.try_enter(priority)
        if not entered:
            raise Overloaded(MESSAGE)
        try:
            yield
        finally:
            self.leave(priority, entered, False)

    @contextmanager
    def stepped_out(self, priority: Priority) -> Iterator[None]:
        """Gives the caller's place to others meanwhile: waiting for a client is no work.

        The caller has a place again afterwards in any case and must `leave` it, unmeasured: his
        time of entering counts the wait. Raises Overloaded if that is one too many.
        """
        self.leave(priority, 0.0, False)
        try:
            yield
        finally:
            self.enter(priority)
        if self.has_excess(priority):
            raise Overloaded(MESSAGE)
