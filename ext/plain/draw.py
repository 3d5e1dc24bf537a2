"""Draws places by lot, so that anyone who knows the seed can draw them again."""

from array import array
from collections.abc import Iterator
from hashlib import sha256
from itertools import count as count_up
from typing import Final

SEED_BYTES: Final = 32
COUNT_MAX: Final = 1 << 24


def draw(seed: bytes, count: int) -> "array[int]":
    """The places of the numbers 1 to `count`, in the numbers' order.

    Fisher and Yates, as Durstenfeld wrote it (Knuth, TAOCP 2, 3.4.2, algorithm P).
    """
    if len(seed) != SEED_BYTES:
        raise ValueError("a seed has 32 bytes")
    if not 0 <= count <= COUNT_MAX:
        raise ValueError("0 to 2^24 numbers are drawn")
    places = array("I", range(1, count + 1))
    words = _words(seed)
    for i in range(count - 1, 0, -1):
        j = _below(words, i + 1)
        places[i], places[j] = places[j], places[i]
    return places


def _words(seed: bytes) -> Iterator[int]:
    """The 32-bit words of SHA-256(seed, 0), SHA-256(seed, 1), …, the counter in 8 bytes, big end first."""
    for counter in count_up():
        digest = sha256(seed + counter.to_bytes(8, "big")).digest()
        for at in range(0, 32, 4):
            yield int.from_bytes(digest[at : at + 4], "big")


def _below(words: Iterator[int], bound: int) -> int:
    """A number from 0 to bound - 1, each equally likely: words of the incomplete last round are skipped."""
    fair = 2**32 // bound * bound
    return next(word for word in words if word < fair) % bound
