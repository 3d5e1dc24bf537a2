"""An inventory on real Valkey with a clock that stands still."""

import pytest
from redis.asyncio import Redis

from engine.clock import ManualClock
from engine.inventory import Inventory


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def inventory(redis: Redis, clock: ManualClock) -> Inventory:
    return Inventory(redis, clock, batch_max=64, queue_max=10_000)
