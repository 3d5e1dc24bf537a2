"""An inventory on real Valkey with a clock that stands still."""

import pytest
from redis.asyncio import Redis

from engine.admission.room.store import RoomStore
from engine.clock import ManualClock
from engine.inventory import Inventory


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def inventory(redis: Redis, clock: ManualClock) -> Inventory:
    return Inventory(redis, clock, batch_max=64, queue_max=10_000)


@pytest.fixture
def store(redis: Redis, clock: ManualClock) -> RoomStore:
    """Rooms that go by our clock."""
    return RoomStore(redis, clock, our_clock_rules=True)
