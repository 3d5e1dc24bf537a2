"""The link to Redis, against a real Valkey: no reply reaches the wrong caller, nobody waits in vain."""

import asyncio
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hiredis
import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from engine.clock import SystemClock
from engine.connections import connect_redis
from engine.inventory import Inventory
from engine.inventory.link import RedisLink
from engine.servers import EmbeddedValkey
from engine.store.database import Pool
from tests.support.sales import open_sale, wish


def packed(*words: str) -> bytes:
    return bytes(hiredis.pack_command(words))  # type: ignore[arg-type]


@pytest.fixture
def own_valkey() -> Iterator[EmbeddedValkey]:
    """A Valkey of this test's own, to hold up and take away."""
    with tempfile.TemporaryDirectory(prefix="doorbuster-test-") as folder:
        server = EmbeddedValkey(Path(folder))
        server.start()
        yield server
        server.stop()


async def pid_of(client: Redis) -> int:
    return int((await client.info("server"))["process_id"])


async def test_each_of_many_callers_gets_his_own_reply(redis: Redis) -> None:
    link = RedisLink(redis)
    replies = await asyncio.gather(*(link.call(packed("ECHO", f"{n}")) for n in range(500)))
    assert replies == [b"%d" % n for n in range(500)]
    link.close()
    link.close()
    assert await link.call(packed("PING")) == b"PONG", "a link that was closed opens again"
    link.close()


async def test_an_error_reply_is_returned_and_the_next_call_works(redis: Redis) -> None:
    link = RedisLink(redis)
    assert isinstance(await link.call(packed("NO-SUCH-COMMAND")), ResponseError)
    assert await link.call(packed("PING")) == b"PONG"
    link.close()


async def test_a_late_reply_reaches_nobody_and_the_next_call_works(
    own_valkey: EmbeddedValkey,
) -> None:
    client = connect_redis(own_valkey.url, 0.2)
    pid = await pid_of(client)
    link = RedisLink(client)
    assert await link.call(packed("PING")) == b"PONG"
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(RedisTimeoutError):
            await link.call(packed("ECHO", "late"))
    finally:
        os.kill(pid, signal.SIGCONT)
    replies = await asyncio.gather(*(link.call(packed("ECHO", f"{n}")) for n in range(50)))
    assert replies == [b"%d" % n for n in range(50)]
    link.close()
    await client.aclose()


async def test_a_lost_connection_fails_everybody_who_waits_and_no_later_call(
    own_valkey: EmbeddedValkey,
) -> None:
    client = connect_redis(own_valkey.url, 5)
    link = RedisLink(client)
    own_id = await link.call(packed("CLIENT", "ID"))
    waiting = [asyncio.ensure_future(link.call(packed("BLPOP", "nothing", "0"))) for _ in range(5)]
    await asyncio.sleep(0)
    await client.client_kill_filter(_id=str(own_id))
    failures = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(failure) for failure in failures] == [RedisConnectionError] * 5
    assert await link.call(packed("PING")) == b"PONG"
    link.close()
    await client.aclose()


async def test_a_caller_who_is_cancelled_shifts_no_reply(redis: Redis) -> None:
    link = RedisLink(redis)
    await link.call(packed("PING"))
    calls = [asyncio.ensure_future(link.call(packed("ECHO", f"{n}"))) for n in range(50)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    replies = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(reply) for reply in replies[::2]] == [asyncio.CancelledError] * 25
    assert replies[1::2] == [b"%d" % n for n in range(1, 50, 2)]
    assert await link.call(packed("ECHO", "after")) == b"after"
    link.close()


async def test_password_and_database_are_those_of_the_url(redis: Redis) -> None:
    await redis.execute_command("ACL", "SETUSER", "buyer", "on", ">secret", "~*", "+@all")
    path = redis.connection_pool.connection_kwargs["path"]
    client = connect_redis(f"unix://buyer:secret@{path}?db=3", 5)
    link = RedisLink(client)
    try:
        assert await link.call(packed("ACL", "WHOAMI")) == b"buyer"
        await link.call(packed("SET", "here", "1"))
        assert await redis.exists("here") == 0
        assert await client.exists("here") == 1
        stranger = connect_redis(f"unix://buyer:wrong@{path}", 5)
        with pytest.raises(RedisConnectionError, match="AUTH was refused"):
            await RedisLink(stranger).call(packed("PING"))
        await stranger.aclose()
    finally:
        link.close()
        await client.aclose()
        await redis.execute_command("ACL", "DELUSER", "buyer")


async def test_a_script_that_redis_forgot_is_loaded_once_more(redis: Redis, pool: Pool) -> None:
    link = RedisLink(redis)
    inventory = Inventory(redis, SystemClock(), batch_max=8, queue_max=64, link=link)
    sale = await open_sale(pool, inventory)
    await redis.script_flush()
    await redis.config_resetstat()
    for user in ("u1", "u2", "u3"):
        await inventory.reserve(sale.ref, wish(sale, user))
    calls = await redis.info("commandstats")
    assert calls["cmdstat_script|load"]["calls"] == 1
    assert calls["cmdstat_evalsha"]["failed_calls"] == 1
    assert await inventory.reservations(sale.sale_id, "u3")
    await inventory.stop()
