"""A queueing model in virtual time: an open crowd, a limit, a server that batches, a pool beside it."""

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from engine.admission.limit import Priority
from ext import Limit

BATCH_MAX: Final = 256
CALL_SECONDS: Final = 0.002  # Of a batch, whatever is in it: the round trip and the fsync.
EACH_SECONDS: Final = 50e-6  # And of each request in it.
CAPACITY: Final = BATCH_MAX / (CALL_SECONDS + BATCH_MAX * EACH_SECONDS)  # 17,300/s
POOL_SERVERS: Final = 8
POOL_SECONDS: Final = 0.004  # Mean of what the pool's servers need for one request.


class VirtualClock:
    """Moves with the simulation."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds

    def now_ms(self) -> int:
        return int(self.seconds * 1000)


@dataclass
class Tally:
    """What became of the requests of one priority."""

    offered: int = 0
    shed: int = 0
    latencies: list[float] = field(default_factory=list)

    def percentile(self, percent: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


@dataclass
class Backend:
    """The batching server. `slowness(t)` multiplies all it does, t seconds after the start.

    Several fronts may share it, each with one batch under way at a time, as on one Redis.
    """

    clock: VirtualClock
    slowness: Callable[[float], float]
    busy_until: float = 0.0

    def serve(self, count: int) -> float:
        """When a batch of so many that is sent now is answered."""
        now = self.clock.seconds
        factor = self.slowness(now - 1000.0)
        began = max(now, self.busy_until)
        self.busy_until = began + factor * EACH_SECONDS * count
        return self.busy_until + factor * CALL_SECONDS


class Simulation:
    """Fronts with a limit each; requests arrive at random at `rates(t)` per second and priority.

    Reserving goes through the batching server, everything else through the pool of each front.
    """

    def __init__(
        self,
        limits: list[Limit],
        clock: VirtualClock,
        rates: Callable[[float], dict[Priority, float]],
        *,
        slowness: Callable[[float], float] = lambda _: 1.0,
        pool_slowness: Callable[[float], float] = lambda _: 1.0,
        seed: int = 1,
    ) -> None:
        self.clock = clock
        self._rates = rates
        self._pool_slowness = pool_slowness
        self._random = Random(seed)
        self._backend = Backend(clock, slowness)
        self.fronts = [ModelFront(limit) for limit in limits]
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self.began = clock.seconds
        self.tallies = {priority: Tally() for priority in Priority}
        self.limits: list[int] = []

    def run(self, seconds: float, step: float = 0.01) -> dict[Priority, Tally]:
        """Goes on for so long; returns what became of those who arrived or left meanwhile."""
        self.tallies = {priority: Tally() for priority in Priority}
        self.limits = []
        end = self.clock.seconds + seconds
        while self.clock.seconds < end:
            self._run_step(min(self.clock.seconds + step, end))
            limit = self.fronts[0].limit
            self.limits.append(limit.share(Priority.RESERVE))
        return self.tallies

    def _run_step(self, until: float) -> None:
        for at, priority in self._arrivals(until):
            self._pass_events(at)
            self.clock.seconds = at
            self._arrive(priority)
        self._pass_events(until)
        self.clock.seconds = until

    def _arrivals(self, until: float) -> list[tuple[float, Priority]]:
        now = self.clock.seconds
        arrivals = []
        for priority, rate in self._rates(now - self.began).items():
            at = now
            while rate and (at := at + self._random.expovariate(rate)) < until:
                arrivals.append((at, priority))
        arrivals.sort()
        return arrivals

    def _pass_events(self, until: float) -> None:
        events = self._events
        while events and events[0][0] <= until:
            self.clock.seconds, _, happen = heapq.heappop(events)
            happen()

    def _arrive(self, priority: Priority) -> None:
        tally = self.tallies[priority]
        tally.offered += 1
        front = self._random.choice(self.fronts) if len(self.fronts) > 1 else self.fronts[0]
        entered = front.limit.try_enter(priority)
        if not entered:
            tally.shed += 1
        elif priority is Priority.RESERVE:
            front.waiting.append(entered)
            self._send_batch(front)
        else:
            front.pool_waiting.append((priority, entered))
            self._use_pool(front)

    def _send_batch(self, front: "ModelFront") -> None:
        if front.calling or not front.waiting:
            return
        front.calling = True
        count = min(len(front.waiting), BATCH_MAX)
        batch = [front.waiting.popleft() for _ in range(count)]
        self._at(self._backend.serve(count), lambda: self._answer(front, batch))

    def _answer(self, front: "ModelFront", batch: list[float]) -> None:
        front.calling = False
        for entered in batch:
            self._leave(front, Priority.RESERVE, entered)
        self._send_batch(front)

    def _use_pool(self, front: "ModelFront") -> None:
        if front.pool_busy >= POOL_SERVERS or not front.pool_waiting:
            return
        front.pool_busy += 1
        priority, entered = front.pool_waiting.popleft()
        mean = POOL_SECONDS * self._pool_slowness(self.clock.seconds - self.began)
        at = self.clock.seconds + self._random.expovariate(1 / mean)
        self._at(at, lambda: self._leave_pool(front, priority, entered))

    def _leave_pool(self, front: "ModelFront", priority: Priority, entered: float) -> None:
        front.pool_busy -= 1
        self._leave(front, priority, entered)
        self._use_pool(front)

    def _leave(self, front: "ModelFront", priority: Priority, entered: float) -> None:
        front.limit.leave(priority, entered, True)
        self.tallies[priority].latencies.append(self.clock.seconds - entered)

    def _at(self, seconds: float, happen: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._events, (seconds, self._order, happen))


class ModelFront:
    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.waiting: deque[float] = deque()
        self.calling = False
        self.pool_waiting: deque[tuple[Priority, float]] = deque()
        self.pool_busy = 0
