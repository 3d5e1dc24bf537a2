"""Finds out what became of clicks and promises that no shopper follows any more.

Runs beside the shoppers and works once they have gone home: when a run ends, locust stops them wherever they are.
"""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import gevent  # type: ignore[import-untyped]
from gevent.pool import Pool  # type: ignore[import-untyped]
from locust.contrib.fasthttp import FastHttpSession
from locust.event import EventHook

from loadtest.ledger import Click, Ledger
from loadtest.shopper import TICKET_CODES, Shop, note
from loadtest.talk import Call, Reply, send

AT_ONCE_MAX: Final = 16
ENTRIES_AT_ONCE_MAX: Final = 1000
REST_SECONDS: Final = 0.3
# Shed, too early or no longer known as a buyer: says nothing of what became of the click.
UNSAID: Final = frozenset({401, 403, 425})
Entry = TypeVar("Entry")


class Auditor:
    """Settles what is open in a shop's ledger whenever nobody shops."""

    def __init__(self, shop: Shop, host: Callable[[], str], users: Callable[[], int]) -> None:
        self._shop = shop
        self._host = host
        self._users = users

    def run(self) -> None:
        """For a greenlet of its own, until that is killed."""
        while True:
            if not self._users():
                self.audit_once()
            gevent.sleep(REST_SECONDS)

    def audit_once(self) -> int:
        """One look at each open entry. Returns how many there were."""
        ledger = self._shop.ledger
        clicks = list(ledger.open_clicks.items())[:ENTRIES_AT_ONCE_MAX]
        orders = list(ledger.open_orders.items())[:ENTRIES_AT_ONCE_MAX]
        self._each(clicks, lambda session, entry: self._ask(session, ledger, *entry))
        self._each(orders, lambda session, entry: self._look(session, ledger, *entry))
        return len(clicks) + len(orders)

    def _each(self, entries: Sequence[Entry], do: Callable[[FastHttpSession, Entry], None]) -> None:
        # Out of the statistics: these are questions of the tally, not of shoppers.
        session = FastHttpSession(self._host(), _unheard(), None, concurrency=AT_ONCE_MAX)
        pool = Pool(AT_ONCE_MAX)
        for entry in entries:
            pool.spawn(do, session, entry)
        pool.join()

    def _ask(self, session: FastHttpSession, ledger: Ledger, key: str, click: Click) -> None:
        """The same request with the same key: whoever was promised something is told again."""
        ledger.repeat()
        path = f"/v1/sales/{self._shop.sale_id}/reservations"
        reply = send(session, Call("POST", path, "audit", click.body), click.headers)
        if not reply.repeatable and (reply.status not in UNSAID or _was_let_in(click, reply)):
            note(ledger, key, reply)

    def _look(
        self, session: FastHttpSession, ledger: Ledger, reservation_id: str, click: Click
    ) -> None:
        call = Call("GET", f"/v1/reservations/{reservation_id}", "audit")
        if send(session, call, click.headers).body.get("order") is not None:
            ledger.order(reservation_id)


def _was_let_in(click: Click, reply: Reply) -> bool:
    """Whether a refusal for want of a ticket is an answer: what was promised is told to any ticket of
    the buyer's, even to one that is over, so nothing was."""
    return reply.status == 403 and "Queue-Ticket" in click.headers and reply.code in TICKET_CODES


def _unheard() -> EventHook:
    return EventHook()  # type: ignore[no-untyped-call]
