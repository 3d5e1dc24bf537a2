"""HTTP/1.1 through the gate: pipelines, limits, dawdlers, clients that leave, a stop."""

import asyncio
import contextlib
import socket

import pytest
from redis.asyncio import Redis

from engine.model import make_reservation_id
from engine.servers import EmbeddedValkey
from ext.gate import GateConnection
from tests.gate.calls import BODY, COLD, PATH, fields_of, reserve_call, show_sale, status_of
from tests.gate.conftest import HeldLink
from tests.gate.streams import request
from tests.support.front import RawConnection, Served, serve
from tests.support.waiting import until

PIPELINE_MAX = 32  # of ext/gate.pyx
UNREAD_MAX = 32 * 2**20  # Bytes; more than the kernel holds for both sides.


async def said_to(served: Served, *pieces: bytes, answers: int) -> list[bytes]:
    """The answers to what is sent piece by piece over one connection."""
    async with await served.raw() as connection:
        for piece in pieces:
            connection.send(piece)
            for _ in range(2):  # The server's turn to read.
                await asyncio.sleep(0)
        return [await connection.answer() for _ in range(answers)]


def told(answer: bytes) -> tuple[int, bytes]:
    """Status and body, but for the time it was said."""
    return status_of(answer), answer.partition(b"\r\n\r\n")[2].partition(b'"server_time"')[0]


def gates_of(served: Served) -> int:
    """How many connections the gate itself has."""
    return sum(isinstance(each, GateConnection) for each in served.server.connections.open)


async def everybody_was_read(served: Served) -> None:
    """The loop has read what was sent before."""
    await served.get("/healthz")


async def test_an_exchange_split_at_any_byte_is_answered_alike(served: Served) -> None:
    exchange = reserve_call(served) + show_sale() + COLD + reserve_call(served, key="k2")
    await said_to(served, exchange, answers=4)  # From now on both reservations are replays.
    expected = [told(answer) for answer in await said_to(served, exchange, answers=4)]
    assert [status for status, _ in expected] == [200] * 4
    for at in range(1, len(exchange)):
        answers = await said_to(served, exchange[:at], exchange[at:], answers=4)
        assert [told(answer) for answer in answers] == expected, f"split at {at}"
    single = [exchange[at : at + 1] for at in range(len(exchange))]
    answers = await said_to(served, *single, answers=4)
    assert [told(answer) for answer in answers] == expected, "byte by byte"


@pytest.mark.parametrize(
    ("more", "closes"),
    [((), False), (("Connection: keep-alive",), False), (("Connection: close",), True)],
)
async def test_a_connection_closes_when_the_client_asks_for_it(
    served: Served, more: tuple[str, ...], closes: bool
) -> None:
    async with await served.raw() as connection:
        connection.send(reserve_call(served, *more))
        answer = await connection.answer()
        assert status_of(answer) == 201
        assert (b"\r\nConnection: close\r\n" in answer) is closes
        if closes:
            assert await connection.rest() == b""
        else:
            connection.send(show_sale())
            assert status_of(await connection.answer()) == 200


async def test_http_1_0_is_answered_and_closed(served: Served) -> None:
    async with await served.raw() as connection:
        connection.send(reserve_call(served).replace(b" HTTP/1.1", b" HTTP/1.0", 1))
        assert b" 201 " in (await connection.rest()).partition(b"\r\n")[0]


async def test_who_expects_100_continue_gets_it_and_then_the_answer(served: Served) -> None:
    async with await served.raw() as connection:
        head, _, body = reserve_call(served, "Expect: 100-continue").partition(b"\r\n\r\n")
        connection.send(head + b"\r\n\r\n")
        assert b" 100 " in await connection.reader.readuntil(b"\r\n\r\n")
        connection.send(body)
        assert status_of(await connection.answer()) == 201


async def test_a_body_in_chunks_reserves(served: Served) -> None:
    fields = fields_of(served)
    head = request(f"POST {PATH} HTTP/1.1", *fields, "Transfer-Encoding: chunked")
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"
    answers = await said_to(served, head + chunks + reserve_call(served), answers=2)
    assert [status_of(answer) for answer in answers] == [201, 200], "both are one reservation"


@pytest.mark.parametrize(("beyond", "status"), [(-1, 201), (0, 201), (1, 413)])
async def test_a_body_may_be_as_large_as_the_limit(
    served: Served, beyond: int, status: int
) -> None:
    body = BODY.ljust(served.engine.settings.body_bytes_max + beyond)
    [answer] = await said_to(served, reserve_call(served, body=body), answers=1)
    assert status_of(answer) == status


async def test_a_head_longer_than_the_gate_takes_is_answered_all_the_same(served: Served) -> None:
    line = f"POST {PATH} HTTP/1.1"
    fields = [*fields_of(served), f"Content-Length: {len(BODY)}", *("X-A: " + "a" * 2000,) * 3]
    shorter = len(request(line, *fields, "X-B: "))
    for size in range(8180, 8200):
        longer = request(line, *fields, "X-B: " + "b" * (size - shorter))
        assert len(longer) == size
        answers = await said_to(served, longer + BODY + show_sale(), answers=2)
        assert [status_of(answer) for answer in answers][1:] == [200]
        assert status_of(answers[0]) in {200, 201}
    huge = request(line, *fields, *("X-C: " + "c" * 5000,) * 3)
    [answer] = await said_to(served, huge + BODY, answers=1)
    assert status_of(answer) == 200


@pytest.mark.parametrize(("headers", "status"), [(64, 201), (65, 400)])
async def test_sixty_four_headers_are_taken_and_no_more(
    served: Served, headers: int, status: int
) -> None:
    used = len(fields_of(served)) + len(["Content-Length"])
    more = [f"X-{n}: {n}" for n in range(headers - used)]
    [answer] = await said_to(served, reserve_call(served, *more), answers=1)
    assert status_of(answer) == status


async def test_a_header_that_is_too_long_is_refused(served: Served) -> None:
    async with await served.raw() as connection:
        connection.send(reserve_call(served, "X-Long: " + "x" * 8200))
        said = await connection.rest()
    assert status_of(said) == 400
    assert served.front.counts.outcomes == {}


def sweep(served: Served, seconds: float, monkeypatch: pytest.MonkeyPatch) -> int:
    """Looks for dawdlers, then again `seconds` later. Returns how many were closed."""
    connections = served.server.connections
    connections.sweep_once()
    later = connections.now + seconds
    monkeypatch.setattr(connections, "_clock", lambda: later)
    return connections.sweep_once()


@pytest.mark.parametrize("answered_before", [False, True])
@pytest.mark.parametrize("part", ["head", "body"])
async def test_a_request_that_takes_too_long_to_arrive_is_closed(
    served: Served, monkeypatch: pytest.MonkeyPatch, part: str, answered_before: bool
) -> None:
    call = reserve_call(served)
    async with await served.raw() as connection:
        if answered_before:
            connection.send(call)
            await connection.answer()
        connection.send(call[:60] if part == "head" else call[:-5])
        await everybody_was_read(served)
        assert sweep(served, served.engine.settings.request_seconds_max + 0.1, monkeypatch) == 1
        assert await connection.rest() == b""


async def test_single_bytes_buy_no_time(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    call = reserve_call(served)
    connections = served.server.connections
    now = connections.now
    monkeypatch.setattr(connections, "_clock", lambda: now)
    async with await served.raw() as connection:
        closed = 0
        for byte in call[:40]:
            connection.send(bytes([byte]))
            await everybody_was_read(served)
            closed = connections.sweep_once()
            if closed:
                break
            now += 1
        assert closed == 1
        assert await connection.rest() == b""


async def test_an_idle_connection_is_kept_as_long_as_promised(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = served.engine.settings
    async with await served.raw() as connection:
        connection.send(show_sale())
        await connection.answer()
        assert sweep(served, settings.keepalive_seconds - 1, monkeypatch) == 0
        connection.send(show_sale())
        assert status_of(await connection.answer()) == 200
        assert sweep(served, settings.keepalive_seconds + 1, monkeypatch) == 1
        assert await connection.rest() == b""


async def test_who_says_nothing_at_all_is_closed_sooner(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await served.raw() as connection:
        await everybody_was_read(served)
        assert sweep(served, served.engine.settings.request_seconds_max + 0.1, monkeypatch) == 1
        assert await connection.rest() == b""


async def test_who_waits_for_us_is_never_closed(
    served: Served, held: HeldLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await served.raw() as connection:
        connection.send(reserve_call(served))
        await held.asked.wait()
        connection.send(show_sale()[:10])
        await everybody_was_read(served)
        assert sweep(served, 10_000, monkeypatch) == 0
        held.go_on.set()
        assert status_of(await connection.answer()) == 201


async def test_a_client_that_does_not_read_is_bounded_and_then_closed(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = served.server.connections
    now = connections.now
    monkeypatch.setattr(connections, "_clock", lambda: now)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((served.host, served.port))
    client.setblocking(False)
    taken = 0

    async def closed() -> int:
        """Much time passes between two looks; who makes way is not late all the same."""
        nonlocal now, taken
        with contextlib.suppress(BlockingIOError):
            while taken < UNREAD_MAX:
                taken += client.send(show_sale() * 200)
        now += served.engine.settings.request_seconds_max + 0.1
        return connections.sweep_once()

    assert await until(closed, "it is closed") == 1
    assert taken < UNREAD_MAX, "the server takes whatever comes"
    await asyncio.wait_for(connections.empty.wait(), 10)
    client.close()


async def test_who_leaves_has_reserved_and_leaves_nothing_behind(
    served: Served, held: HeldLink
) -> None:
    leavers = [await served.raw() for _ in range(20)]
    for number, leaver in enumerate(leavers):
        leaver.send(reserve_call(served, user=f"u{number}") + show_sale() + COLD)
    await held.asked.wait()
    await everybody_was_read(served)
    for leaver in leavers:
        leaver.writer.transport.abort()
    await everybody_was_read(served)
    held.go_on.set()
    await served.session.close()
    await asyncio.wait_for(served.server.connections.empty.wait(), 10)

    async def all_left() -> bool:
        return served.front.limit.in_flight == 0

    await until(all_left, "every place is free again")
    for number in range(20):
        user = f"u{number}"
        reservation_id = make_reservation_id("demo", user, "k")
        assert await served.engine.inventory.reservation("demo", user, reservation_id)


async def test_who_stops_sending_still_gets_every_answer(served: Served, held: HeldLink) -> None:
    async with await served.raw() as connection:
        calls = [reserve_call(served, key=f"k{n}") for n in range(3)]
        connection.send(b"".join(calls) + b"GET /v1/sal")
        connection.writer.write_eof()
        await held.asked.wait()
        await everybody_was_read(served)
        held.go_on.set()
        said = await connection.rest()
    assert said.count(b"HTTP/1.1 201 Created\r\n") == 3
    assert said.count(b"HTTP/1.1 ") == 3


async def test_who_pipelines_a_thousand_and_stops_sending_gets_every_answer(
    served: Served,
) -> None:
    async with await served.raw() as connection:
        connection.send(b"".join(reserve_call(served, user=f"u{n}") for n in range(1000)))
        connection.writer.write_eof()
        said = await connection.rest()
    assert said.count(b"HTTP/1.1 201 Created\r\n") == 1000


async def test_a_thousand_requests_in_one_write_are_answered_in_order_a_few_at_a_time(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await served.reserve("u0")  # The straight path knows sale and body from now on.
    in_work: list[int] = []
    link = served.engine.inventory._link
    call_link = link.call

    async def call(command: bytes) -> object:
        in_work.append(served.front.limit.in_flight)
        return await call_link(command)

    monkeypatch.setattr(link, "call", call)
    names = [f"request-{number:04}" for number in range(1000)]
    calls = [reserve_call(served, f"X-Request-Id: {name}", user=name) for name in names]
    async with await served.raw() as connection:
        connection.send(b"".join(calls))
        answers = [await connection.answer() for _ in names]
    assert [status_of(answer) for answer in answers] == [201] * 1000
    for name, answer in zip(names, answers, strict=True):
        assert f"X-Request-Id: {name}\r\n".encode() in answer
    assert 1 < max(in_work) <= PIPELINE_MAX


async def test_answers_keep_the_order_of_their_requests_whatever_is_ready_first(
    served: Served, held: HeldLink
) -> None:
    async with await served.raw() as connection:
        missing = reserve_call(served, key="")
        connection.send(reserve_call(served) + missing + show_sale() + reserve_call(served) + COLD)
        await held.asked.wait()
        await everybody_was_read(served)
        held.go_on.set()
        answers = [await connection.answer() for _ in range(5)]
    assert [status_of(answer) for answer in answers] == [201, 400, 200, 200, 200]


async def stop_begun(served: Served) -> "asyncio.Task[None]":
    """The server stops, and takes no new connection any more."""
    stopping = asyncio.create_task(served.server.stop())

    async def shut() -> bool:
        return served.server.listener.fileno() < 0

    await until(shut, "no new connections")
    return stopping


async def test_a_stop_answers_all_that_was_taken_and_says_which_is_the_last(
    served: Served, held: HeldLink
) -> None:
    buyers = [await served.raw() for _ in range(10)]
    idle = await served.raw()
    for number, buyer in enumerate(buyers):
        users = [f"u{number}-{n}" for n in range(1 + 40 * (number % 2))]
        buyer.send(b"".join(reserve_call(served, user=user) for user in users))
    await held.asked.wait()
    await everybody_was_read(served)
    stopping = await stop_begun(served)
    with pytest.raises(ConnectionRefusedError):
        await served.raw()
    held.go_on.set()
    for number, buyer in enumerate(buyers):
        said = await buyer.rest()
        answers = said.split(b"HTTP/1.1 ")[1:]
        assert [answer[:3] for answer in answers] == [b"201"] * (1 + 40 * (number % 2))
        assert [b"\r\nConnection: close\r\n" in answer for answer in answers[:-1]].count(True) == 0
        assert b"\r\nConnection: close\r\n" in answers[-1]
        buyer.writer.close()
    assert await idle.rest() == b""
    idle.writer.close()
    await stopping
    assert len(served.server.connections) == 0


async def test_a_stop_tells_who_waits_with_a_cold_call_that_it_was_not_taken(
    served: Served, held: HeldLink
) -> None:
    async with await served.raw() as connection:
        connection.send(reserve_call(served) + COLD)
        await held.asked.wait()
        await everybody_was_read(served)
        stopping = await stop_begun(served)
        held.go_on.set()
        said = await connection.rest()
    assert said.count(b"HTTP/1.1 ") == 1
    assert b"\r\nConnection: close\r\n" in said
    await stopping


async def test_no_request_follows_the_answer_that_said_it_was_the_last(
    served: Served, held: HeldLink
) -> None:
    async with await served.raw() as connection:
        connection.send(reserve_call(served) + reserve_call(served, key="é"))
        await held.asked.wait()
        await everybody_was_read(served)
        stopping = await stop_begun(served)
        # This one is answered before the first is, and would be the last.
        connection.send(reserve_call(served, key=""))

        async def refused() -> bool:
            return served.front.counts.requests["POST /v1/sales/{sale}/reservations", 400] >= 1

        await until(refused, "the last is answered")
        connection.send(reserve_call(served, key="k3"))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(connection.reader.read(1), 0.01)
        held.go_on.set()
        said = await connection.rest()
    answers = said.split(b"HTTP/1.1 ")[1:]
    closes = [b"\r\nConnection: close\r\n" in answer for answer in answers]
    assert closes.index(True) == len(closes) - 1
    await stopping


async def test_a_handed_over_connection_lives_on_and_counts_once(served: Served) -> None:
    async with await served.raw() as connection:
        connection.send(reserve_call(served))
        await connection.answer()
        before = len(served.server.connections)
        assert gates_of(served) == 1
        connection.send(COLD)
        await connection.answer()
        assert len(served.server.connections) == before
        assert gates_of(served) == 0
        for call in (reserve_call(served), show_sale(), COLD):
            connection.send(call)
            assert status_of(await connection.answer()) == 200
        assert len(served.server.connections) == before
    await served.session.close()
    await asyncio.wait_for(served.server.connections.empty.wait(), 10)


@pytest.mark.parametrize("cap", ["connections_max", "connections_per_address_max"])
async def test_the_caps_hold_across_a_hand_over(
    redis: Redis, valkey: EmbeddedValkey, postgres_url: str, cap: str
) -> None:
    async with serve(valkey.url, postgres_url, **{cap: 3}) as served:
        kept = [await served.raw() for _ in range(3)]
        for connection in kept:
            connection.send(COLD)
            assert status_of(await connection.answer()) == 200
        await assert_full(served)
        kept[0].writer.close()

        async def let_in() -> RawConnection | None:
            connection = await served.raw()
            connection.send(COLD)
            if status_of(await connection.answer()) == 200:
                return connection
            connection.writer.close()
            return None

        kept.append(await until(let_in, "a place left is free again"))
        await assert_full(served)
        for connection in kept:
            connection.writer.close()


async def assert_full(served: Served) -> None:
    async with await served.raw() as refused:
        said = await refused.rest()
    assert said.startswith(b"HTTP/1.1 503 ")
    assert b'"code":"overloaded"' in said
