"""Servers that go away and come back, clients that dawdle or flood, and a stop that loses nothing."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from redis.asyncio import Redis

from engine.admission.limit import Priority
from engine.config import LimitKind
from engine.inventory import Inventory
from engine.servers import EmbeddedPostgres, EmbeddedValkey
from engine.store.database import connect
from engine.store.migrate import upgrade
from tests.support.front import RawConnection, Served, serve, taken
from tests.support.waiting import until


@pytest.fixture
async def served(redis: Redis, valkey: EmbeddedValkey, postgres_url: str) -> AsyncIterator[Served]:
    async with serve(valkey.url, postgres_url) as served:
        await served.sell()
        yield served


@pytest.fixture
async def hanging(served: Served, postgres_url: str) -> AsyncIterator[None]:
    """Postgres takes calls and answers none that matter."""
    connection = await connect(postgres_url)
    async with connection.transaction():
        await connection.execute("LOCK TABLE sales, orders, users IN ACCESS EXCLUSIVE MODE")
        yield
    await connection.close()


@pytest.fixture
def own_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="doorbuster-test-") as folder:
        yield Path(folder)


@pytest.fixture
def own_valkey(own_folder: Path) -> Iterator[EmbeddedValkey]:
    """A Valkey of this test's own, to take away and bring back."""
    server = EmbeddedValkey(own_folder)
    server.start()
    yield server
    server.stop()


async def test_without_redis_the_answer_is_unknown_and_repeating_it_finds_out(
    own_valkey: EmbeddedValkey, postgres_url: str
) -> None:
    async with serve(own_valkey.url, postgres_url) as served:
        await served.sell()
        assert (await served.reserve("u1")).status == 201
        await asyncio.to_thread(own_valkey.stop)
        reply = await served.reserve("u2")
        assert (reply.status, reply.code) == (503, "unavailable")
        assert "same Idempotency-Key" in reply.json["detail"]
        assert "sock" not in reply.json["detail"]
        ready = await served.get("/readyz")
        assert (ready.status, ready.json["detail"]) == (503, "No answer from redis.")
        sale = (await served.get("/v1/sales/demo")).json
        assert sale["items"][0]["available"] in {None, 99}
        recorded = await served.operate("/sales/demo/pause")
        assert recorded.json["detail"] == "Recorded; takes effect when Redis answers."
        assert (await served.get("/healthz")).status == 200

        await asyncio.to_thread(own_valkey.start)

        async def answers() -> bool:
            return (await served.reserve("u2")).status == 201

        await until(answers, "reservations again")
        assert (await served.reserve("u1")).status == 200, "what was acknowledged is still there"
        assert (await served.get("/readyz")).status == 200


async def test_without_postgres_buyers_still_reserve_and_orders_wait(
    own_folder: Path, redis: Redis, valkey: EmbeddedValkey
) -> None:
    postgres = EmbeddedPostgres(own_folder)
    postgres.start()
    try:
        connection = await connect(postgres.url_of("postgres"))
        await upgrade(connection)
        await connection.close()
        async with serve(valkey.url, postgres.url_of("postgres")) as served:
            await served.sell()
            assert (await served.reserve("u1")).status == 201
            await asyncio.to_thread(postgres.stop)
            made = await served.reserve("u2")
            assert made.status == 201
            asked = await served.get(made.headers["Location"], user="u2")
            assert (asked.status, asked.json["status"]) == (200, "reserved")
            reply = await served.get("/v1/orders", user="u1")
            assert (reply.status, reply.code) == (503, "unavailable")
            ready = await served.get("/readyz")
            assert ready.json["detail"] == "No answer from postgres."
            await asyncio.to_thread(postgres.start)

            async def answers() -> bool:
                return (await served.get("/v1/orders", user="u1")).status == 200

            await until(answers, "orders again")
    finally:
        postgres.stop()


@pytest.mark.usefixtures("hanging")
async def test_reads_give_up_on_a_postgres_that_hangs(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.patience.READ_SECONDS_MAX", 0.2)
    served.engine.directory.forget("demo")
    login = {"email": "li@example.com", "password": "correct horse"}
    async with asyncio.timeout(10):
        replies = await asyncio.gather(
            *(served.get("/v1/orders", user=f"u{number}") for number in range(20)),
            served.get("/v1/sales"),
            served.get("/v1/sales/demo"),
            served.post("/v1/sessions", body=login),
            served.reserve("u1"),
        )
    assert [(reply.status, reply.code) for reply in replies] == [(503, "unavailable")] * 24


async def test_beyond_the_limit_requests_are_shed_and_probes_are_not(
    redis: Redis, valkey: EmbeddedValkey, postgres_url: str
) -> None:
    async with serve(valkey.url, postgres_url, in_flight_max=2, limit=LimitKind.FIXED) as served:
        await served.sell()
        with taken(served, Priority.RESERVE):
            for reply in (await served.reserve("u1"), await served.get("/v1/sales")):
                assert (reply.status, reply.code) == (503, "overloaded")
            for path in ("/healthz", "/readyz", "/metrics"):
                assert (await served.get(path)).status == 200
        assert (await served.reserve("u1")).status == 201
        assert served.front.limit.in_flight == 0


WEBHOOK_HEAD = (
    b"POST /v1/webhooks/sandbox HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
)


async def test_bodies_on_their_way_shed_nobody(
    redis: Redis, valkey: EmbeddedValkey, postgres_url: str
) -> None:
    async with serve(valkey.url, postgres_url, in_flight_max=2, limit=LimitKind.FIXED) as served:
        await served.sell()
        dawdlers = [await served.raw() for _ in range(3)]
        for dawdler in dawdlers:
            dawdler.send(WEBHOOK_HEAD)
            assert b" 100 " in await dawdler.reader.readuntil(b"\r\n\r\n")
        assert (await served.reserve("u1")).status == 201
        with taken(served, Priority.PAYMENT):
            dawdlers[0].send(b"{}")
            assert b'"code":"overloaded"' in await dawdlers[0].answer()
        for dawdler in dawdlers[1:]:
            dawdler.send(b"{}")
            assert b'"code":"webhook_refused"' in await dawdler.answer()
        assert served.front.limit.in_flight == 0
        for dawdler in dawdlers:
            dawdler.writer.close()


async def test_a_full_reservation_queue_sheds(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        served.engine,
        "inventory",
        Inventory(served.engine.redis, served.engine.clock, batch_max=1, queue_max=1),
    )
    replies = await asyncio.gather(*(served.reserve(f"u{n}") for n in range(50)))
    assert {reply.code for reply in replies} == {None, "overloaded"}


async def test_one_buyer_is_throttled_and_others_are_not(
    redis: Redis, valkey: EmbeddedValkey, postgres_url: str
) -> None:
    async with serve(
        valkey.url, postgres_url, throttle_per_second=0.05, throttle_burst=3
    ) as served:
        await served.sell()
        codes = [(await served.reserve("greedy", key=f"k{n}")).code for n in range(5)]
        assert codes[3:] == ["throttled", "throttled"]
        assert (await served.reserve("patient")).status == 201


async def test_requests_that_dawdle_are_closed_wherever_they_stop(
    redis: Redis, valkey: EmbeddedValkey, postgres_url: str
) -> None:
    async with serve(valkey.url, postgres_url, request_seconds_max=0.3) as served:
        token = served.tokens.issue("u1")
        whole = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        starts = [
            b"",
            b"GET /hea",
            b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: b\r\n",
            b"POST /v1/sales/demo/reservations HTTP/1.1\r\nHost: x\r\n"
            + f"Authorization: Bearer {token}\r\n".encode()
            + b"Content-Length: 50\r\n\r\n{",
        ]
        connections = [await served.raw() for _ in range(len(starts) + 2)]
        for connection, start in zip(connections, starts, strict=False):
            connection.send(start)
        idle, second = connections[-2:]
        for connection in (idle, second):
            connection.send(whole)
            assert b" 200 " in await connection.answer()
        second.send(b"GET /again")
        assert [await c.rest() for c in (*connections[: len(starts)], second)] == [b""] * 5
        idle.send(whole)
        assert b" 200 " in await idle.answer(), "waiting between two requests is no dawdling"
        for connection in connections:
            connection.writer.close()


async def test_half_a_request_behind_a_whole_one_is_closed_too(
    redis: Redis, valkey: EmbeddedValkey, postgres_url: str
) -> None:
    async with serve(valkey.url, postgres_url, request_seconds_max=0.3) as served:
        whole = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        with_body = b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"
        idle = await served.raw()
        idle.send(whole)
        assert b" 200 " in await idle.answer()

        async def is_closed_after(start: bytes) -> None:
            async with await served.raw() as connection:
                connection.send(whole + start)
                assert b" 200 " in await connection.answer()
                said = await connection.rest()
                assert said == b"" or b" 405 " in said, "the 405 needs no body to be said"

        starts = (b"G", b"GET /hea", whole[:-2], with_body, with_body + b"{")
        await asyncio.gather(*(is_closed_after(start) for start in starts))
        idle.send(whole + b"\r\n")
        assert b" 200 " in await idle.answer(), "nothing was begun there"
        idle.writer.close()


async def test_a_request_sent_early_does_not_cost_the_answer_before_it(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = served.server.connections
    asked, go_on = asyncio.Event(), asyncio.Event()
    reserve = served.engine.inventory.reserve

    async def slow(*args: object) -> object:
        asked.set()
        await go_on.wait()
        return await reserve(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(served.engine.inventory, "reserve", slow)
    body = b'{"items":[{"sku":"phone-black","quantity":1}]}'
    request = (
        f"POST /v1/sales/demo/reservations HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\n"
        f"Authorization: Bearer {served.tokens.issue('u1')}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    async with await served.raw() as connection:
        connection.send(request)
        await asyncio.wait_for(asked.wait(), 5)
        connection.send(request[:20])
        await served.get("/healthz")  # The loop has read what was sent before.
        later = connections.now + 10 * served.engine.settings.request_seconds_max
        monkeypatch.setattr(connections, "_clock", lambda: later)
        assert connections.sweep_once() == 0
        go_on.set()
        assert b" 201 " in await connection.answer()
        connection.send(request[20:])
        assert b" 200 " in await connection.answer()


async def test_a_trickle_of_bytes_does_not_buy_more_time(
    redis: Redis, valkey: EmbeddedValkey, postgres_url: str
) -> None:
    async with serve(valkey.url, postgres_url, request_seconds_max=0.3) as served:
        connection = await served.raw()
        connection.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        closed = asyncio.create_task(connection.rest())
        sent = 0
        while not closed.done():
            connection.send(b"X-A: b\r\n")
            sent += 1
            await asyncio.wait([closed], timeout=0.02)
        assert await closed == b""
        assert sent < 1000
        connection.writer.close()


async def test_connections_beyond_the_cap_are_told_and_closed(
    redis: Redis, valkey: EmbeddedValkey, postgres_url: str
) -> None:
    async with serve(valkey.url, postgres_url, connections_per_address_max=3) as served:
        kept = [await served.raw() for _ in range(3)]
        refused = await served.raw()
        said = await refused.rest()
        assert said.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1" in said
        assert b'"code":"overloaded"' in said
        kept[0].writer.close()
        refused.writer.close()

        async def let_in() -> bool:
            async with await served.raw() as connection:
                connection.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                return b" 200 " in await connection.answer()

        await until(let_in, "a place left is free again")
        for connection in kept:
            connection.writer.close()


NO_HTTP = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET / HTTP/9.9\r\n\r\n",
    b"NONSENSE\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 9000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 100 + b"\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
]


async def test_what_is_no_http_is_refused_and_closed(served: Served) -> None:
    for request_bytes in NO_HTTP:
        async with await served.raw() as connection:
            connection.send(request_bytes)
            said = await connection.rest()
        assert b" 400 " in said.partition(b"\r\n")[0], (request_bytes, said)
        assert b'"code":"invalid_request"' in said
        assert b"Traceback" not in said


async def test_a_stop_finishes_what_was_asked_and_says_goodbye(
    redis: Redis, valkey: EmbeddedValkey, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(valkey.url, postgres_url) as served:
        await served.sell()
        asked, go_on = asyncio.Event(), asyncio.Event()
        reserve = served.engine.inventory.reserve

        async def slow(*args: object) -> object:
            asked.set()
            await go_on.wait()
            return await reserve(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(served.engine.inventory, "reserve", slow)
        idle = await served.raw()
        buying = asyncio.create_task(served.reserve("u1"))
        await asked.wait()
        stopping = asyncio.create_task(served.server.stop())

        async def shut() -> bool:
            return served.server.listener.fileno() < 0

        await until(shut, "no new connections")
        with pytest.raises(ConnectionRefusedError):
            await served.raw()
        assert (await _late(idle)).count(b"Connection: close") == 1
        assert not buying.done()
        go_on.set()
        reply = await buying
        assert reply.status == 201
        assert reply.headers["Connection"] == "close"
        await stopping
        with pytest.raises(aiohttp.ClientConnectorError):
            await served.get("/healthz")
        idle.writer.close()


async def _late(connection: RawConnection) -> bytes:
    """What a kept-alive connection is answered while the server says goodbye."""
    connection.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    return await connection.rest()


async def test_guards_forget_connections_that_ended(served: Served) -> None:
    connections = served.server.connections
    async with await served.raw() as connection:
        connection.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b" 200 " in await connection.rest()
    await served.session.close()
    async with asyncio.timeout(5):
        await connections.empty.wait()
    assert len(connections) == 0
