"""Lets a sale rest whose entries could not be stored, for longer each time. Stores nothing itself."""

from dataclasses import dataclass
from typing import Final

from engine.clock import Clock

REST_SECONDS: Final = 1.0  # How long a sale that failed is left alone first; it doubles up to …
REST_SECONDS_MAX: Final = 30.0


@dataclass
class Rest:
    """A pause of one sale."""

    seconds: float
    until: float
    over: bool = False


class Rests:
    """The sales that failed and have not succeeded since."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rests: dict[str, Rest] = {}

    def begin(self, sale_id: str) -> None:
        """Changes nothing for a sale that rests: several batches met the same trouble."""
        if self.is_on(sale_id):
            return
        before = self._rests.get(sale_id)
        seconds = min(2 * before.seconds, REST_SECONDS_MAX) if before else REST_SECONDS
        self._rests[sale_id] = Rest(seconds, self._clock.monotonic() + seconds)

    def is_on(self, sale_id: str) -> bool:
        rest = self._rests.get(sale_id)
        return rest is not None and not rest.over

    def is_hopeless(self, sale_id: str) -> bool:
        """Whether it failed for about a minute on end: no load will mend that, but an operator."""
        rest = self._rests.get(sale_id)
        return rest is not None and rest.seconds >= REST_SECONDS_MAX

    def end_overdue(self) -> bool:
        """Whether some rest ended just now. It is remembered until its sale succeeds."""
        now = self._clock.monotonic()
        ended = [rest for rest in self._rests.values() if not rest.over and rest.until <= now]
        for rest in ended:
            rest.over = True
        return bool(ended)

    def succeeded(self, sale_id: str) -> None:
        if not self.is_on(sale_id):  # Another batch may just have failed.
            self._rests.pop(sale_id, None)
