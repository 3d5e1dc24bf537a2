"""Whoever waits for an answer that a bug has lost is told by the end of his connection."""

import random
from functools import partial
from typing import Any

import pytest
from httptools import HttpRequestParser

from tests.gate.rig import Rig
from tests.gate.streams import reserve
from tests.support.wire import Wire


class Broken:
    """A path on which every answer is lost."""

    def __init__(self) -> None:
        self.taken: list[object] = []

    def take(self, request: object) -> None:
        request.path = self  # type: ignore[attr-defined]
        self.taken.append(request)

    def replied(self, *_: object) -> None:
        raise RuntimeError("lost")

    failed = replied


@pytest.mark.parametrize("fails", [False, True])
async def test_a_lost_answer_ends_the_connection(
    fails: bool,
) -> None:
    broken = Broken()
    rig = Rig(random.Random(0))
    gate = type(rig.gate)(
        broken.take, rig.doors, rig.connections, HttpRequestParser,
        body_bytes_max=400, request_seconds_max=10, keepalive_seconds=75,
    )  # fmt: skip
    wire = Wire(gate())
    wire.deliver(reserve() + reserve())
    assert len(broken.taken) == 2
    assert not wire.closed
    first: Any = broken.taken[0]
    tell = partial(first.failed, ValueError()) if fails else partial(first.replied, b"17", b"")
    with pytest.raises(RuntimeError, match="lost"):
        tell()
    assert wire.closed
    await rig.settle([wire])
    assert len(rig.connections) == 0
    await rig.end()
