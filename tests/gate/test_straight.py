"""What goes wrong on the straight path costs its own request, and no place among those in work."""

import pytest

from tests.support.front import Served


class BrokenVerifier:
    """Fails on every token."""

    def claims(self, _: bytes) -> bytes:
        raise RuntimeError("a bug")

    def user_until(self, *_: object) -> None:
        raise RuntimeError("a bug")


async def test_a_bug_on_the_path_is_answered_and_holds_no_place_in_work(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await served.reserve("ann")).status == 201  # From now on the sale is known.
    with monkeypatch.context() as bug:
        bug.setattr(served.front.tokens, "_verifier", BrokenVerifier())
        reply = await served.reserve("bob")
        assert (reply.status, reply.code) == (500, "internal_error")
        assert served.front.in_flight.in_flight == 0
    assert (await served.reserve("bob")).status == 201
    assert served.front.in_flight.in_flight == 0
