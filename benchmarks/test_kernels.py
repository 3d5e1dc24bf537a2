"""The compiled kernels against the plain Python they replaced. One that does not win is deleted."""

from typing import Any

import pytest

from benchmarks import rig
from ext.records import split_batch

LINES = 4000  # One drain statement's worth.
BATCH = "\n".join(
    f"{request.reservation_id} {request.user_id} {request.items_text}"
    for request in rig.make_requests("bench", 0, LINES)
).encode()


def compiled() -> int:
    ids: list[str] = []
    return split_batch(BATCH, ids, [], [], {})


def plain() -> int:
    ids, users, wishes = [], [], []
    numbers: dict[bytes, int] = {}
    for line in BATCH.split(b"\n"):
        reservation_id, user, items = line.split(b" ")
        ids.append(reservation_id.decode())
        users.append(user.decode())
        wishes.append(numbers.setdefault(items, len(numbers)))
    return len(ids)


@pytest.mark.benchmark(group="kernels: split a batch into columns")
@pytest.mark.parametrize("split", [compiled, plain])
def test_split_batch(benchmark: Any, split: Any) -> None:
    assert benchmark(split) == LINES
    benchmark.extra_info |= {"lines": LINES, **rig.machine()}
