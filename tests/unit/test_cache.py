"""The short memory that bridges the front over its sources."""

from engine.clock import ManualClock
from engine.sales.cache import ShortMemory


async def test_a_flood_of_guessed_names_evicts_nothing_that_exists() -> None:
    loaded: list[str] = []

    async def load(key: str) -> str | None:
        loaded.append(key)
        return "a sale" if key == "real" else None

    memory = ShortMemory[str | None](
        load,
        ManualClock(),
        fresh_seconds=lambda _: 1.0,
        stale_seconds=lambda _: 60.0,
        keys_max=8,
    )
    assert await memory.get("real") == "a sale"
    for number in range(100):
        assert await memory.get(f"guess-{number}") is None

    assert await memory.get("real") == "a sale"
    assert loaded.count("real") == 1
