"""The in-flight limit lets in what it promises."""

import pytest

from engine.admission import InFlightLimit
from engine.errors import Overloaded


def test_the_limit_holds_and_a_place_left_is_free_again() -> None:
    limit = InFlightLimit(2)
    assert [limit.try_enter() for _ in range(3)] == [True, True, False]
    limit.leave()
    with limit.slot(), pytest.raises(Overloaded), limit.slot():
        raise AssertionError("the third was let in")
    assert limit.in_flight == 1
