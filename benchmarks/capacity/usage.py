"""CPU time and memory of processes, from /proc."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time so far, of processes and of all that descend from them."""
    return sum(_own(pid) + _ended_children(pid) for root in pids for pid in _tree(root))


def machine_busy_seconds() -> float:
    """CPU seconds of all cores so far in which anything ran, this machine's other programs included."""
    total = Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
    idle, waiting = int(total[3]), int(total[4])
    return (sum(map(int, total)) - idle - waiting) / TICKS_PER_SECOND


def resident_bytes(pid: int) -> int:
    """What the process holds in memory now; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _tree(pid: int) -> Iterator[int]:
    yield pid
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in text.split():
        yield from _tree(int(child))


def _own(pid: int) -> float:
    return _times(pid, 11)


def _ended_children(pid: int) -> float:
    return _times(pid, 13)


def _times(pid: int, first: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[first]) + int(fields[first + 1])) / TICKS_PER_SECOND


@contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """Processes started inside run on these cores; the caller's own are given back."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def split_cores() -> tuple[set[int], set[int]]:
    """(the engine's cores, the generator's): the last quarter, at least one, is the generator's.

    On a single core both share it.
    """
    cores = sorted(os.sched_getaffinity(0))
    count = max(1, len(cores) // 4)
    engine, generator = set(cores[:-count]), set(cores[-count:])
    return engine or generator, generator
