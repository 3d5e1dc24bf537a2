"""A poll of the queue is answered on the straight path, at once and without Redis."""

import json

import pytest

from api.gate import GateDoors
from tests.gate.streams import request
from tests.support.front import Served
from tests.support.rooms import open_room

ROUTE = "GET /v1/sales/{sale}/queue"


def poll_call(served: Served, user: str, ticket: str, *more: str) -> bytes:
    fields = [f"Authorization: Bearer {served.tokens.issue(user)}", f"Queue-Ticket: {ticket}"]
    return request("GET /v1/sales/demo/queue HTTP/1.1", "Host: x", *fields, *more)


async def test_polls_are_answered_from_memory_in_the_turn_they_come_in(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitors = await open_room(served)
    ticket = await visitors.enter("u1")
    async with await served.raw() as connection:
        connection.send(poll_call(served, "u1", ticket))  # From now on the sale is known.
        await connection.answer()
        # Whatever has to wait for something begins here.
        monkeypatch.delattr(GateDoors, "_begin")
        connection.send(poll_call(served, "u1", ticket) * 10)
        said = [await connection.answer() for _ in range(10)]
    assert {json.loads(each.partition(b"\r\n\r\n")[2])["number"] for each in said} == {1}


async def test_a_poll_with_a_name_of_its_own_gets_it_back(served: Served) -> None:
    visitors = await open_room(served)
    ticket = await visitors.enter("u1")
    async with await served.raw() as connection:
        for _ in range(2):
            connection.send(poll_call(served, "u1", ticket, "X-Request-Id: my-own-name"))
            assert b"\r\nX-Request-Id: my-own-name\r\n" in await connection.answer()


async def test_polls_are_counted_under_their_route(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitors = await open_room(served)
    ticket = await visitors.enter("u1")
    counts = served.front.counts
    monkeypatch.setattr(counts, "flush", lambda: None)
    for _ in range(5):
        await served.get("/v1/sales/demo/queue", user="u1", queue_ticket=ticket)
    served.server._doors.flush_counts()
    assert counts.requests[ROUTE, 200] == 5
