"""A storm of log-ins: as many as the password threads can check, and others wait little for them.

Passwords are checked by Argon2id in a bounded pool of threads; what does not fit is refused at once.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any, Final

import aiohttp
from argon2 import PasswordHasher

from benchmarks.capacity.stand import Stand, database, stand
from benchmarks.capacity.usage import cpu_seconds
from benchmarks.figures import Figure, at_least, at_most
from benchmarks.shop.load import percentiles
from engine.store.database import connect

THREADS: Final = (1, 2)
STORMING: Final = 48  # Log-ins under way at once: more than two threads let wait.
SECONDS: Final = 5.0
BUYERS: Final = 500
PASSWORD: Final = "a password of a buyer"
ASK_SECONDS: Final = 0.02  # Between two looks at the sales meanwhile.
LOOK_MS_MAX: Final = 100.0
REFUSED_SECONDS: Final = 1.0  # That a refused one waits, as its answer says: it does not hammer.
# Of what one core can check if it does nothing else: all of the engine has one core here.
CORE_SHARE_MIN: Final = 0.6
CHECKS: Final = 3


async def _storm(under_test: Stand) -> dict[str, Any]:
    url = f"http://{under_test.settings.host}:{under_test.port}"
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(url, connector=connector) as session:
        calm = await _looks(session, 1.0)
        before = cpu_seconds(under_test.hops["front"])
        until = time.monotonic() + SECONDS
        tasks = [asyncio.create_task(_log_in(session, n, until)) for n in range(STORMING)]
        stormy = await _looks(session, SECONDS - 0.5)
        done = [sum(counts) for counts in zip(*await asyncio.gather(*tasks), strict=True)]
        cpu_s = cpu_seconds(under_test.hops["front"]) - before
    return {
        "per_second": done[0] / SECONDS,
        # Those that ended after the time are among them, as is what the looks cost.
        "front_cpu_s": cpu_s / max(1, done[2]),
        "refused": done[1],
        "look_calm": percentiles(calm),
        "look": percentiles(stormy),
    }


async def _log_in(
    session: aiohttp.ClientSession, number: int, until: float
) -> tuple[int, int, int]:
    """How often it went well in time, how often there was no place, how often it went well."""
    good = refused = every = 0
    while time.monotonic() < until:
        number = (number + STORMING) % BUYERS
        body = {"email": f"buyer{number}@example.com", "password": PASSWORD}
        async with session.post("/v1/sessions", json=body) as answer:
            await answer.read()
            if answer.status == 503:
                refused += 1
                await asyncio.sleep(REFUSED_SECONDS)
                continue
            answer.raise_for_status()
            every += 1
            good += time.monotonic() < until
    return good, refused, every


async def _looks(session: aiohttp.ClientSession, seconds: float) -> Sequence[float]:
    found: list[float] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.perf_counter()
        async with session.get("/v1/sales") as answer:
            answer.raise_for_status()
            await answer.read()
        found.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(ASK_SECONDS)
    return found


def _check_cpu_seconds() -> float:
    """What one check costs in CPU time, whatever else runs; the least of some."""
    hasher = PasswordHasher()
    password_hash = hasher.hash(PASSWORD)
    found = []
    for _ in range(CHECKS):
        began = time.process_time()
        hasher.verify(password_hash, PASSWORD)
        found.append(time.process_time() - began)
    return min(found)


async def _register(url: str) -> None:
    """All with one password, hashed once: checking it takes as long."""
    password_hash = PasswordHasher().hash(PASSWORD)
    connection = await connect(url)
    try:
        await connection.execute(
            "INSERT INTO users (user_id, email, password_hash, name)"
            " SELECT 'usr_' || n, 'buyer' || n || '@example.com', $1, 'Buyer'"
            " FROM generate_series(0, $2 - 1) AS n",
            password_hash,
            BUYERS,
        )
    finally:
        await connection.close()


def measure() -> dict[str, Any]:
    found: dict[str, Any] = {}
    check_s = _check_cpu_seconds()
    with database() as postgres:
        for threads in THREADS:
            # No throttle: it is the pool that shall bound them.
            changes = {
                "password_threads": threads,
                "anonymous_per_second": 100_000,
                "anonymous_burst": 100_000,
                "account_per_minute": 100_000,
                "account_burst": 100_000,
            }
            with stand(postgres, buyers=1, changes=changes) as under_test:
                asyncio.run(_register(under_test.postgres_url))
                found[f"{threads}"] = asyncio.run(_storm(under_test))
    figures = [
        figure for threads in THREADS for figure in _figures(threads, found[f"{threads}"], check_s)
    ]
    return {
        "check_cpu_s": check_s,
        "threads": found,
        "figures": [figure.as_dict() for figure in figures],
    }


def _figures(threads: int, found: dict[str, Any], check_s: float) -> list[Figure]:
    name = f"log-ins, {threads} password thread{'s' if threads > 1 else ''}"
    calm, look = found["look_calm"], found["look"]
    least = round(CORE_SHARE_MIN / check_s, 2)
    note = f"refused {found['refused']}; a check takes {check_s:.2f} s of CPU, all of it {found['front_cpu_s']:.2f}"
    return [
        at_least(name, found["per_second"], "/s", least, note),
        at_most(
            "meanwhile GET /v1/sales, p99",
            look["p99_ms"],
            "ms",
            LOOK_MS_MAX,
            f"p50 {look['p50_ms']}; in calm p99 {calm['p99_ms']}",
        ),
    ]


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1, ensure_ascii=False))
