"""Which core does what in a measurement, and how much CPU time processes have taken.

A server and its load generator on one core would measure each other.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Cores(NamedTuple):
    """The core of the server under test, of the generator, and of Redis."""

    front: int
    generator: int
    redis: int

    def __str__(self) -> str:
        if self.front == self.generator:
            return "server, generator and Redis share the one core"
        redis = "shares the generator's core" if self.redis == self.generator else "has its own"
        return f"server on core {self.front}, generator on core {self.generator}, Redis {redis}"


def share_out(available: Iterable[int]) -> Cores:
    """Two cores: Redis shares the generator's, never the server's. With more it has its own."""
    cores = sorted(available)
    return Cores(cores[0], cores[1 % len(cores)], cores[min(2, len(cores) - 1)])


def pin(pid: int, core: int) -> None:
    """Binds all threads of a process; those it starts later inherit it."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def pinned(core: int, command: list[str]) -> list[str]:
    """The command, on one core from its first instruction on."""
    return ["taskset", "--cpu-list", str(core), *command]


def cpu_seconds(pid: int) -> float:
    """User and system time so far of a process and its descendants, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND + sum(
        cpu_seconds(child) for child in children(pid)
    )


def children(pid: int) -> list[int]:
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # The thread has ended meanwhile.
            found += map(int, (thread / "children").read_text().split())
    return found


def machine_busy_seconds() -> float:
    """CPU time that anybody has spent so far, on all cores."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    # user, nice, system, idle, iowait, irq, softirq, steal; guests are counted in user already.
    busy = [int(ticks) for place, ticks in enumerate(fields[:8]) if place not in (3, 4)]
    return sum(busy) / TICKS_PER_SECOND
