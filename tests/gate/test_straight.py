"""What goes wrong on the straight path costs its own request, and no place among those in work."""

import pytest

from engine.sales import Sale, SaleDirectory
from tests.support.front import Served
from tests.support.waiting import until


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
        assert served.front.limit.in_flight == 0
    assert (await served.reserve("bob")).status == 201
    assert served.front.limit.in_flight == 0


async def test_a_bug_in_looking_a_sale_up_does_not_leave_the_path_with_an_old_copy(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    get = SaleDirectory.get

    async def broken_once(directory: SaleDirectory, sale_id: str) -> Sale | None:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise RuntimeError("a bug")
        return await get(directory, sale_id)

    assert (await served.reserve("ann")).status == 201
    monkeypatch.setattr(SaleDirectory, "get", broken_once)

    async def is_looked_up_again() -> bool:
        await served.reserve("ann")  # A replay: the sale stays in use.
        return asked > 1

    await until(is_looked_up_again, "the sale looked up again")
