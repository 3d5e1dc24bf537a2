"""What a reservation costs the front in user space, and what carrying a batch to Redis costs."""

import asyncio
from typing import Any

import pytest
import uvloop
from hiredis import pack_command
from redis.asyncio import Redis

from api.tokens import Tokens
from benchmarks import rig
from benchmarks.doors import open_gate, reserve_request
from engine.clock import SystemClock
from engine.connections import connect_redis
from engine.inventory.link import PooledLink, RedisLink

CONNECTIONS = 256
ROUNDS = 200
WORDS = 384  # Of a call with 128 reservations.


@pytest.mark.benchmark(group="gate: a reservation in user space, without system calls and loop")
@pytest.mark.parametrize("users_max", [100_000, 1], ids=["token known", "token new"])
def test_reservation(benchmark: Any, users_max: int) -> None:
    tokens = Tokens(rig.SECRET, SystemClock())
    requests = [reserve_request(tokens.issue(f"buyer-{n}")) for n in range(CONNECTIONS)]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        async def open_() -> Any:
            return open_gate(CONNECTIONS, users_max)

        connections, queue = runner.run(open_())

        async def crowd() -> None:
            for connection, request in zip(connections, requests, strict=True):
                connection.data_received(request)
            while not queue.idle:  # noqa: ASYNC110  # Its driver runs in this very loop.
                await asyncio.sleep(0)

        benchmark.pedantic(lambda: runner.run(crowd()), rounds=ROUNDS, warmup_rounds=10)
    benchmark.extra_info |= {"lines": CONNECTIONS, **rig.machine()}


class Client:
    """redis-py's own way: pack, send, await, parse."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def call(self, _: bytes) -> None:
        await self._redis.execute_command("ECHO", "x" * WORDS)

    def close(self) -> None:
        """Nothing of its own is open."""


@pytest.mark.benchmark(group="link: one call to Redis and back")
@pytest.mark.parametrize("make", [RedisLink, PooledLink, Client])
def test_link(benchmark: Any, make: Any) -> None:
    with rig.valkey() as server, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        command = pack_command(("ECHO", "x" * WORDS))

        async def open_() -> tuple[Redis, Any]:
            redis = connect_redis(server.url, 5)
            return redis, make(redis)

        redis, link = runner.run(open_())

        async def calls() -> None:
            for _ in range(100):
                await link.call(command)

        benchmark.pedantic(lambda: runner.run(calls()), rounds=20, warmup_rounds=2)

        async def close() -> None:
            link.close()
            await redis.aclose()

        runner.run(close())
    benchmark.extra_info |= {"lines": 100, **rig.machine()}
