"""Where and with what a benchmark run was made: machine, versions, servers, source, and how quiet it was.

    python -m benchmarks.environment

Numbers of two runs can be compared if this says that the two were alike.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from redis import Redis

from benchmarks import rig
from engine.config import Durability
from engine.servers.postgres import find_postgres

PACKAGES: Final = (
    "aiohttp",
    "asyncpg",
    "Cython",
    "hiredis",
    "httptools",
    "msgspec",
    "PyJWT",
    "redis",
    "uvloop",
)
# wrk says its version and ends with 1.
PROGRAMS: Final = {
    "nginx": (["nginx", "-v"], r"nginx/([\d.]+)"),
    "go": (["go", "version"], r"go([\d.]+)"),
    "wrk": (["wrk", "--version"], r"wrk (\S+)"),
    "gcc": (["gcc", "-dumpfullversion"], r"([\d.]+)"),
}
REDIS_FACTS: Final = (
    "redis_version",
    "valkey_version",
    "server_name",
    "redis_mode",
    "os",
    "arch_bits",
    "multiplexing_api",
    "gcc_version",
    "io_threads_active",
    "mem_allocator",
    "maxmemory_policy",
    "aof_enabled",
)
QUIET_LOAD_MAX: Final = 0.5  # Of the cores: beyond it others' work is in the numbers.
LOOP_STEPS: Final = 1_000_000
LOOP_REPEATS: Final = 5


def describe(stamp: str) -> dict[str, Any]:
    """Everything above as one JSON-able object. Starts a Redis and a Postgres for what they say."""
    load = os.getloadavg()[0]
    with rig.servers() as settings:
        redis, postgres = redis_facts(str(settings.redis_url)), postgres_version()
    return {
        "stamp": stamp,
        **git_revision(),
        "machine": machine(),
        "versions": versions() | {"postgres": postgres} | _server_version(redis),
        "redis": redis,
        "postgres": postgres,
        "durability": Durability.STRICT.value,
        "calibration_ms": round(calibrate_ms(), 2),
        "load_average": round(load, 2),
        "warning": noise_warning(load, len(os.sched_getaffinity(0))),
    }


def noise_warning(load: float, cores: int) -> str | None:
    if load <= QUIET_LOAD_MAX * cores:
        return None
    return (
        f"The machine is not quiet: load average {load:.2f} on {cores} cores at the start. "
        "Expect higher CPU figures and lower rates than it can do."
    )


def machine() -> dict[str, object]:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {**rig.machine(), "kernel": platform.release(), "memory_mib": pages // 2**20}


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name.lower()] = version(name)
        except PackageNotFoundError:
            continue
    programs = {name: program_version(*how) for name, how in PROGRAMS.items()}
    return found | {name: text for name, text in programs.items() if text}


def program_version(command: Sequence[str], pattern: str) -> str | None:
    """What the program says of itself; None where it is missing."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    program = shutil.which(command[0], path=path)
    if program is None:
        return None
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
    match = re.search(pattern, done.stdout + done.stderr)
    return match[1] if match else None


def git_revision() -> dict[str, object]:
    """`git`: the commit; `git_clean`: whether the tree was just that. None outside a clone."""
    revision, changes = _git("rev-parse", "--short=12", "HEAD"), _git("status", "--porcelain")
    return {"git": revision, "git_clean": None if changes is None else not changes}


def _git(*words: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent.parent), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return None if done.returncode else done.stdout.strip()


def redis_facts(url: str) -> dict[str, object]:
    with Redis.from_url(url) as client:
        info: dict[str, Any] = client.info("everything")
        fsync: Any = client.config_get("appendfsync")
    return {**{name: info[name] for name in REDIS_FACTS if name in info}, **fsync}


def postgres_version() -> str | None:
    return program_version([str(find_postgres() / "postgres"), "--version"], r"([\d.]+)")


def _server_version(redis: dict[str, object]) -> dict[str, str]:
    name = "valkey" if "valkey_version" in redis else "redis_server"
    return {name: str(redis.get("valkey_version", redis.get("redis_version")))}


def calibrate_ms() -> float:
    """CPU time of a fixed loop, the best of five: tells fast machines and hours from slow ones."""
    return min(_loop_seconds() for _ in range(LOOP_REPEATS)) * 1000


def _loop_seconds() -> float:
    began = time.process_time()  # CPU time: waiting for a core is not its speed.
    total = 0
    for number in range(LOOP_STEPS):
        total += number & 7
    assert total
    return time.process_time() - began


if __name__ == "__main__":
    print(json.dumps(describe("now"), indent=1))
