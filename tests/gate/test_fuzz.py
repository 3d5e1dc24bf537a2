"""Spoilt streams: the gate before aiohttp understands of them what aiohttp alone understands.

DOORBUSTER_FUZZ_STREAMS and DOORBUSTER_FUZZ_SEED choose how many, and which.
"""

import os
import random

from tests.gate.fuzz import fuzz

STREAMS = int(os.environ.get("DOORBUSTER_FUZZ_STREAMS", "6000"))


async def test_spoilt_streams_are_understood_as_aiohttp_alone_understands_them() -> None:
    seed = int(os.environ.get("DOORBUSTER_FUZZ_SEED", random.randrange(1 << 32)))
    print(f"DOORBUSTER_FUZZ_SEED={seed}")
    tally = await fuzz(STREAMS, seed)
    assert tally["hot"] > STREAMS // 4, "too few streams reach the gate's own answers"
    assert tally["agree"] > STREAMS // 2, "too few streams are compared as they are"
