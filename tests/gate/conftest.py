"""What the gate's tests share: a served engine with a sale, and a link that can be held up."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import uvloop
from redis.asyncio import Redis

from engine.inventory.link import Link
from engine.servers import EmbeddedValkey
from tests.support.front import Served, serve


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that front processes run on: its transports are others than asyncio's."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def served(redis: Redis, valkey: EmbeddedValkey, postgres_url: str) -> AsyncIterator[Served]:
    """The gate before aiohttp, and a sale that sells."""
    async with serve(valkey.url, postgres_url) as served:
        await served.sell(stock={"phone-black": 100_000}, per_user_max=10_000)
        yield served


class HeldLink:
    """Holds every script call up until `go_on`; `asked` says that one came."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()

    async def call(self, command: bytes) -> Any:
        self.asked.set()
        await self.go_on.wait()
        return await self._link.call(command)

    def close(self) -> None:
        self._link.close()


@pytest.fixture
def held(served: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldLink]:
    """The way to Redis, held up from now on."""
    inventory = served.engine.inventory
    link = HeldLink(inventory._link)
    monkeypatch.setattr(inventory, "_link", link)
    yield link
    link.go_on.set()  # A stop waits for everybody.
