"""The micro-batcher, with a call that the test answers when it likes."""

import asyncio
from collections.abc import Sequence

import pytest

from engine.errors import Overloaded, RedisUnavailable, Unavailable
from engine.inventory import Batcher


class Call:
    """Holds every batch until the test lets it go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.running = self.running_max = 0
        self.sent = asyncio.Event()
        self._waiting: asyncio.Queue[asyncio.Future[list[int]]] = asyncio.Queue()

    async def __call__(self, requests: Sequence[int]) -> list[int]:
        self.batches.append(list(requests))
        self.running += 1
        self.running_max = max(self.running, self.running_max)
        answer: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait(answer)
        self.sent.set()
        try:
            return await answer
        finally:
            self.running -= 1

    async def answer(self) -> None:
        """Answers the batch in flight with tenfold numbers."""
        (await self._next()).set_result([10 * number for number in self.batches[-1]])

    async def fail(self, error: Exception) -> None:
        (await self._next()).set_exception(error)

    async def answer_short(self) -> None:
        (await self._next()).set_result([])

    async def _next(self) -> asyncio.Future[list[int]]:
        async with asyncio.timeout(5):
            return await self._waiting.get()


def make(call: Call, *, batch_max: int = 8, queue_max: int = 100) -> Batcher[int, int]:
    return Batcher[int, int](call, batch_max=batch_max, queue_max=queue_max)


async def first_sent(call: Call) -> None:
    """Returns once a batch is in flight."""
    async with asyncio.timeout(5):
        await call.sent.wait()


async def test_lone_request_leaves_at_once_and_the_rest_travels_together() -> None:
    call = Call()
    batcher = make(call)

    first = batcher.submit(1)
    await first_sent(call)
    rest = [batcher.submit(number) for number in (2, 3, 4)]
    await call.answer()
    await call.answer()

    assert await asyncio.gather(first, *rest) == [10, 20, 30, 40]
    assert call.batches == [[1], [2, 3, 4]]


async def test_one_call_is_in_flight_and_no_batch_exceeds_its_maximum() -> None:
    call = Call()
    batcher = make(call, batch_max=3)

    answers = [batcher.submit(number) for number in range(10)]
    for _ in range(4):
        await call.answer()

    assert await asyncio.gather(*answers) == [10 * number for number in range(10)]
    assert [len(batch) for batch in call.batches] == [3, 3, 3, 1]
    assert call.running_max == 1


async def test_full_queue_refuses_with_nothing_done() -> None:
    call = Call()
    batcher = make(call, queue_max=2)
    in_call = batcher.submit(1)
    await first_sent(call)
    waiting = [batcher.submit(number) for number in (2, 3)]

    with pytest.raises(Overloaded):
        batcher.submit(4)

    await call.answer()
    await call.answer()
    await asyncio.gather(in_call, *waiting)
    assert call.batches == [[1], [2, 3]]


async def test_failed_call_fails_its_own_batch_and_no_other() -> None:
    call = Call()
    batcher = make(call, batch_max=2)
    answers = [batcher.submit(number) for number in (1, 2, 3, 4)]

    await call.fail(RedisUnavailable("gone"))
    await call.answer()

    results = await asyncio.gather(*answers, return_exceptions=True)
    assert [type(result) for result in results[:2]] == [RedisUnavailable] * 2
    assert results[2:] == [30, 40]


async def test_bug_in_a_call_reaches_callers_as_unknown(caplog: pytest.LogCaptureFixture) -> None:
    call = Call()
    batcher = make(call)

    wrong = batcher.submit(1)
    await call.answer_short()
    with pytest.raises(Unavailable):
        await wrong

    right = batcher.submit(2)
    await call.answer()
    assert await right == 20
    assert "A batch of 1 failed." in caplog.text


async def test_cancelled_caller_disturbs_neither_the_call_nor_its_neighbours() -> None:
    call = Call()
    batcher = make(call)

    async def ask(number: int) -> int:
        return await batcher.submit(number)

    leaving, staying = asyncio.create_task(ask(1)), asyncio.create_task(ask(2))
    await first_sent(call)
    leaving.cancel()
    await asyncio.wait({leaving})
    await call.answer()

    assert leaving.cancelled()
    assert await staying == 20
    assert call.batches == [[1, 2]]


async def test_stop_answers_everything_accepted_and_refuses_the_rest() -> None:
    call = Call()
    batcher = make(call, batch_max=2)
    answers = [batcher.submit(number) for number in (1, 2, 3)]

    stopping = asyncio.create_task(batcher.stop())
    await first_sent(call)
    with pytest.raises(Overloaded):
        batcher.submit(4)
    await call.answer()
    await call.answer()
    await stopping

    assert [answer.result() for answer in answers] == [10, 20, 30]
    await batcher.stop()


async def test_stop_before_the_first_request_is_safe() -> None:
    batcher = make(Call())
    await batcher.stop()
    with pytest.raises(Overloaded):
        batcher.submit(1)
