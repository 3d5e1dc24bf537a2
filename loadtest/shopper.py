"""What one shopper does: look, queue, wait for the doors to open, buy, pay, and see the order paid.

Leaves the queue to `waiting_room`, the tally to `ledger`, the tokens to `buyers`, and how many shoppers there are to `shape`.
"""

import logging
import random
import uuid
from datetime import datetime
from typing import Any, Final, NamedTuple

import gevent  # type: ignore[import-untyped]
from locust import FastHttpUser, between, task
from locust.exception import StopUser

from loadtest.buyers import Buyers
from loadtest.ledger import Click, Ledger
from loadtest.talk import Body, Call, Reply, send
from loadtest.waiting_room import WaitingRoom, Word

logger = logging.getLogger(__name__)

ATTEMPTS_MAX: Final = 10  # Requests for one click or one payment.
EARLY_MAX: Final = 30  # Clicks before the doors are open.
POLLS_MAX: Final = 60  # Looks at an order that is not stored, or not paid, yet.
POLL_SECONDS: Final = (0.3, 0.7)
LOOK_SECONDS: Final = (1.0, 3.0)  # Between two looks at a sale that is not open yet.
# Nobody clicks on the second: some before the doors open, most soon after.
CLICK_SECONDS: Final = (-0.3, 0.7)
# Nobody pays in the second the order appears.
PAY_SECONDS: Final = (0.1, 1.0)
TICKET_CODES: Final = frozenset({"ticket_required", "ticket_invalid"})
SHUT: Final = frozenset({"ended", "closed"})
HOST: Final = "http://127.0.0.1:8080"


class Site(NamedTuple):
    """A sale as a shopper sees it."""

    state: str
    opens_in_s: float  # by the server's clock; negative once it is open
    skus: list[str]


class Shop:
    """What all shoppers of this process share. Filled in before the first of them comes."""

    def __init__(self) -> None:
        self.buyers = Buyers()
        self.ledger = Ledger()
        self.sale_id = "demo"
        self.abandon = 0.0  # share of those who reserved
        self.has_queue = True  # until the engine says otherwise

    def begin(self, sale_id: str, abandon: float) -> None:
        """A new run, a new tally."""
        self.ledger = Ledger()
        self.sale_id, self.abandon = sale_id, abandon
        self.has_queue = True


shop: Final = Shop()


class Shopper(FastHttpUser):
    """One buyer after the other, on one connection."""

    host = HOST
    wait_time = between(0.5, 2.0)
    network_timeout = 10.0
    connection_timeout = 5.0

    @task
    def visit(self) -> None:
        """A whole visit as a new buyer."""
        site = self.browse()
        if site is None or not site.skus or site.state in SHUT:
            return
        token = shop.buyers.next()
        if token is None:
            logger.error("No tokens are left for this process: its shoppers go home.")
            raise StopUser
        self.headers = {"Authorization": f"Bearer {token}"}
        self.ticket: str | None = None
        # The queue first: who takes a ticket before the doors open is there when they do.
        if not self.queue() or (site := self.await_opening(site)) is None:
            return
        if (reservation_id := self.buy(site)) is not None:
            self.settle(reservation_id)

    # Before the click.

    def await_opening(self, site: Site | None) -> Site | None:
        """Browses until the doors open, give or take a moment; None if the sale cannot be seen."""
        while site is not None and site.opens_in_s > 0:
            click_in_s = site.opens_in_s + random.uniform(*CLICK_SECONDS)
            look_in_s = random.uniform(*LOOK_SECONDS)
            gevent.sleep(max(0.0, min(click_in_s, look_in_s)))
            if click_in_s <= look_in_s:
                break
            site = self.browse()
        return site

    def browse(self) -> Site | None:
        """Looks at the sale."""
        reply = send(self.client, Call("GET", f"/v1/sales/{shop.sale_id}", "/v1/sales/[sale]"), {})
        return read_site(reply.body) if reply.ok else None

    def queue(self, *, again: bool = False) -> bool:
        """Waits for its turn where the sale has a room. Whether it may click now."""
        if not shop.has_queue and not again:
            return True
        room = WaitingRoom(self.client, shop.sale_id, self.headers)
        room.ticket = self.ticket
        turn = room.wait()
        shop.ledger.queue(room.tickets)
        self.ticket = turn.ticket
        if turn.word is Word.OPEN:
            shop.has_queue = False
            return not again
        if turn.word is Word.GONE:
            shop.ledger.turn_away()
        return turn.word is Word.ADMITTED

    def _ticketed(self) -> dict[str, str]:
        return self.headers | ({"Queue-Ticket": self.ticket} if self.ticket else {})

    # The click.

    def buy(self, site: Site) -> str | None:
        """The reservation's id, or None if the shop refused or never answered."""
        key = str(uuid.uuid4())
        body: Body = {"items": [{"sku": random.choice(site.skus), "quantity": 1}]}
        shop.ledger.click(key, Click(self._ticketed() | {"Idempotency-Key": key}, body))
        early = attempt = 0
        while attempt < ATTEMPTS_MAX and early < EARLY_MAX:
            reply = self.ask(key, body)
            if reply.ok or not (reply.repeatable or reply.status in {403, 425}):
                return note(shop.ledger, key, reply)
            if reply.status == 403 and not (reply.code in TICKET_CODES and self._fetch()):
                return note(shop.ledger, key, reply)
            early += reply.status == 425
            attempt += reply.status != 425
            shop.ledger.repeat()
            gevent.sleep(reply.pause_s(attempt) if reply.status != 403 else 0)
        return None  # Still open in the ledger: it is found out at the end.

    def ask(self, key: str, body: Body) -> Reply:
        path = f"/v1/sales/{shop.sale_id}/reservations"
        return send(
            self.client,
            Call("POST", path, "/v1/sales/[sale]/reservations", body),
            self._ticketed() | {"Idempotency-Key": key},
            expected={403} if shop.has_queue else (),
        )

    def _fetch(self) -> bool:
        """A ticket, where the sale asks for one after all."""
        shop.has_queue = True
        return self.queue(again=True)

    # After the click.

    def settle(self, reservation_id: str) -> None:
        """Follows the order to its payment, or walks away from it."""
        order = self.await_order(reservation_id)
        if order is None:
            return
        if random.random() < shop.abandon:
            self.abandon(reservation_id)
            return
        gevent.sleep(random.uniform(*PAY_SECONDS))
        if order["status"] == "awaiting_payment":
            self.pay(reservation_id)
        self.await_payment(reservation_id)

    def await_order(self, reservation_id: str) -> Body | None:
        """The order that the reservation became."""
        path = f"/v1/reservations/{reservation_id}"
        for _ in range(POLLS_MAX):
            reply = send(self.client, Call("GET", path, "/v1/reservations/[id]"), self.headers)
            if reply.status == 404:
                shop.ledger.vanish(reservation_id)
                return None
            if (order := reply.body.get("order")) is not None:
                shop.ledger.order(reservation_id)
                return dict(order)
            gevent.sleep(random.uniform(*POLL_SECONDS))
        return None

    def abandon(self, reservation_id: str) -> None:
        """Half of those who do not want it any more say so."""
        shop.ledger.abandon()
        if random.random() < 0.5:
            path, name = f"/v1/reservations/{reservation_id}", "/v1/reservations/[id]"
            if send(self.client, Call("DELETE", path, name), self.headers).ok:
                shop.ledger.release()

    def pay(self, reservation_id: str) -> None:
        """Starts a payment; the same key makes repeating it safe."""
        headers = self.headers | {"Idempotency-Key": str(uuid.uuid4())}
        path, name = f"/v1/orders/{reservation_id}/payments", "/v1/orders/[id]/payments"
        for attempt in range(ATTEMPTS_MAX):
            reply = send(self.client, Call("POST", path, name), headers)
            if not reply.repeatable:
                return
            gevent.sleep(reply.pause_s(attempt))

    def await_payment(self, reservation_id: str) -> None:
        """Looks at the order until it does not await payment any more, as a waiting page does."""
        look = Call("GET", f"/v1/orders/{reservation_id}", "/v1/orders/[id]")
        for _ in range(POLLS_MAX):
            reply = send(self.client, look, self.headers)
            status = reply.body["status"] if reply.ok else "awaiting_payment"
            if status == "paid":
                shop.ledger.pay()
            if status != "awaiting_payment":
                return
            gevent.sleep(random.uniform(*POLL_SECONDS))


def note(ledger: Ledger, key: str, reply: Reply) -> str | None:
    """Writes the answer to a click down; the reservation's id if it promises one."""
    if not reply.ok:
        ledger.refuse(key, reply.code)
        return None
    reservation_id = str(reply.body["reservation_id"])
    ledger.promise(key, reservation_id)
    return reservation_id


def read_site(body: Body) -> Site:
    """People buy what they see is there; once nothing is, they try their luck."""
    opens_at, now = (_time(body[name]) for name in ("opens_at", "server_time"))
    items = body["items"]
    there = [item["sku"] for item in items if item["available"]]
    skus = there or [item["sku"] for item in items]
    return Site(body["state"], (opens_at - now).total_seconds(), skus)


def _time(text: Any) -> datetime:
    return datetime.fromisoformat(text)
