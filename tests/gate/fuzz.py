"""Feeds spoilt streams to the gate before aiohttp and to aiohttp alone; what they say must agree.

`python -m tests.gate.fuzz --streams 200000` runs as many as wanted.
"""

import argparse
import asyncio
import gc
import random
import time
from collections import Counter
from typing import Any, Final, NamedTuple

import uvloop

from tests.gate.rig import Rig
from tests.gate.streams import pieces, stream
from tests.support.wire import Said, Wire, answers_in

AT_ONCE: Final = 64


class Case(NamedTuple):
    """A stream, the pieces in which it came, and both ends that were fed."""

    data: bytes
    pieces: list[bytes]
    gate: Wire
    alone: Wire


class Differs(AssertionError):
    """The two doors answered differently, or something was left behind."""


async def fuzz(streams: int, seed: int) -> Counter[str]:
    """What became of the streams. Raises Differs."""
    dice = random.Random(seed)
    rig = Rig(dice)
    broken: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: broken.append(context))
    tally: Counter[str] = Counter()
    for done in range(0, streams, AT_ONCE):
        cases = [_case(rig, dice) for _ in range(min(AT_ONCE, streams - done))]
        await _feed(rig, cases)
        for case in cases:
            tally[await _judge(rig, case)] += 1
        await _leave(rig, cases)
        if broken:
            raise Differs(f"unhandled: {broken[0]}")
    tally["hot"] = rig.doors.seen
    await rig.end()
    gc.collect()
    return tally


def _case(rig: Rig, dice: random.Random) -> Case:
    data = stream(dice)
    return Case(data, pieces(data, dice), rig.by_gate(), rig.by_aiohttp())


async def _feed(rig: Rig, cases: list[Case]) -> None:
    for turn in range(max(len(case.pieces) for case in cases)):
        for case in cases:
            if turn < len(case.pieces):
                case.gate.deliver(case.pieces[turn])
        await asyncio.sleep(0)
    for case in cases:
        case.alone.deliver(case.data)
    await rig.settle([wire for case in cases for wire in (case.gate, case.alone)])


async def _judge(rig: Rig, case: Case) -> str:
    """How they agree. Raises Differs."""
    by_gate = answers_in(bytes(case.gate.written))
    by_aiohttp = answers_in(bytes(case.alone.written))
    if agree(by_gate, by_aiohttp) and case.gate.closed == case.alone.closed:
        return "agree"
    said, closed = await _byte_by_byte(rig, case.data)
    if agree(by_gate, said) and case.gate.closed == closed:
        return "agree byte by byte"
    if not case.gate.closed and b"\r\n\r\n" not in case.data[-4:]:
        # The gate judges whole heads, aiohttp every byte: let the head end.
        case.gate.deliver(b"\r\n\r\n")
        await rig.settle([case.gate])
        by_gate = answers_in(bytes(case.gate.written))
        if agree(by_gate, said) and case.gate.closed == closed:
            return "agree once the head ended"
    before = by_gate[:-1]
    refused = bool(by_gate) and by_gate[-1].status == 400 and case.gate.closed
    if refused and agree(before, said[: len(before)]):
        return "refused earlier"
    raise Differs(
        f"{case.pieces!r}\n gate:    {by_gate} {case.gate.closed}\n"
        f" aiohttp: {by_aiohttp} {case.alone.closed}\n bytes:   {said} {closed}"
    )


async def _byte_by_byte(rig: Rig, data: bytes) -> tuple[list[Said], bool]:
    """What aiohttp says to single bytes, and whether it closes.

    It forgets what it has read of one piece when the piece's end is malformed.
    """
    wire = rig.by_aiohttp()
    for at, byte in enumerate(data):
        wire.deliver(bytes([byte]))
        if at % 32 == 0:
            await asyncio.sleep(0)
        if wire.closed:
            break
    await rig.settle([wire])
    said, closed = answers_in(bytes(wire.written)), wire.closed
    wire.hang_up()
    return said, closed


def agree(some: list[Said], others: list[Said]) -> bool:
    """Whether they say the same. Texts of refusals may differ, what was understood may not."""
    return [_told(each) for each in some] == [_told(each) for each in others]


def _told(said: Said) -> tuple[int, bytes]:
    return said.status, said.body if said.status == 200 else b""


async def _leave(rig: Rig, cases: list[Case]) -> None:
    for case in cases:
        case.gate.hang_up()
        case.alone.hang_up()
    await rig.settle([])
    if len(rig.connections) or not rig.connections.empty.is_set():
        raise Differs(f"{len(rig.connections)} connections are left")


def main() -> None:
    """Runs it and prints the seed, the tally and the seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    began = time.monotonic()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        tally = runner.run(fuzz(options.streams, options.seed))
    print(f"{options.streams} streams, {time.monotonic() - began:.0f} s: {dict(tally)}")


if __name__ == "__main__":
    main()
