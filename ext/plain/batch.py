"""Packs the reservations of one script call as RESP while they come, and hands its replies out."""

import logging
from typing import Any, Final

logger = logging.getLogger(__name__)

ARGUMENTS: Final = 3  # Of one reservation: user, reservation id, items.


class ReserveBatch:
    """The reservations that will travel in one script call, each with whoever waits for its reply.

    A waiter has `replied(until_s: bytes, reply: bytes)` and `failed(error)`; it must not raise.
    """

    def __init__(self) -> None:
        self.waiters: list[Any] = []
        self._texts: list[str] = []

    def __len__(self) -> int:
        return len(self.waiters)

    def add(self, waiter: Any, user_id: str, reservation_id: str, items_text: str) -> None:
        """Adds one reservation to the call."""
        self._texts += (user_id, reservation_id, items_text)
        self.waiters.append(waiter)

    def command(self, prefix: bytes, prefix_arguments: int) -> bytes:
        """The whole call in RESP: `prefix`, which packs the first arguments, and the reservations."""
        count = prefix_arguments + ARGUMENTS * len(self.waiters)
        return b"".join((b"*%d\r\n" % count, prefix, *map(packed, self._texts)))

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


def packed(text: str) -> bytes:
    """One argument in RESP."""
    data = text.encode()
    return b"$%d\r\n%b\r\n" % (len(data), data)
