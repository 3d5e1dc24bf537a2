"""The draw of places at the opening, and how anyone can verify it.

The operator commits to a seed by publishing its SHA-256 before the opening, and reveals it after:

1. `seed_hash` = SHA-256(seed) in hexadecimal digits; the seed has 32 bytes.
2. Random words: SHA-256(seed ‖ counter), the counter 0, 1, 2, … in 8 bytes, big end first; each digest
   gives eight words of 32 bits, big end first.
3. The places 1 … n stand in the order of the numbers 1 … n. For i = n - 1 … 1 (counted from 0): j = the next
   word below floor(2^32 / (i + 1)) · (i + 1), modulo i + 1; places i and j are exchanged.
4. Number k has the k-th place. Numbers beyond n came after the draw: number k has place k.

The loop is a kernel, ext/draw.pyx.
"""

import hmac
from array import array
from enum import StrEnum
from hashlib import sha256
from typing import Final, NamedTuple

from ext import draw_places

SEED_BYTES: Final = 32


class Finding(StrEnum):
    """What verifying a draw found."""

    HONEST = "honest"
    OTHER_SEED = "other_seed"  # not the one that was committed to
    OTHER_PLACE = "other_place"  # the seed gives this number another place
    MALFORMED = "malformed"  # no seed, no such number


class Verdict(NamedTuple):
    """Whether a draw was honest to one number. `place` is what the seed gives it, if it can be said."""

    finding: Finding
    place: int | None


def draw(seed: bytes, count: int) -> "array[int]":
    """The places of the numbers 1 to `count`, in the numbers' order. About 0.1 s for a million."""
    return draw_places(seed, count)


def seed_hash(seed: bytes) -> str:
    """What is published before the opening."""
    return sha256(seed).hexdigest()


def verify(seed: bytes, committed: str, drawn: int, number: int, place: int) -> Verdict:
    """Whether the seed is the one committed to and gives the number the place it was said to have."""
    if len(seed) != SEED_BYTES or number < 1 or drawn < 0:
        return Verdict(Finding.MALFORMED, None)
    if not hmac.compare_digest(seed_hash(seed).encode(), committed.lower().encode()):
        return Verdict(Finding.OTHER_SEED, None)
    try:
        actual = number if number > drawn else draw(seed, drawn)[number - 1]
    except ValueError:
        return Verdict(Finding.MALFORMED, None)
    return Verdict(Finding.HONEST if actual == place else Finding.OTHER_PLACE, actual)
