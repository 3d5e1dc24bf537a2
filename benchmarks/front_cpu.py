"""Measures what one front process costs per accepted reservation: CPU, and Redis's beside it.

Starts Valkey, Postgres and one front in a temporary folder, sends reservations of distinct buyers
over kept-alive connections with wrk (or, without it, with a bounded generator of its own), and
divides CPU time by answers. Everything is on: tokens, throttle, idempotency keys, limits, request
ids, security headers, strict durability.

    python benchmarks/front_cpu.py [--connections 256] [--seconds 10]
"""

import argparse
import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from api.server import open_listener, run
from api.tokens import Tokens
from engine.clock import SystemClock
from engine.config import Settings, read_settings
from engine.connections import connect_redis
from engine.core import Engine
from engine.sales import parse_sale_document
from engine.servers import EmbeddedPostgres, EmbeddedValkey
from engine.store.database import connect
from engine.store.migrate import upgrade

SECRET: Final = "benchmark-secret-" * 2
BUYERS: Final = 60_000  # Tokens made beforehand.
KEYS_PER_BUYER: Final = 3  # A buyer comes back with another key; the engine allows 16.
UNITS: Final = 1_000_000_000
PATH: Final = "/v1/sales/bench/reservations"
BODY: Final = b'{"items":[{"sku":"phone-black","quantity":1}]}'
WARM_SECONDS: Final = 2
YARDSTICK_SECONDS: Final = 5

# wrk builds its requests once, in init: otherwise wrk becomes the limit.
WRK_SCRIPT: Final = """
function init(args)
  requests, at = {}, 0
  for key = 1, %(keys)d do
    for token in io.lines("%(tokens)s") do
      requests[#requests + 1] = wrk.format("POST", "%(path)s", {
        ["Authorization"] = "Bearer " .. token, ["Content-Type"] = "application/json",
        ["Idempotency-Key"] = "%(round)s-" .. key }, '%(body)s')
    end
  end
end
function request() at = at %% #requests + 1; return requests[at] end
"""


@dataclass
class Usage:
    """CPU seconds of the front and of Redis, and reservations made, up to now."""

    front_s: float
    redis_s: float
    reservations: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--connections", type=int, default=256)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--serve", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        run(read_settings(), open_listener("127.0.0.1", options.serve))
        return
    folder = Path(tempfile.mkdtemp(prefix="doorbuster-bench-"))
    valkey, postgres = EmbeddedValkey(folder), EmbeddedPostgres(folder)
    try:
        valkey.start()
        postgres.start()
        measure(folder, valkey, postgres.url_of("postgres"), options.connections, options.seconds)
    finally:
        postgres.stop()
        valkey.stop()
        shutil.rmtree(folder, ignore_errors=True)


def measure(
    folder: Path, valkey: EmbeddedValkey, postgres_url: str, connections: int, seconds: int
) -> None:
    settings = Settings(redis_url=valkey.url, postgres_url=postgres_url, secret=SECRET)
    uvloop.run(prepare(settings))
    tokens = Tokens(SECRET, SystemClock())
    names = [tokens.issue(f"buyer-{number}") for number in range(BUYERS)]
    (folder / "tokens").write_text("".join(f"{token}\n" for token in names))
    port = free_port()
    front = subprocess.Popen(
        [sys.executable, __file__, "--serve", str(port)],
        env=os.environ
        | {
            "DOORBUSTER_REDIS_URL": valkey.url,
            "DOORBUSTER_POSTGRES_URL": postgres_url,
            "DOORBUSTER_SECRET": SECRET,
        },
    )
    try:
        wait_for(port)
        assert valkey.pid is not None
        load = wrk if shutil.which("wrk") else plain_load
        load(folder, port, connections, WARM_SECONDS, "warm")
        before, began = usage(settings, front.pid, valkey.pid), time.monotonic()
        said = load(folder, port, connections, seconds, "measured")
        elapsed = time.monotonic() - began
        after = usage(settings, front.pid, valkey.pid)
    finally:
        front.send_signal(signal.SIGTERM)
        front.wait(60)
    front_us = report(before, after, elapsed, connections, said)
    if shutil.which("wrk"):
        for kind, rest in (("bare", []), ("naive", [valkey.url, SECRET])):
            other_us = yardstick(folder, kind, rest, connections)
            print(f"{kind:<6} {other_us:6.1f} µs CPU per request, {other_us / front_us:.2f} × ours")


def yardstick(folder: Path, kind: str, rest: list[str], connections: int) -> float:
    """CPU µs per request of another server (yardsticks.py) under the same load."""
    port = free_port()
    program = Path(__file__).with_name("yardsticks.py")
    server = subprocess.Popen([sys.executable, str(program), kind, str(port), *rest])
    try:
        wait_for(port)
        wrk(folder, port, connections, WARM_SECONDS, f"{kind}-warm")
        before = cpu_seconds(server.pid)
        said = wrk(folder, port, connections, YARDSTICK_SECONDS, kind)
        asked = re.search(r"(\d+) requests, 0 refused", said)
        assert asked is not None, said
        return (cpu_seconds(server.pid) - before) / int(asked[1]) * 1e6
    finally:
        server.terminate()
        server.wait(60)


async def prepare(settings: Settings) -> None:
    """Migrates, and opens a sale that lasts."""
    assert settings.postgres_url is not None
    connection = await connect(settings.postgres_url)
    await upgrade(connection)
    await connection.close()
    now = datetime.now(UTC)
    document = {
        "sale_id": "bench",
        "name": {"en": "Benchmark"},
        "opens_at": now - timedelta(minutes=1),
        "closes_at": now + timedelta(days=1),
        "per_user_max": 10_000,
        "reservation_seconds": 900,
        "auto_capture": False,
        "items": [
            {
                "sku": "phone-black",
                "name": {"en": "Phone, black"},
                "units": UNITS,
                "price": {"amount_minor": 129900, "currency": "CNY"},
            }
        ],
    }
    engine = await Engine.open(settings)
    await engine.sales.create(parse_sale_document(msgspec.json.encode(document)), "benchmark")
    await engine.close()


def wrk(folder: Path, port: int, connections: int, seconds: int, round_name: str) -> str:
    """wrk on one thread. Rounds use keys of their own, so nothing is a replay of an earlier one."""
    script = folder / "reserve.lua"
    script.write_text(
        WRK_SCRIPT
        % {
            "tokens": folder / "tokens",
            "keys": KEYS_PER_BUYER,
            "path": PATH,
            "round": round_name,
            "body": BODY.decode(),
        }
    )
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script)]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=True
    )
    asked = re.search(r"(\d+) requests in", done.stdout)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    p99 = re.search(r"99%\s+(\S+)", done.stdout)
    return (
        f"wrk: {asked[1] if asked else '?'} requests, "
        f"{refused[1] if refused else 0} refused, p99 {p99[1] if p99 else '?'}"
    )


def plain_load(folder: Path, port: int, connections: int, seconds: int, round_name: str) -> str:
    """Where wrk is missing: a closed loop over plain sockets. Costs more CPU than wrk."""
    tokens = (folder / "tokens").read_text().split()
    return uvloop.run(_plain_load(tokens, port, connections, seconds, round_name))


async def _plain_load(
    tokens: list[str], port: int, connections: int, seconds: int, round_name: str
) -> str:
    numbers = iter(range(sys.maxsize))
    deadline = time.monotonic() + seconds
    refused = 0

    async def client() -> None:
        nonlocal refused
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.monotonic() < deadline:
            number = next(numbers)
            head = (
                f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                f"Authorization: Bearer {tokens[number % BUYERS]}\r\n"
                f"Idempotency-Key: {round_name}-{number // BUYERS}\r\nContent-Length: {len(BODY)}\r\n\r\n"
            )
            writer.write(head.encode() + BODY)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", answer)
            assert length is not None
            await reader.readexactly(int(length[1]))
            refused += b" 201 " not in answer[:16]
        writer.close()

    await asyncio.gather(*(client() for _ in range(connections)))
    return f"plain generator: {refused} refused"


def usage(settings: Settings, front_pid: int, redis_pid: int) -> Usage:
    return Usage(cpu_seconds(front_pid), cpu_seconds(redis_pid), uvloop.run(reserved(settings)))


async def reserved(settings: Settings) -> int:
    """Units reserved so far; each reservation is of one unit."""
    assert settings.redis_url is not None
    redis = connect_redis(settings.redis_url, 5)
    try:
        return int(await redis.hget("sale:{bench.0}:stock", "phone-black:reserved") or 0)
    finally:
        await redis.aclose()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report(before: Usage, after: Usage, elapsed: float, connections: int, said: str) -> float:
    """Prints what was measured; returns the front's CPU µs per accepted reservation."""
    made = after.reservations - before.reservations
    front_us = (after.front_s - before.front_s) / made * 1e6
    redis_us = (after.redis_s - before.redis_s) / made * 1e6
    print(f"strict durability, one front process, {connections} connections; {said}")
    print(f"front  {front_us:6.1f} µs CPU per accepted reservation")
    print(f"redis  {redis_us:6.1f} µs CPU per accepted reservation, fsync included")
    print(f"rate   {made / elapsed:6.0f} accepted reservations/s ({made} in {elapsed:.1f} s)")
    return front_us


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


if __name__ == "__main__":
    main()
