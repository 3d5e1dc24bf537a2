"""A poll of the queue is answered on the straight path, at once and without Redis."""

import json

import pytest

from api.gate import GateDoors
from ext.gate import GateConnection
from loadtest.proof import solve
from tests.gate.streams import request
from tests.support.front import Served
from tests.support.rooms import open_room

ROUTE = "GET /v1/sales/{sale}/queue"
ENTER = "POST /v1/sales/{sale}/queue"


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


async def test_a_visitor_enters_and_polls_without_leaving_the_gate(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served.front.counts, "flush", lambda: None)
    await open_room(served, proof_difficulty=50)
    fields = ["Host: x", f"Authorization: Bearer {served.tokens.issue('u1')}", "User-Agent: u"]
    challenge = request("GET /v1/sales/demo/queue/challenge HTTP/1.1", *fields)
    async with await served.raw() as connection:
        connection.send(challenge)
        made = json.loads((await connection.answer()).partition(b"\r\n\r\n")[2])
        proof = json.dumps({"altcha": solve(made)}).encode()
        fields.append("Content-Type: application/json")
        connection.send(request("POST /v1/sales/demo/queue HTTP/1.1", *fields, body=proof))
        entered = await connection.answer()
        assert entered.startswith(b"HTTP/1.1 201 ")
        ticket = json.loads(entered.partition(b"\r\n\r\n")[2])["ticket"]
        assert f"\r\nQueue-Ticket: {ticket}\r\n".encode() in entered
        connection.send(poll_call(served, "u1", ticket))
        assert json.loads((await connection.answer()).partition(b"\r\n\r\n")[2])["number"] == 1
        at_the_gate = [isinstance(each, GateConnection) for each in served.server.connections.open]
        assert at_the_gate == [True]
    polled = served.server._doors.straight.polled + served.front.counts.requests[ROUTE, 200]
    assert polled == 1


async def test_who_enters_again_and_again_has_one_number_and_every_answer_is_counted(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served.front.counts, "flush", lambda: None)
    await open_room(served)
    fields = ["Host: x", f"Authorization: Bearer {served.tokens.issue('u1')}"]
    call = request("POST /v1/sales/demo/queue HTTP/1.1", *fields)
    async with await served.raw() as connection:
        connection.send(call)
        await connection.answer()
        connection.send(call * 9)
        said = [await connection.answer() for _ in range(9)]
    assert {json.loads(each.partition(b"\r\n\r\n")[2])["number"] for each in said} == {1}
    counted = served.front.counts.requests
    assert (counted[ENTER, 201], counted[ENTER, 200]) == (1, 9)
