"""The gate under slow crowds and without Redis: buyers get an honest answer, whatever happens."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from api.server import raise_open_files_limit
from engine.servers import EmbeddedValkey
from tests.gate.calls import reserve_call, status_of
from tests.support.front import RawConnection, Served, serve
from tests.support.waiting import until

DAWDLERS = 5000
BUYERS = 1000
FILES_BESIDE = 500  # What the test itself has open.


@pytest.fixture
def own_valkey() -> Iterator[EmbeddedValkey]:
    """A Valkey of this test's own, to hold up and take away."""
    with tempfile.TemporaryDirectory(prefix="doorbuster-test-") as folder:
        server = EmbeddedValkey(Path(folder))
        server.start()
        yield server
        server.stop()


async def test_five_thousand_dripping_heads_stop_no_buyer(
    redis: Redis, valkey: EmbeddedValkey, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_open_files_limit()
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2 * DAWDLERS + FILES_BESIDE:
        pytest.skip("the system grants too few open files: both ends live in this process")
    async with serve(valkey.url, postgres_url, connections_per_address_max=10_000) as served:
        await served.sell()
        start = reserve_call(served)[:40]
        dawdlers = [await served.raw() for _ in range(DAWDLERS)]
        for turn in range(3):
            for dawdler in dawdlers:
                dawdler.send(start[turn : turn + 1])
            assert (await served.reserve(f"u{turn}")).status == 201
        connections = served.server.connections
        connections.sweep_once()
        later = connections.now + served.engine.settings.request_seconds_max + 0.1
        monkeypatch.setattr(connections, "_clock", lambda: later)
        assert (await served.reserve("buyer")).status == 201
        assert connections.sweep_once() >= DAWDLERS
        assert await dawdlers[0].rest() == b""
        for dawdler in dawdlers:
            dawdler.writer.transport.abort()


async def crowd_of(served: Served) -> list[RawConnection]:
    """A thousand buyers, each with a connection of his own."""
    return [await served.raw() for _ in range(BUYERS)]


async def answers_to(served: Served, buyers: list[RawConnection]) -> list[int]:
    """Everybody asks for his reservation. Statuses; TimeoutError if one waits in vain."""
    for number, buyer in enumerate(buyers):
        buyer.send(reserve_call(served, user=f"u{number}"))
    return [status_of(await buyer.answer()) for buyer in buyers]


async def assert_each_reserved_once(served: Served, before: list[int], after: list[int]) -> None:
    """The same keys again: whoever was told of a reservation has it, and nobody has two."""
    assert {*before} <= {201, 503}
    assert 503 in before
    assert {*after} <= {200, 201}
    told = [status for status, earlier in zip(after, before, strict=True) if earlier == 201]
    assert {*told} <= {200}
    stock = (await served.engine.inventory.snapshot("demo")).stock["phone-black"]
    assert stock.reserved == BUYERS


async def test_a_redis_that_stalls_costs_nobody_more_than_a_moment(
    own_valkey: EmbeddedValkey, postgres_url: str
) -> None:
    async with serve(own_valkey.url, postgres_url, redis_timeout_seconds=0.5) as served:
        await served.sell(stock={"phone-black": 5000})
        pid = (await served.engine.redis.info("server"))["process_id"]
        buyers = await crowd_of(served)
        os.kill(pid, signal.SIGSTOP)
        try:
            before = await answers_to(served, buyers)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert served.front.limit.in_flight == 0
        after = await answers_to(served, buyers)
        for buyer in buyers:
            buyer.writer.close()
        await assert_each_reserved_once(served, before, after)


async def test_a_redis_that_is_killed_forgets_nothing_that_was_said(
    own_valkey: EmbeddedValkey, postgres_url: str
) -> None:
    async with serve(own_valkey.url, postgres_url, redis_timeout_seconds=1) as served:
        await served.sell(stock={"phone-black": 5000})
        pid = (await served.engine.redis.info("server"))["process_id"]
        buyers = await crowd_of(served)
        for number, buyer in enumerate(buyers):
            buyer.send(reserve_call(served, user=f"u{number}"))
        first = status_of(await buyers[0].answer())
        os.kill(pid, signal.SIGKILL)
        before = [first, *[status_of(await buyer.answer()) for buyer in buyers[1:]]]
        await asyncio.to_thread(own_valkey.stop)
        await asyncio.to_thread(own_valkey.start)

        async def answers() -> bool:
            return (await served.reserve("u0")).status == 200

        await until(answers, "reservations again")
        after = await answers_to(served, buyers)
        for buyer in buyers:
            buyer.writer.close()
        await assert_each_reserved_once(served, before, after)


WITHOUT_KERNELS = """
import asyncio, logging, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("ext.") and not name.startswith("ext.plain"):
            raise ImportError(name)
sys.meta_path.insert(0, Missing())
logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
import aiohttp
import ext
from api.server import HttpServer, open_listener
from api.tokens import Tokens
from engine.clock import SystemClock
from engine.config import Settings
from engine.core import Engine
from engine.sales import parse_sale_document
from tests.support.sales import sale_document
SECRET = "a-secret-for-tests-of-32-characters"
async def main():
    engine = await Engine.open(Settings(redis_url=sys.argv[1], postgres_url=sys.argv[2],
                                        secret=SECRET))
    await engine.sales.create(parse_sale_document(sale_document()), "tester")
    listener = open_listener("127.0.0.1", 0)
    server = HttpServer(engine, listener)
    await server.start()
    print("compiled", ext.COMPILED, "gate", server.gate)
    url = "http://127.0.0.1:%d/v1/sales/demo/reservations" % listener.getsockname()[1]
    headers = {"Authorization": "Bearer " + Tokens(SECRET, SystemClock()).issue("u1"),
               "Idempotency-Key": "k"}
    body = {"items": [{"sku": "phone-black", "quantity": 1}]}
    async with aiohttp.ClientSession() as session:
        async with session.post(url, json=body, headers=headers) as answer:
            print("status", answer.status)
    await server.stop()
    await engine.close()
asyncio.run(main())
"""


async def test_without_compiled_kernels_aiohttp_serves_alone_and_says_so(
    redis: Redis, valkey: EmbeddedValkey, postgres_url: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WITHOUT_KERNELS, valkey.url, postgres_url,
        cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, said.decode()
    assert b"compiled False gate None" in said
    assert b"status 201" in said
    assert b"ext/ is not compiled: aiohttp serves alone" in said
