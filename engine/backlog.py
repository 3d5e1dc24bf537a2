"""Models how many orders wait in the streams, whose entries are of very different sizes. Does no I/O."""

from collections import deque
from typing import Final

PARTS_MAX: Final = 512  # Looks whose entries are told apart; older ones become one.


class Backlog:
    """A queue of entries, first in, first out: each part as large as the newest entry was then.

    The streams say how many entries wait, but not how large they are; and while admission slows,
    fronts write many small ones behind a few large ones.
    """

    def __init__(self) -> None:
        self._parts: deque[tuple[int, float]] = deque()  # Entries, and orders in each of them.
        self._entries = 0
        self._done = 0
        self._size = 1.0

    def orders(self, done: int, waiting: int, newest_size: float | None) -> float:
        """How many orders wait, given the entries done so far in all, and those waiting now."""
        if newest_size is not None:
            self._size = newest_size
        self._take(done - self._done)
        self._done = done
        self._put(waiting - self._entries)
        self._take(self._entries - waiting)  # Somebody deleted some, or a counter began anew.
        return sum(entries * size for entries, size in self._parts)

    def _put(self, entries: int) -> None:
        if entries <= 0:
            return
        self._parts.append((entries, self._size))
        self._entries += entries
        if len(self._parts) > PARTS_MAX:
            (few, small), (many, large) = self._parts.popleft(), self._parts.popleft()
            both = few + many
            self._parts.appendleft((both, (few * small + many * large) / both))

    def _take(self, entries: int) -> None:
        while entries > 0 and self._parts:
            oldest, size = self._parts.popleft()
            if oldest > entries:
                self._parts.appendleft((oldest - entries, size))
            taken = min(oldest, entries)
            entries -= taken
            self._entries -= taken
