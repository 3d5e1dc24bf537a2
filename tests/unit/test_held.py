"""Refusals that are held back: all leave in time and in turn, a crowd of them never at once."""

import asyncio
from collections.abc import Callable

from api.held import TOGETHER_MIN, HeldAnswers

SECONDS = 0.1
CROWD = 200
SHARE = 20  # A tick is a tenth of SECONDS: so many of the crowd may leave in the first one.


class Watched(HeldAnswers):
    """Counts how many leave together."""

    def __init__(self, seconds: float, *, held_max: int = CROWD) -> None:
        super().__init__(seconds, held_max=held_max)
        self.together: list[int] = []

    def release_once(self, until: float, count_max: int | None = None) -> int:
        self.together.append(super().release_once(until, count_max))
        return self.together[-1]


def note(left: list[int], number: int, all_left: asyncio.Event) -> Callable[[], None]:
    def answer() -> None:
        left.append(number)
        if len(left) == CROWD:
            all_left.set()

    return answer


async def test_crowd_refused_at_once_leaves_a_few_at_a_time_and_in_turn() -> None:
    held, left, all_left = Watched(SECONDS), list[int](), asyncio.Event()
    for number in range(CROWD):
        assert held.hold(note(left, number, all_left))

    await asyncio.wait_for(all_left.wait(), 10)

    assert left == list(range(CROWD))
    assert TOGETHER_MIN <= max(held.together) <= SHARE
    assert len(held) == 0


async def test_stop_answers_everybody_and_holds_nobody_any_more() -> None:
    held, left = HeldAnswers(3600), list[int]()
    for number in range(CROWD):
        held.hold(lambda number=number: left.append(number))  # type: ignore[misc]

    held.stop()
    held.stop()

    assert left == list(range(CROWD))
    assert not held.hold(lambda: None)
    await held.wait()


async def test_whoever_finds_no_room_is_answered_at_once() -> None:
    held = HeldAnswers(3600, held_max=2)

    assert [held.hold(lambda: None) for _ in range(3)] == [True, True, False]
    await held.wait()

    held.stop()


async def test_one_answer_that_fails_keeps_no_other_back() -> None:
    held, answered = HeldAnswers(SECONDS), asyncio.Event()
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))

    def fails() -> None:
        raise ConnectionError("The client left.")

    held.hold(fails)
    held.hold(answered.set)
    await asyncio.wait_for(answered.wait(), 10)

    assert len(failures) == 1
