"""A latency histogram in bounded memory that costs next to nothing while the crowd runs. No I/O.

A double's own bits are the histogram: its exponent and the first ten bits of its fraction name a bucket of 0.1 %
width, as in HdrHistogram. New durations wait in an array and are counted many at a time, in C.
"""

import math
import struct
import sys
from array import array
from collections import Counter
from typing import Final, Self, TypeVar

# Bytes 7, 6 and 5 of a little-endian double: sign, exponent and 12 bits of the fraction. Two are dropped.
DROPPED_BITS: Final = 2
BELOW_BITS: Final = 40  # of the double, under those three bytes
_DROP: Final = bytes(byte >> DROPPED_BITS << DROPPED_BITS for byte in range(256))

Number = TypeVar("Number", int, float)


class Latencies:
    """Durations in seconds, not negative. Shares are told at most 0.1 % too long, never too short."""

    def __init__(self) -> None:
        self._fresh = array("d")  # bounded by who calls `fold`
        self._buckets: Counter[int] = Counter()  # at most 1,024 per power of two
        self._max_s = 0.0
        self.add = self._fresh.append

    def __len__(self) -> int:
        return self._buckets.total() + len(self._fresh)

    def fold(self) -> None:
        """Counts what waits. To be called now and then while durations are added."""
        if not self._fresh:
            return
        self._max_s = max(self._max_s, *self._fresh)
        self._buckets.update(_buckets_of(self._fresh))
        del self._fresh[:]

    def merge(self, other: Self) -> None:
        """Adds what another crowd measured."""
        other.fold()
        self._buckets.update(other._buckets)
        self._max_s = max(self._max_s, other._max_s)

    def percentiles(self, *percents: float) -> list[float]:
        """The smallest durations that cover these shares, in seconds; 0 if there is none."""
        self.fold()
        ordered = sorted(self._buckets.items())
        return [self._percentile(ordered, percent) for percent in percents]

    def _percentile(self, ordered: list[tuple[int, int]], percent: float) -> float:
        wanted, seen = math.ceil(self._buckets.total() * percent / 100), 0
        for bucket, count in ordered:
            seen += count
            if seen >= wanted:
                return min(_end_s(bucket), self._max_s)
        return 0.0

    def __getstate__(self) -> tuple[Counter[int], float]:
        self.fold()
        return self._buckets, self._max_s

    def __setstate__(self, state: tuple[Counter[int], float]) -> None:
        self.__init__()  # type: ignore[misc]
        self._buckets, self._max_s = state


def _buckets_of(durations: "array[float]") -> "array[int]":
    raw = _little(durations).tobytes()
    named = bytearray(4 * len(durations))
    named[0::4] = raw[5::8].translate(_DROP)
    named[1::4] = raw[6::8]
    named[2::4] = raw[7::8]
    return _little(array("I", bytes(named)))


def _little(values: "array[Number]") -> "array[Number]":
    """The same values between our byte order and the little-endian one."""
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values


def _end_s(bucket: int) -> float:
    """Where the next bucket begins."""
    bits = (bucket + (1 << DROPPED_BITS)) << BELOW_BITS
    end_s: float = struct.unpack("<d", struct.pack("<q", bits))[0]
    return end_s
