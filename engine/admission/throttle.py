"""Limits each client's rate. The algorithm is a kernel, ext/throttle.pyx; here are its bounds."""

from typing import Final

import ext
from engine.clock import Clock

CLIENTS_MAX: Final = 100_000  # Per generation, ~150 bytes each; two generations are kept.


class Throttle(ext.Throttle):
    """A throttle that remembers `clients_max` clients or more. See ext.Throttle.admit."""

    def __init__(
        self, clock: Clock, *, per_second: float, burst: int, clients_max: int = CLIENTS_MAX
    ) -> None:
        super().__init__(clock, per_second=per_second, burst=burst, clients_max=clients_max)
