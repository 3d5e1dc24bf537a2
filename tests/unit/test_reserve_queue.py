"""The queue of a sale's reservations, with a call that the test answers when it likes."""

import asyncio
from random import Random
from typing import Any

import pytest

from engine.admission.breaker import Breaker, BreakerState
from engine.clock import ManualClock
from engine.errors import CircuitOpen, Overloaded, RedisUnavailable, Unavailable
from engine.inventory.queue import Replies, ReserveQueue
from ext import ReserveBatch

UNTIL = b"1800000000"


class Call:
    """Holds every batch until the test lets it go."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.in_flight = self.in_flight_max = 0
        self._held: asyncio.Queue[asyncio.Future[Replies]] = asyncio.Queue()

    async def __call__(self, batch: ReserveBatch) -> Replies:
        self.sizes.append(len(batch))
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        answer: asyncio.Future[Replies] = asyncio.get_running_loop().create_future()
        self._held.put_nowait(answer)
        try:
            return await answer
        finally:
            self.in_flight -= 1

    async def held(self) -> asyncio.Future[Replies]:
        async with asyncio.timeout(5):
            return await self._held.get()

    async def answer(self) -> None:
        """Everybody in the batch in flight has what he wants."""
        (await self.held()).set_result((UNTIL, [b"RESERVED"] * self.sizes[-1]))


class Waiter:
    """Says what it was told."""

    def __init__(self) -> None:
        self.told: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    def replied(self, until_s: bytes, reply: bytes) -> None:
        self.told.set_result((until_s, reply))

    def failed(self, error: Exception) -> None:
        self.told.set_result(error)


def join(queue: ReserveQueue, count: int) -> list[Waiter]:
    waiters = [Waiter() for _ in range(count)]
    for number, waiter in enumerate(waiters):
        queue.join(waiter, f"buyer-{number}", "A" * 20, "phone*1")
    return waiters


async def told(waiters: list[Waiter]) -> list[object]:
    async with asyncio.timeout(5):
        return await asyncio.gather(*(waiter.told for waiter in waiters))


async def test_one_call_is_in_flight_and_no_batch_exceeds_its_maximum() -> None:
    call = Call()
    waiters = join(ReserveQueue(call, batch_max=3, queue_max=100), 10)
    for _ in range(4):
        await call.answer()

    assert await told(waiters) == [(UNTIL, b"RESERVED")] * 10
    assert call.sizes == [3, 3, 3, 1]
    assert call.in_flight_max == 1


@pytest.mark.parametrize(("batch_max", "queue_max"), [(4, 12), (8, 5), (1, 1), (5, 12)])
async def test_a_full_queue_refuses_the_next_and_answers_all_before(
    batch_max: int, queue_max: int
) -> None:
    call = Call()
    queue = ReserveQueue(call, batch_max=batch_max, queue_max=queue_max)
    waiters: list[Waiter] = []

    def fill() -> None:
        for _ in range(queue_max + 1):
            waiters.extend(join(queue, 1))

    with pytest.raises(Overloaded):
        fill()

    assert queue_max - min(batch_max, queue_max) < len(waiters) <= queue_max
    while not all(waiter.told.done() for waiter in waiters):
        await call.answer()
        await asyncio.sleep(0)
    assert sum(call.sizes) == len(waiters), "who was refused travelled nowhere"
    again = join(queue, 1)
    await call.answer()
    assert await told(again) == [(UNTIL, b"RESERVED")]


@pytest.mark.parametrize("error", [RedisUnavailable("gone"), RuntimeError("a bug")])
async def test_a_failed_call_fails_its_own_batch_as_unknown_and_no_other(error: Exception) -> None:
    call = Call()
    queue = ReserveQueue(call, batch_max=2, queue_max=100)
    waiters = join(queue, 4)
    (await call.held()).set_exception(error)
    await call.answer()

    answers = await told(waiters)
    assert all(isinstance(answer, Unavailable) for answer in answers[:2])
    assert answers[2:] == [(UNTIL, b"RESERVED")] * 2


async def test_replies_in_another_number_are_an_unknown_outcome_for_all() -> None:
    call = Call()
    waiters = join(ReserveQueue(call, batch_max=8, queue_max=8), 2)
    (await call.held()).set_result((UNTIL, [b"RESERVED"]))

    assert all(isinstance(answer, Unavailable) for answer in await told(waiters))


async def test_a_stop_answers_what_was_accepted_and_refuses_the_rest() -> None:
    call = Call()
    queue = ReserveQueue(call, batch_max=2, queue_max=100)
    waiters = join(queue, 3)
    stop = asyncio.create_task(queue.stop())
    await call.answer()
    with pytest.raises(Overloaded):
        join(queue, 1)
    await call.answer()
    await stop

    assert await told(waiters) == [(UNTIL, b"RESERVED")] * 3
    await queue.stop()
    with pytest.raises(Overloaded):
        join(queue, 1)


def late_queue(call: Call, clock: ManualClock, **changes: Any) -> ReserveQueue:
    """One that refuses after a second."""
    wanted: dict[str, Any] = {"batch_max": 2, "queue_max": 100, "deadline_seconds": 1.0}
    return ReserveQueue(call, clock=clock, **(wanted | changes))


async def test_who_waited_beyond_the_deadline_is_refused_and_travels_nowhere() -> None:
    call, clock = Call(), ManualClock()
    queue = late_queue(call, clock)
    in_flight = join(queue, 2)
    held = await call.held()
    late = join(queue, 3)

    clock.advance(seconds=1.01)
    held.set_result((UNTIL, [b"RESERVED"] * 2))

    assert await told(in_flight) == [(UNTIL, b"RESERVED")] * 2
    assert [type(answer) for answer in await told(late)] == [Overloaded] * 3
    again = join(queue, 1)
    await call.answer()
    assert await told(again) == [(UNTIL, b"RESERVED")]
    assert call.sizes == [2, 1]


async def test_a_sweep_refuses_the_late_while_a_call_hangs() -> None:
    call, clock = Call(), ManualClock()
    queue = late_queue(call, clock)
    in_flight = join(queue, 1)
    held = await call.held()
    waiters = join(queue, 5)

    clock.advance(seconds=0.9)
    assert queue.sweep_once() == 0
    clock.advance(seconds=0.2)
    assert queue.sweep_once() == 5

    assert [type(answer) for answer in await told(waiters)] == [Overloaded] * 5
    held.set_result((UNTIL, [b"RESERVED"]))
    assert await told(in_flight) == [(UNTIL, b"RESERVED")]
    assert queue.sweep_once() == 0


async def test_sweeps_part_those_who_came_at_different_times() -> None:
    call, clock = Call(), ManualClock()
    queue = late_queue(call, clock, batch_max=20)
    join(queue, 1)
    held = await call.held()
    early = join(queue, 3)
    clock.advance(seconds=0.5)
    queue.sweep_once()
    late = join(queue, 4)

    clock.advance(seconds=0.6)
    assert queue.sweep_once() == 3
    held.set_result((UNTIL, [b"RESERVED"]))
    await call.answer()

    assert [type(answer) for answer in await told(early)] == [Overloaded] * 3
    assert await told(late) == [(UNTIL, b"RESERVED")] * 4


async def test_the_first_after_a_quiet_hour_is_not_late() -> None:
    call, clock = Call(), ManualClock()
    queue = late_queue(call, clock)
    clock.advance(seconds=3600)
    for _ in range(2):
        waiters = join(queue, 1)
        await call.answer()
        assert await told(waiters) == [(UNTIL, b"RESERVED")]
        clock.advance(seconds=3600)


@pytest.mark.parametrize("at_once", [1, 2, 3, 4])
async def test_batches_parted_by_time_fill_the_queue_no_further(at_once: int) -> None:
    call, clock = Call(), ManualClock()
    queue = late_queue(call, clock, batch_max=4, queue_max=12, deadline_seconds=8.0)
    join(queue, 1)
    held = await call.held()
    waiters: list[Waiter] = []

    def fill() -> None:
        for _ in range(7):
            for _ in range(at_once):
                waiters.extend(join(queue, 1))
            clock.advance(seconds=1)
            assert queue.sweep_once() == 0

    if at_once == 1:
        fill()
        assert len(waiters) == 7
    else:
        with pytest.raises(Overloaded):
            fill()
        assert 8 < len(waiters) <= 12
    held.set_result((UNTIL, [b"RESERVED"]))


async def test_sweeping_goes_on_by_itself_while_somebody_waits() -> None:
    call = Call()
    queue = ReserveQueue(call, batch_max=2, queue_max=100, deadline_seconds=0.02)
    join(queue, 1)
    held = await call.held()
    late = join(queue, 3)
    assert [type(answer) for answer in await told(late)] == [Overloaded] * 3
    held.set_result((UNTIL, [b"RESERVED"]))
    await queue.stop()


def opened_breaker(clock: ManualClock) -> Breaker:
    breaker = Breaker("redis", clock, Random(1))
    while breaker.state is BreakerState.CLOSED:
        breaker.failed()
    return breaker


async def test_nobody_joins_while_the_breaker_is_open() -> None:
    call, clock = Call(), ManualClock()
    queue = ReserveQueue(call, batch_max=2, queue_max=9, breaker=opened_breaker(clock))
    with pytest.raises(CircuitOpen):
        join(queue, 1)
    assert queue.idle
    await queue.stop()
    assert call.sizes == []


async def test_calls_that_fail_open_the_breaker_and_a_probe_that_succeeds_closes_it() -> None:
    call, clock = Call(), ManualClock()
    breaker = Breaker("redis", clock, Random(1))
    queue = ReserveQueue(call, batch_max=1, queue_max=99, clock=clock, breaker=breaker)
    waiters = join(queue, 8)
    while breaker.state is BreakerState.CLOSED:
        (await call.held()).set_exception(RedisUnavailable("gone"))
        await asyncio.sleep(0)
    asked = len(call.sizes)
    answers = await told(waiters)

    assert [type(answer) for answer in answers[:asked]] == [RedisUnavailable] * asked
    assert [type(answer) for answer in answers[asked:]] == [CircuitOpen] * (8 - asked)
    with pytest.raises(CircuitOpen):
        join(queue, 1)

    clock.advance(seconds=1)
    probe = join(queue, 1)
    await call.answer()
    assert await told(probe) == [(UNTIL, b"RESERVED")]
    assert breaker.state is BreakerState.CLOSED
