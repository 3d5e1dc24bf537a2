"""A model of what stores reservations behind the front: a capacity that varies, and a backlog.

Only the store is modelled. The pace it allows is decided by the engine's own HopPace, from what a
worker would have measured: how many it stored, and how many wait.
"""

import math
import random
from typing import Final

import msgspec

from benchmarks.admission.crowd import TICKS_PER_SECOND

NOISE: Final = 0.15  # Standard deviation of a second's capacity around its mean.
WAVE_SECONDS: Final = 47.0  # A checkpoint's rhythm: capacity sways by …
WAVE: Final = 0.10  # … this share.


class StorePlan(msgspec.Struct, frozen=True):
    """What can be stored. The slow spell begins so many seconds after T0."""

    per_second: float = 120.0
    spell_after: float = 45.0
    spell_seconds: float = 15.0
    spell_share: float = 0.4  # of the usual capacity is left meanwhile


class Store:
    """Takes reservations, stores them as fast as it can."""

    def __init__(self, plan: StorePlan, t0_tick: int, seed: int) -> None:
        self._plan = plan
        self._t0_tick = t0_tick
        self._rng = random.Random(seed)
        self._noise = 1.0
        self._carry = 0.0
        self.per_second = plan.per_second  # what it could store at the last tick
        self.backlog = 0
        self.stored = 0
        self.backlog_max = 0

    def _capacity(self, tick: int) -> float:
        """Reservations per second now."""
        plan, since_s = self._plan, (tick - self._t0_tick) / TICKS_PER_SECOND
        if tick % TICKS_PER_SECOND == 0:
            self._noise = max(0.2, self._rng.gauss(1.0, NOISE))
        sway = 1.0 + WAVE * math.sin(2 * math.pi * since_s / WAVE_SECONDS)
        slow = plan.spell_after <= since_s < plan.spell_after + plan.spell_seconds
        return plan.per_second * sway * self._noise * (plan.spell_share if slow else 1.0)

    def take(self, count: int) -> None:
        self.backlog += count
        self.backlog_max = max(self.backlog_max, self.backlog)

    def store(self, tick: int) -> int:
        """One tick's work. How many were stored."""
        self.per_second = self._capacity(tick)
        self._carry += self.per_second / TICKS_PER_SECOND
        done = min(self.backlog, int(self._carry))
        # What was not needed is not saved up: an idle store is no faster later.
        self._carry = self._carry - done if self.backlog > done else self._carry % 1.0
        self.backlog -= done
        self.stored += done
        return done
