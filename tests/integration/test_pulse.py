"""What a front knows of the fleet, through a real Redis: who lives, and what may be admitted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf

import pytest
from redis.asyncio import Redis

from engine.admission import pulse as pulse_module
from engine.admission.pace import PACE_KEY
from engine.admission.pulse import FRONTS_KEY, PACE_UNKNOWN, Pulse
from engine.clock import ManualClock
from engine.connections import connect_redis
from engine.errors import RedisUnavailable
from ext import Meter
from tests.support.waiting import until


async def tell(redis: Redis, per_second: float, hop: str, at_ms: int) -> None:
    """What a pacer writes."""
    await redis.hset(PACE_KEY, mapping={"per_second": per_second, "hop": hop, "at_ms": at_ms})


async def beat(*pulses: Pulse) -> None:
    for pulse in pulses:
        await pulse.refresh_once()


async def test_fronts_share_the_pace_and_one_that_went_silent_is_forgotten(redis: Redis) -> None:
    clock = ManualClock()
    first, second, third = (Pulse(redis, clock, name) for name in "abc")
    await tell(redis, 900, "drain", 1)
    await beat(first, second, third, first)
    assert (first.fronts, first.pace, first.hop, first.share) == (3, 900, "drain", 300)
    clock.advance(seconds=6)
    await tell(redis, 900, "drain", 2)
    await beat(first, second, first)
    assert (first.fronts, first.share) == (2, 450)


async def test_clocks_of_machines_may_differ(redis: Redis) -> None:
    here = Pulse(redis, ManualClock(1_000_000), "here")
    there = Pulse(redis, ManualClock(9_000_000_000), "there")
    await beat(here, there, here, there)
    assert (here.fronts, there.fronts) == (2, 2)


async def test_meter_admits_what_is_this_fronts_share(redis: Redis) -> None:
    clock = ManualClock()
    meter = Meter(clock)
    pulse = Pulse(redis, clock, "a", meter)
    await beat(pulse, Pulse(redis, clock, "b"))
    assert meter.per_second == inf
    await tell(redis, 1000, "drain", 1)
    await beat(pulse)
    assert meter.per_second == 500
    assert sum(meter.admit() == 0.0 for _ in range(1000)) == 50  # A tenth of a second's.
    await tell(redis, inf, "", 2)
    await beat(pulse)
    assert meter.per_second == inf


async def test_pace_nobody_renews_becomes_a_trickle_until_somebody_does(redis: Redis) -> None:
    clock = ManualClock()
    meter = Meter(clock)
    pulse = Pulse(redis, clock, "a", meter)
    await tell(redis, inf, "", 1)
    await beat(pulse)
    clock.advance(seconds=4)
    await beat(pulse)
    assert pulse.pace == inf
    clock.advance(seconds=2)
    await beat(pulse)
    assert (pulse.pace, pulse.hop, meter.per_second) == (PACE_UNKNOWN, "worker", PACE_UNKNOWN)
    await tell(redis, inf, "", 2)
    await beat(pulse)
    assert (pulse.pace, pulse.hop, meter.per_second) == (inf, "", inf)


async def test_operators_ceiling_holds_whatever_is_heard(redis: Redis) -> None:
    clock = ManualClock()
    pulse = Pulse(redis, clock, "a", pace_max=50)
    assert (pulse.pace, pulse.hop) == (50, "pace_max")
    await tell(redis, 30, "drain", 1)
    await beat(pulse)
    assert (pulse.pace, pulse.hop) == (30, "drain")
    clock.advance(seconds=6)
    assert (pulse.pace, pulse.hop) == (50, "pace_max")


async def test_front_that_never_heard_of_a_worker_waits_a_moment_for_it(redis: Redis) -> None:
    clock = ManualClock()
    pulse = Pulse(redis, clock, "a")
    await beat(pulse)
    assert pulse.pace == inf
    clock.advance(seconds=6)
    await beat(pulse)
    assert pulse.pace == PACE_UNKNOWN


async def test_last_word_is_good_for_a_while_when_redis_is_away(
    redis: Redis, valkey: object
) -> None:
    clock = ManualClock()
    meter = Meter(clock)
    client = connect_redis("redis://127.0.0.1:1/0", 1)  # Nobody listens there.
    pulse = Pulse(redis, clock, "a", meter)
    await tell(redis, 700, "drain", 1)
    await beat(pulse)
    pulse._redis = client
    with pytest.raises(RedisUnavailable):
        await beat(pulse)
    assert meter.per_second == 700
    clock.advance(seconds=6)
    with pytest.raises(RedisUnavailable):
        await beat(pulse)
    assert (pulse.pace, meter.per_second) == (PACE_UNKNOWN, PACE_UNKNOWN)
    await client.aclose()


async def test_invented_names_do_not_fill_redis(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulse_module, "FRONTS_MAX", 3)
    clock = ManualClock()
    for number in range(10):
        clock.advance(seconds=0.1)
        await beat(Pulse(redis, clock, f"front-{number}"))
    assert await redis.zcard(FRONTS_KEY) == 3


@asynccontextmanager
async def running(pulse: Pulse) -> AsyncIterator[None]:
    task = asyncio.create_task(pulse.run())
    yield
    pulse.stop()
    pulse.stop()
    async with asyncio.timeout(10):
        await task


async def test_front_that_stops_leaves_its_share_to_the_others_at_once(redis: Redis) -> None:
    clock = ManualClock()
    other = Pulse(redis, clock, "other")

    async def there_are_two() -> bool:
        await beat(other)
        return other.fronts == 2

    async with running(Pulse(redis, clock, "a")):
        await until(there_are_two, "the other front was seen")
    await beat(other)
    assert other.fronts == 1


async def test_stop_before_start_is_safe(redis: Redis) -> None:
    pulse = Pulse(redis, ManualClock(), "a")
    pulse.stop()
    await pulse.run()
    assert await redis.zcard(FRONTS_KEY) == 0  # It never said that it lives.
