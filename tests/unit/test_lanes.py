"""Jobs on a few connections: never two on one, and none is left behind."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from engine.lanes import Job, Lane, Lanes


class Line:
    """A connection that can be lost."""

    def __init__(self) -> None:
        self.lost = False

    def is_closed(self) -> bool:
        return self.lost

    async def close(self) -> None:
        self.lost = True


class Exchange:
    """Connects, and remembers what it connected."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    async def __call__(self) -> Any:
        self.lines.append(Line())
        return self.lines[-1]


def waiting(gate: asyncio.Event, then: Callable[[Lane], Awaitable[None]] | None = None) -> Job:
    async def job(lane: Lane) -> None:
        await lane.connection()
        await gate.wait()
        if then is not None:
            await then(lane)

    return job


async def fail(_: Lane) -> None:
    raise RuntimeError("broken")


async def test_no_connection_has_two_jobs_at_once() -> None:
    busy: list[Lane] = []
    most = 0

    async def job(lane: Lane) -> None:
        nonlocal most
        assert lane not in busy
        busy.append(lane)
        most = max(most, len(busy))
        await asyncio.sleep(0)
        busy.remove(lane)

    async with Lanes(Exchange(), 3) as lanes:
        for _ in range(20):
            await lanes.deal(job)
    assert (most, busy) == (3, [])


async def test_one_job_after_the_other_needs_one_connection() -> None:
    exchange, open_gate = Exchange(), asyncio.Event()
    open_gate.set()
    lanes = Lanes(exchange, 3)
    for _ in range(5):
        async with lanes:
            await lanes.deal(waiting(open_gate))
    assert len(exchange.lines) == 1


async def test_failed_job_is_raised_after_those_beside_it_are_done() -> None:
    gate, done = asyncio.Event(), asyncio.Event()

    async def finish(_: Lane) -> None:
        done.set()

    async def deal() -> None:
        async with lanes:
            await lanes.deal(waiting(gate, finish))
            await lanes.deal(fail)
            asyncio.get_running_loop().call_soon(gate.set)

    lanes = Lanes(Exchange(), 2)
    with pytest.raises(RuntimeError, match="broken"):
        await deal()
    assert done.is_set()
    async with lanes:  # And they can be used again.
        await lanes.deal(finish)


async def test_nothing_more_is_dealt_after_a_failure() -> None:
    begun = asyncio.Event()

    async def begin(_: Lane) -> None:
        begun.set()

    async def deal() -> None:
        async with Lanes(Exchange(), 1) as lanes:
            await lanes.deal(fail)
            await lanes.deal(begin)

    with pytest.raises(RuntimeError, match="broken"):
        await deal()
    assert not begun.is_set()


async def test_cancelled_dealer_leaves_no_job_behind() -> None:
    never, ended = asyncio.Event(), []

    async def job(lane: Lane) -> None:
        try:
            await never.wait()
        finally:
            await asyncio.sleep(0)  # As a connection does that tells the server.
            ended.append(lane)

    async def deal() -> None:
        async with Lanes(Exchange(), 2) as lanes:
            await lanes.deal(job)
            await lanes.deal(job)

    dealer = asyncio.create_task(deal())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    dealer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dealer
    assert len(ended) == 2


async def test_lost_connection_is_opened_again() -> None:
    exchange = Exchange()
    lane = Lane(exchange)
    first = await lane.connection()
    assert await lane.connection() is first
    first.lost = True
    assert not lane.is_connected()
    assert await lane.connection() is exchange.lines[1]
    await lane.close()
    await lane.close()
    assert exchange.lines[1].lost
