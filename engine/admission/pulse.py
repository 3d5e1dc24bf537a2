"""One front's part in the fleet: says that it lives, and learns how many do and what they may admit.

Measures nothing itself: the worker's pacer writes the pace (see `pace`).
"""

import asyncio
from contextlib import suppress
from math import inf
from typing import Final

from redis.asyncio import Redis

from engine.admission.pace import NO_LIMIT, PACE_KEY, Pace
from engine.clock import Clock
from engine.connections import redis_errors
from engine.errors import Unavailable
from engine.polling import pause
from ext import Meter

FRONTS_KEY: Final = "doorbuster:fronts"  # Sorted set: a front's name, by when it last said so (ms).
PULSE_SECONDS: Final = 0.2
FRONT_SECONDS: Final = 5.0  # A front that was silent for so long is gone: others take its share.
FRONTS_MAX: Final = 4096  # Bounds the set if somebody invents names; the oldest go.
STALE_SECONDS: Final = 5.0  # A pace nobody renewed: the worker is gone, so nobody stores.
# What is admitted then. A worker that comes back after a minute stores it all within seconds, and an
# hour of it is about a gigabyte in the streams.
PACE_UNKNOWN: Final = 2000.0
UNKNOWN: Final = Pace(PACE_UNKNOWN, "worker")
BURST_SECONDS: Final = 0.1  # Of its share a front may admit so much at once.


class Pulse:
    """What one front knows of the fleet. `name` is this process's own; `meter` is kept at its share.

    The pace never exceeds `pace_max`, whatever anybody says. A new front grants itself STALE_SECONDS
    without any other limit: the worker may be starting as well.
    """

    def __init__(
        self,
        redis: Redis,
        clock: Clock,
        name: str,
        meter: Meter | None = None,
        *,
        pace_max: float = inf,
    ) -> None:
        self._redis = redis
        self._clock = clock
        self._name = name
        self._meter = meter
        self._ceiling = Pace(pace_max, "pace_max")
        self.fronts = 1  # Alive, this one included.
        self._told = NO_LIMIT
        self._written_ms = b""  # When the pacer wrote it, by its clock: a change is news.
        self._heard_at = clock.monotonic()
        self._server_ahead_ms: float | None = None  # Redis's clock, common to all, against ours.
        self._stopped = asyncio.Event()

    @property
    def pace(self) -> float:
        """Reservations per second that all fronts together may admit; infinity is no limit."""
        return self._current.per_second

    @property
    def hop(self) -> str:
        """Which hop sets the pace; 'worker' if nobody told it lately, '' if there is no limit."""
        return self._current.hop

    @property
    def share(self) -> float:
        """This front's part of the pace."""
        return self.pace / self.fronts

    @property
    def is_stale(self) -> bool:
        return self._clock.monotonic() - self._heard_at > STALE_SECONDS

    @property
    def _current(self) -> Pace:
        told = UNKNOWN if self.is_stale else self._told
        return min(told, self._ceiling, key=lambda pace: pace.per_second)

    async def run(self) -> None:
        """Until stopped; then the others learn at once that this front is gone."""
        while not self._stopped.is_set():
            await self.refresh_once()
            await pause(self._stopped, PULSE_SECONDS)
        with suppress(Unavailable), redis_errors():
            await self._redis.zrem(FRONTS_KEY, self._name)

    async def refresh_once(self) -> int:
        """One look. Raises RedisUnavailable: then the last one is believed for STALE_SECONDS."""
        try:
            with redis_errors():
                if self._server_ahead_ms is None:
                    self._set_server_time(*await self._redis.time())
                await self._look()
        finally:
            self._set_meter()
        return 0

    def stop(self) -> None:
        """Makes `run` return soon. Idempotent, safe before start."""
        self._stopped.set()

    async def _look(self) -> None:
        now_ms = self._server_now_ms()
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.zadd(FRONTS_KEY, {self._name: now_ms})
            pipe.zremrangebyscore(FRONTS_KEY, "-inf", now_ms - FRONT_SECONDS * 1000)
            pipe.zremrangebyrank(FRONTS_KEY, 0, -FRONTS_MAX - 1)
            pipe.zcard(FRONTS_KEY)
            pipe.hmget(PACE_KEY, "per_second", "hop", "at_ms")
            server_time, _, _, _, fronts, (per_second, hop, written_ms) = await pipe.execute()
        self._set_server_time(*server_time)
        self.fronts = max(1, fronts)
        if written_ms is not None and written_ms != self._written_ms:
            self._told = Pace(float(per_second), hop.decode())
            self._written_ms = written_ms
            self._heard_at = self._clock.monotonic()

    def _set_meter(self) -> None:
        if self._meter is not None:
            self._meter.set_rate(self.share, max(1.0, self.share * BURST_SECONDS))

    def _server_now_ms(self) -> int:
        assert self._server_ahead_ms is not None
        return int(self._clock.monotonic() * 1000 + self._server_ahead_ms)

    def _set_server_time(self, seconds: int, microseconds: int) -> None:
        server_ms = seconds * 1000 + microseconds / 1000
        self._server_ahead_ms = server_ms - self._clock.monotonic() * 1000
