"""Measures what the hops behind the answer get done, and writes the pace at which fronts may admit.

How a hop is judged is in engine/admission/pace; each front keeps to its share by itself (`pulse`).
"""

import logging
from collections.abc import Mapping
from math import inf
from statistics import fmean
from typing import Final, NamedTuple, Protocol

from redis.asyncio import Redis

from engine import metrics
from engine.admission.pace import PACE_KEY, HopPace, Pace, pace_of_steps, slowest
from engine.admission.pulse import FRONTS_KEY
from engine.backlog import Backlog
from engine.clock import Clock
from engine.config import Settings
from engine.connections import redis_errors
from engine.drained import Drained
from engine.keys import shard_keys

logger = logging.getLogger(__name__)

PACE_SECONDS: Final = 0.2  # Between two looks; the fronts read the pace as often.
DONE_KEY: Final = "doorbuster:done"  # Hash: orders, entries, payments, of all workers together.

DRAIN_FIRST: Final = (
    20_000.0  # Orders/s of one worker beside busy fronts on two cores, as measured.
)
DRAIN_WAITING_MIN: Final = 256  # One call of one front: so much waits at any moment.
COMMIT_SECONDS_CALM: Final = (
    0.5  # A full statement takes 0.3 s on two busy cores (benchmarks/drain.py).
)
REDIS_SECONDS_CALM: Final = 0.05  # What a buyer's whole answer should take.
REDIS_LOOKS: Final = 5  # The best of a second's: this process may be late itself.
PAYMENT_FIRST: Final = 1_000.0
PAYMENT_WAITING_MIN: Final = 1_000
# Buyers' money may lag the sale, but not until reservations run out: a third of their usual 900 s.
PAYMENT_SECONDS_MAX: Final = 300.0
# Of what the providers did while they were well: payments have minutes, and a sale that waits for
# its providers altogether has none left.
PAYMENT_FLOOR: Final = 0.25
COMMITS_SECONDS: Final = 1.0  # So long another worker's word on its commits is believed.
COMMITS: Final = ("hop:postgres", "commits_at_ms")  # Of the pace: written by who stores.


class Draining(Protocol):
    """What is asked of the drainer."""

    @property
    def drained(self) -> Drained: ...
    @property
    def sales(self) -> list[str]: ...


class Paying(Protocol):
    """What is asked of the gauges."""

    @property
    def payments_waiting(self) -> int: ...
    @property
    def payments_away(self) -> bool: ...
    def payments_done(self) -> int: ...


class Look(NamedTuple):
    """What one look found: counts since ever, of all workers; the streams; fronts alive."""

    orders: int
    entries: int
    payments: int
    entries_waiting: int
    newest_size: float | None  # Orders in an entry; None if none waits.
    fronts: int
    redis_seconds: float
    commits: tuple[bytes | None, ...]  # As COMMITS names them.


class Pacer:
    """The pace of all sales together. Any number of workers may run one: they find the same."""

    def __init__(
        self, redis: Redis, clock: Clock, draining: Draining, paying: Paying, settings: Settings
    ) -> None:
        self._redis = redis
        self._clock = clock
        self._draining = draining
        self._paying = paying
        self._settings = settings
        self._drain = HopPace(
            target_seconds=settings.backlog_seconds_max,
            rate_first=DRAIN_FIRST,
            waiting_min=DRAIN_WAITING_MIN,
        )
        self._payment = HopPace(
            target_seconds=PAYMENT_SECONDS_MAX,
            rate_first=PAYMENT_FIRST,
            waiting_min=PAYMENT_WAITING_MIN,
            floor_share=PAYMENT_FLOOR,
        )
        self._commits_at_ms: bytes | None = None  # Of another worker's word: a change is news …
        self._commits_heard_at = -COMMITS_SECONDS  # … heard then.
        self._told = {"orders": 0, "entries": 0, "payments": paying.payments_done()}
        self._backlog = Backlog()
        self._round_trips = [0.0] * REDIS_LOOKS
        self._limited = False

    async def measure_once(self) -> int:
        """One look at all hops. Raises RedisUnavailable; returns 0: there is never more to do."""
        paces = self._judge(await self._look())
        pace = slowest(paces)
        await self._write(pace, paces)
        self._report(pace, paces)
        return 0

    async def _look(self) -> Look:
        """Adds what this worker did to what all did: one round trip says it and hears of the others."""
        drained = self._draining.drained
        done = {
            "orders": drained.orders,
            "entries": drained.entries,
            "payments": self._paying.payments_done(),
        }
        began = self._clock.monotonic()
        with redis_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for name, count in done.items():
                    pipe.hincrby(DONE_KEY, name, count - self._told[name])
                pipe.zcard(FRONTS_KEY)
                pipe.hmget(PACE_KEY, *COMMITS)
                for sale_id in self._draining.sales:
                    pipe.xlen(shard_keys(sale_id).orders)
                    pipe.xrevrange(shard_keys(sale_id).orders, count=1)
                orders, entries, payments, fronts, commits, *streams = await pipe.execute()
        # Told only now: what was not heard is said again, and at worst counts twice.
        self._told = done
        seconds = self._clock.monotonic() - began
        return Look(
            orders,
            entries,
            payments,
            sum(streams[::2]),
            _mean_size([newest[0][1] for newest in streams[1::2] if newest]),
            max(1, fronts),
            seconds,
            tuple(commits),
        )

    def _judge(self, look: Look) -> dict[str, float]:
        now, drained = self._clock.monotonic(), self._draining.drained
        waiting = self._backlog.orders(look.entries, look.entries_waiting, look.newest_size)
        return {
            "drain": self._drain.measure(
                now,
                look.orders,
                waiting,
                drained.commit_seconds,
                begun_seconds=drained.waited_seconds,
            ),
            "postgres": self._pace_of_commits(look),
            "redis": pace_of_steps(
                self._round_trip(look), look.fronts * self._settings.batch_max, REDIS_SECONDS_CALM
            ),
            "payment": self._payment.measure(
                now,
                look.payments,
                self._paying.payments_waiting,
                is_away=self._paying.payments_away,
            ),
            "pace_max": float(self._settings.pace_max or inf),
        }

    def _pace_of_commits(self, look: Look) -> float:
        """By this worker's own; while it stores nothing, by what one that does found lately."""
        drained = self._draining.drained
        if not drained.is_idle:
            at_once = self._settings.drain_connections * self._settings.drain_batch_max
            seconds = max(drained.commit_seconds, drained.waited_seconds)
            return pace_of_steps(seconds, at_once, COMMIT_SECONDS_CALM)
        now, (pace, at_ms) = self._clock.monotonic(), look.commits
        if at_ms != self._commits_at_ms:
            self._commits_at_ms, self._commits_heard_at = at_ms, now
        is_fresh = pace is not None and now - self._commits_heard_at < COMMITS_SECONDS
        return float(pace) if pace is not None and is_fresh else inf

    def _round_trip(self, look: Look) -> float:
        self._round_trips = [*self._round_trips[1:], look.redis_seconds]
        return min(self._round_trips)

    async def _write(self, pace: Pace, paces: Mapping[str, float]) -> None:
        fields: dict[str, str | int] = {
            "per_second": repr(pace.per_second),
            "hop": pace.hop,
            "at_ms": self._clock.now_ms(),
        }
        if not self._draining.drained.is_idle:
            fields["commits_at_ms"] = self._clock.now_ms()
        fields |= {f"hop:{hop}": repr(value) for hop, value in paces.items()}
        with redis_errors():
            # redis-py types its mapping as invariant.
            await self._redis.hset(PACE_KEY, mapping=fields)  # type: ignore[arg-type]

    def _report(self, pace: Pace, paces: Mapping[str, float]) -> None:
        metrics.pace.set(pace.per_second)
        for hop, value in paces.items():
            metrics.hop_pace.labels(hop).set(value)
        limited = pace.hop not in {"", "pace_max"}
        if limited and not self._limited:
            logger.warning(
                "Admission slows to %.0f/s: %s can take no more.",
                pace.per_second,
                pace.hop,
                extra={"action": "pace_limited", "hop": pace.hop},
            )
        elif self._limited and not limited:
            logger.info("Admission is not slowed any more.", extra={"action": "pace_free"})
        self._limited = limited


def _mean_size(entries: list[dict[bytes, bytes]]) -> float | None:
    """Orders in an entry: each is a line of its batch."""
    return (
        fmean(entry.get(b"batch", b"").count(b"\n") + 1 for entry in entries) if entries else None
    )
