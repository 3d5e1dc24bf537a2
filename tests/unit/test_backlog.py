"""The model of the streams' backlog against the streams themselves."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import backlog as backlog_module
from engine.backlog import Backlog

looks = st.lists(
    st.tuples(st.integers(1, 20), st.integers(1, 512), st.integers(0, 40)), max_size=60
)


@given(looks)
def test_entries_of_different_sizes_are_counted_as_they_queue(
    course: list[tuple[int, int, int]],
) -> None:
    queue: deque[int] = deque()
    backlog, done = Backlog(), 0
    for added, size, stored in course:
        queue.extend([size] * added)
        for _ in range(min(stored, len(queue))):
            queue.popleft()
            done += 1
        newest = queue[-1] if queue else None
        # Of entries that came and went between two looks nobody knows the size, nor needs to.
        assert backlog.orders(done, len(queue), newest) == sum(queue)


def test_small_entries_behind_large_ones_are_not_taken_for_large() -> None:
    backlog = Backlog()
    assert backlog.orders(0, 40, 60) == 2400
    assert backlog.orders(0, 340, 1) == 2700
    assert backlog.orders(40, 300, 1) == 300


def test_streams_that_were_emptied_by_others_are_followed() -> None:
    backlog = Backlog()
    backlog.orders(500, 100, 10)
    assert backlog.orders(500, 0, None) == 0
    assert backlog.orders(0, 7, 3) == 21  # The counter began anew.


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog_module, "PARTS_MAX", 4)
    backlog = Backlog()
    for waiting in range(1, 101):
        assert backlog.orders(0, waiting, 2) == 2 * waiting
    assert len(backlog._parts) == 4
    assert backlog.orders(90, 10, 2) == 20
