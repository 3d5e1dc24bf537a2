"""Who comes to a simulated sale, when, and how each behaves. Nothing here knows of rooms or Redis.

Every draw comes from one seeded generator, in the order of the simulation's events, so a seed
repeats a whole day.
"""

import random
from array import array
from typing import Final

import msgspec

TICKS_PER_SECOND: Final = 10  # A front looks at its room as often.
NEVER: Final = 2**31 - 1  # A tick that does not come.


class CrowdPlan(msgspec.Struct, frozen=True):
    """The crowd in numbers. Shares are of visitors, times in seconds, means of exponentials.

    A flash crowd as shops see it: most wait in front of the door, more and more of them towards T0;
    another wave comes with the opening itself, the rest over the minutes after.
    """

    visitors: int = 1_000_000
    bots: float = 0.20
    early: float = 0.30  # before T0 …
    early_seconds: float = 90.0  # … so long before it on average
    prompt: float = 0.40  # with the opening …
    prompt_seconds: float = 8.0
    late_seconds: float = 90.0  # … the rest in the minutes after
    prequeue_seconds: float = 600.0
    # Bots do what people do, and also: a few stand at the door as it opens, all ask for several
    # tickets, poll more often than they are told to, and many do not come when it is their turn.
    bots_at_the_door: float = 0.01
    door_seconds: float = 5.0
    bot_tickets: int = 2  # asked for, one after the other
    bot_hurry: float = 0.5  # of the advised interval between polls
    patience_seconds: float = 600.0  # until a person leaves who waits
    returns: float = 0.35  # of those who leave come back …
    away_seconds: tuple[float, float] = (10.0, 280.0)  # … within five minutes
    gives_up_none: tuple[float, float] = (0.7, 0.4)  # of people, of bots, at a poll that says so …
    gives_up_slim: tuple[float, float] = (0.1, 0.0)
    no_show: tuple[float, float] = (0.12, 0.40)  # of admitted people, of admitted bots
    think_seconds: tuple[float, float] = (12.0, 0.6)  # median and sigma of a lognormal
    bot_think_seconds: float = 0.5
    two_units: float = 0.1  # want two
    walks_away: tuple[float, float] = (0.04, 0.10)  # never pay, so the reservation expires
    gives_back: float = 0.05  # of people release what they reserved
    pay_seconds: tuple[float, float] = (5.0, 45.0)
    bot_pay_seconds: tuple[float, float] = (1.0, 3.0)


class Crowd:
    """The visitors 0 … n−1. A visitor's traits are drawn when they are needed."""

    def __init__(self, plan: CrowdPlan, seed: int) -> None:
        self.plan = plan
        self._rng = random.Random(seed)
        self._random = self._rng.random
        self._bot_hurry = plan.bot_hurry * TICKS_PER_SECOND
        self.is_bot = bytearray(self._rng.random() < plan.bots for _ in range(plan.visitors))

    def arrivals(self) -> "array[int]":
        """The tick of each visitor's arrival; T0 is tick `prequeue_seconds × TICKS_PER_SECOND`."""
        return array("i", (self._arrival(bot) for bot in self.is_bot))

    def _arrival(self, is_bot: int) -> int:
        plan, rng = self.plan, self._rng
        t0, kind = plan.prequeue_seconds, rng.random()
        if is_bot and rng.random() < plan.bots_at_the_door:
            at = rng.uniform(0, plan.door_seconds)
        elif kind < plan.early:
            at = t0 - rng.expovariate(1 / plan.early_seconds)
            at = at if at >= 0 else rng.uniform(0, t0)
        elif kind < plan.early + plan.prompt:
            at = t0 + rng.expovariate(1 / plan.prompt_seconds)
        else:
            at = t0 + rng.expovariate(1 / plan.late_seconds)
        return int(at * TICKS_PER_SECOND)

    def leaves_in(self, visitor: int) -> int:
        """Ticks until a visitor who waits has had enough. Bots have patience."""
        if self.is_bot[visitor]:
            return NEVER // 2
        return int(self._rng.expovariate(1 / self.plan.patience_seconds) * TICKS_PER_SECOND) + 1

    def returns_in(self) -> int:
        """Ticks until somebody who left is back; NEVER."""
        if self._rng.random() >= self.plan.returns:
            return NEVER
        return _ticks(self._rng.uniform(*self.plan.away_seconds))

    def polls_in(self, visitor: int, advised_s: float) -> int:
        """Ticks until the next poll. People's pages do as advised, give or take a timer's tick."""
        hurry = self._bot_hurry if self.is_bot[visitor] else TICKS_PER_SECOND
        return int(advised_s * hurry + self._random()) or 1

    def gives_up(self, visitor: int, chance_says: str | None) -> bool:
        """Whether somebody who is told this leaves for good."""
        if chance_says == "none":
            return self._rng.random() < self.plan.gives_up_none[self.is_bot[visitor]]
        if chance_says == "slim":
            return self._rng.random() < self.plan.gives_up_slim[self.is_bot[visitor]]
        return False

    def comes(self, visitor: int) -> bool:
        """Whether an admitted visitor uses the ticket."""
        return self._rng.random() >= self.plan.no_show[self.is_bot[visitor]]

    def thinks(self, visitor: int) -> int:
        """Ticks from being told to the click."""
        plan = self.plan
        if self.is_bot[visitor]:
            return _ticks(self._rng.expovariate(1 / plan.bot_think_seconds))
        median, sigma = plan.think_seconds
        return _ticks(median * self._rng.lognormvariate(0, sigma))

    def wants(self) -> int:
        return 2 if self._rng.random() < self.plan.two_units else 1

    def retries_in(self, retry_after_s: float) -> int:
        """Ticks until a refused click comes again: as told, with jitter."""
        return _ticks(retry_after_s * self._rng.uniform(1.0, 1.5))

    def ends(self, visitor: int) -> tuple[str, int]:
        """What becomes of a reservation, and after how many ticks; an expiry has its own time."""
        plan, rng, is_bot = self.plan, self._rng, self.is_bot[visitor]
        fate = rng.random()
        span = plan.bot_pay_seconds if is_bot else plan.pay_seconds
        after = _ticks(rng.uniform(*span))
        if fate < plan.walks_away[is_bot]:
            return "expires", NEVER
        if not is_bot and fate < plan.walks_away[0] + plan.gives_back:
            return "gives back", after
        return "pays", after


def _ticks(seconds: float) -> int:
    return max(1, round(seconds * TICKS_PER_SECOND))
