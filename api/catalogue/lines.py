"""Cuts bytes that come in pieces into the records of a file. Bounded, and knows no product."""

from collections.abc import AsyncIterator, Iterator
from typing import Final, NamedTuple

from engine.errors import Invalid

RECORD_BYTES_MAX: Final = 1_048_576  # A product of 200 SKUs with long descriptions fits twice.
_BOM: Final = b"\xef\xbb\xbf"  # As spreadsheets write it before UTF-8.
_QUOTE: Final = b'"'


class Record(NamedTuple):
    """One record and the line it begins on; the first is 1."""

    line: int
    text: bytes


class LineReader:
    """The records of JSON Lines, or with `quoted` of CSV, where quoted fields may hold line ends.

    Feed it with pieces, then `rest`. Raises Invalid for a record that never ends.
    """

    def __init__(self, *, quoted: bool) -> None:
        self._quoted = quoted
        self._line = 1
        self._begun = b""  # A record whose end has not come.
        self._begins = 1
        self._tail = b""  # A line whose end has not come.
        self._is_first = True

    def feed(self, piece: bytes) -> Iterator[Record]:
        *lines, self._tail = (self._tail + piece).split(b"\n")
        if len(self._tail) + len(self._begun) > RECORD_BYTES_MAX:
            raise _endless(self._begins)
        for line in lines:
            yield from self._take(line)

    def rest(self) -> Iterator[Record]:
        """What stands after the last line end."""
        if self._tail:
            yield from self._take(self._tail)
            self._tail = b""
        if self._begun:
            raise Invalid(f"line {self._begins}", "a quote is never closed")

    def _take(self, line: bytes) -> Iterator[Record]:
        if self._is_first:
            line, self._is_first = line.removeprefix(_BOM), False
        if not self._begun:
            self._begins = self._line
        self._line += 1
        whole = self._begun + b"\n" + line if self._begun else line
        if len(whole) > RECORD_BYTES_MAX:
            raise _endless(self._begins)
        # Quotes within quotes are doubled: an odd number of them means that one is open.
        if self._quoted and whole.count(_QUOTE) % 2:
            self._begun = whole
            return
        self._begun = b""
        if whole.strip():
            yield Record(self._begins, whole.rstrip(b"\r"))


async def records(pieces: AsyncIterator[bytes], *, quoted: bool) -> AsyncIterator[list[Record]]:
    """The records that each piece completes. Raises Invalid."""
    reader = LineReader(quoted=quoted)
    async for piece in pieces:
        yield list(reader.feed(piece))
    yield list(reader.rest())


def _endless(line: int) -> Invalid:
    return Invalid(f"line {line}", f"is longer than {RECORD_BYTES_MAX} bytes")
