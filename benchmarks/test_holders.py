"""The table of holders against the plain set it replaced: time per question, bytes per holder."""

from collections.abc import Callable, Iterable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import pytest

from benchmarks import rig
from ext.holders import HolderTable
from ext.plain.holders import HolderTable as PlainTable

HOLDERS: Final = 1_000_000
BATCH: Final = 256
ASKED: Final = 1000

FORMS = pytest.mark.parametrize("form", [HolderTable, PlainTable], ids=["compiled", "plain"])


def batches(holders: int = HOLDERS) -> Iterator[bytes]:
    for start in range(0, holders, BATCH):
        lines = (f"{number:020d} buyer-{number:07d} a*1" for number in range(start, start + BATCH))
        yield "\n".join(lines).encode()


def filled(form: Callable[[], Any], given: Iterable[bytes]) -> Any:
    table = form()
    for batch in given:
        table.add_batch(batch)
    return table


@pytest.mark.benchmark(group="kernels: is this buyer a holder?")
@FORMS
def test_ask(benchmark: Any, form: Callable[[], Any]) -> None:
    table = filled(form, batches())
    names = [f"new-{number}" for number in range(ASKED)]

    def ask() -> int:
        # Fresh strings, as a front has them: their hash is not known yet.
        return sum(name + "x" in table for name in names)

    assert benchmark(ask) == 0
    benchmark.extra_info |= {"lines": ASKED, **rig.machine()}


@pytest.mark.benchmark(group="kernels: add a batch of holders")
@FORMS
def test_add(benchmark: Any, form: Callable[[], Any]) -> None:
    given = list(batches(100_000))
    table = benchmark(lambda: filled(form, given))
    assert len(table) >= 100_000
    benchmark.extra_info |= {"lines": len(table), **rig.machine()}


@pytest.mark.benchmark(group="kernels: memory of a million holders")
@FORMS
def test_memory(benchmark: Any, form: Callable[[], Any]) -> None:
    with get_context("spawn").Pool(1) as fresh:  # Where no earlier table left free memory behind.
        growth = benchmark.pedantic(fresh.apply, (growth_bytes, (form,)), rounds=1, iterations=1)
    benchmark.extra_info |= {
        "lines": HOLDERS,
        "bytes_per_holder": growth / HOLDERS,
        **rig.machine(),
    }


def growth_bytes(form: Callable[[], Any]) -> int:
    """By how much a process grows that keeps a million holders."""
    given = batches()
    table = filled(form, [next(given)])
    before = resident_bytes()
    for batch in given:
        table.add_batch(batch)
    return resident_bytes() - before


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
