"""Packs the reservations of one script call while they come, and hands its replies out."""

import logging
from typing import Any, Final

logger = logging.getLogger(__name__)

ARGUMENTS: Final = 2  # What follows the first arguments: columns and lines (see reserve.lua).
TICKETS_MAX: Final = 1 << 24  # The room gives out no higher number.
SHORT_MAX: Final = 31  # Bytes of a text that MessagePack heads with one byte.


class ReserveBatch:
    """The reservations that will travel in one script call, each with whoever waits for its reply.

    A waiter has `replied(until_s: bytes, reply: bytes)` and `failed(error)`; it must not raise.
    """

    def __init__(self) -> None:
        self.waiters: list[Any] = []
        self._users: list[bytes] = []
        self._ids: list[bytes] = []
        self._wants: list[int] = []
        self._wishes: dict[bytes, int] = {}
        self._tickets: list[int] = []

    def __len__(self) -> int:
        return len(self.waiters)

    @property
    def has_tickets(self) -> bool:
        """Whether a request has to do with a waiting room."""
        return any(self._tickets)

    def add(
        self,
        waiter: Any,
        user_id: str,
        reservation_id: str,
        items_text: str,
        ticket: int = 0,
    ) -> None:
        """Adds one reservation to the call. `ticket` is -1, 0 or a number (see reserve.lua)."""
        if not -1 <= ticket <= TICKETS_MAX:
            raise ValueError(f"{ticket} is no number of a ticket")
        user, name, items = user_id.encode(), reservation_id.encode(), items_text.encode()
        self._users.append(user)
        self._ids.append(name)
        self._wants.append(self._wishes.setdefault(items, len(self._wishes) + 1))
        self._tickets.append(ticket)
        self.waiters.append(waiter)

    def command(self, prefix: bytes, prefix_arguments: int) -> bytes:
        """The whole call in RESP: `prefix`, which packs the first arguments, and the reservations."""
        count = prefix_arguments + ARGUMENTS
        return b"*%d\r\n%b%b%b" % (count, prefix, packed(self._columns()), packed(self._lines()))

    def _columns(self) -> bytes:
        columns = [
            map(text_packed, self._users),
            map(text_packed, self._ids),
            map(number_packed, self._wants),
            map(text_packed, self._wishes),
        ]
        if self.has_tickets:
            columns.append(map(ticket_packed, self._tickets))
        return b"".join(array_packed(list(column)) for column in columns)

    def _lines(self) -> bytes:
        wishes = list(self._wishes)
        requests = zip(self._ids, self._users, self._wants, strict=True)
        return b"\n".join(b"%b %b %b" % (name, user, wishes[n - 1]) for name, user, n in requests)

    def reply(self, until_s: bytes, replies: list[bytes]) -> None:
        """Hands each waiter its own reply. Raises ValueError if their numbers differ."""
        if len(replies) != len(self.waiters):
            raise ValueError(f"{len(replies)} replies to {len(self.waiters)} reservations")
        for waiter, reply in zip(self.waiters, replies, strict=True):
            try:
                waiter.replied(until_s, reply)
            except Exception:
                logger.exception("A waiter failed on its reply.", extra={"action": "waiter_failed"})

    def fail(self, error: Exception) -> None:
        """Tells every waiter that the call failed."""
        for waiter in self.waiters:
            try:
                waiter.failed(error)
            except Exception:
                logger.exception("A waiter failed on an error.", extra={"action": "waiter_failed"})


def packed(data: bytes) -> bytes:
    """One argument in RESP."""
    return b"$%d\r\n%b\r\n" % (len(data), data)


def array_packed(elements: list[bytes]) -> bytes:
    """An array in MessagePack. A batch has at most 512 elements."""
    return b"\xdc" + len(elements).to_bytes(2, "big") + b"".join(elements)


def number_packed(number: int) -> bytes:
    return bytes((number,)) if number < 128 else b"\xcd" + number.to_bytes(2, "big")


def ticket_packed(number: int) -> bytes:
    if number < 0:
        return b"\xff"
    return bytes((number,)) if number < 128 else b"\xce" + number.to_bytes(4, "big")


def text_packed(text: bytes) -> bytes:
    size = len(text)
    head = bytes((0xA0 | size,)) if size <= SHORT_MAX else b"\xdb" + size.to_bytes(4, "big")
    return head + text
