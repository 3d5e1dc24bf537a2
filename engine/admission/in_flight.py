"""Bounds the requests being worked on at once; sheds the rest early and cheaply."""

from collections.abc import Iterator
from contextlib import contextmanager

from engine.errors import Overloaded


class InFlightLimit:
    """A counter with a ceiling, for one event loop."""

    def __init__(self, in_flight_max: int) -> None:
        self._in_flight_max = in_flight_max
        self.in_flight = 0

    def try_enter(self) -> bool:
        """True: admitted, and `leave` must follow. False: shed."""
        if self.in_flight >= self._in_flight_max:
            return False
        self.in_flight += 1
        return True

    def leave(self) -> None:
        assert self.in_flight > 0
        self.in_flight -= 1

    @contextmanager
    def stepped_out(self) -> Iterator[None]:
        """Gives the caller's place to others meanwhile: waiting for a client is no work.

        The caller has a place again afterwards in any case and must `leave` it; raises Overloaded
        if that is one too many.
        """
        self.leave()
        try:
            yield
        finally:
            self.in_flight += 1
        if self.in_flight > self._in_flight_max:
            raise Overloaded("Too many requests are being worked on.")

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Holds one place. Raises Overloaded if there is none."""
        if not self.try_enter():
            raise Overloaded("Too many requests are being worked on.")
        try:
            yield
        finally:
            self.leave()
