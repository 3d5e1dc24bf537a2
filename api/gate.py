"""Answers what the compiled gate took: the same decisions as the aiohttp routes, by another door.

The gate (ext/gate.pyx) speaks HTTP; here its requests meet the handlers and become bytes.
"""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any, Final

from api.answers import JSON, PERSONAL, Answer, time_text
from api.bodies import Place
from api.connection import ConnectionGuards
from api.front import Front, fresh_prefix
from api.patience import reading
from api.problems import Refusal
from api.queue.handlers import CHALLENGE, ENTER, EnterCall, Entrance, visitor_of
from api.queue.polls import POLL, PollCall, place_shown
from api.reservations.decision import (
    REFUSALS,
    ReserveCall,
    answer_to_failure,
    answer_to_refusal,
    answer_to_reply,
    items_json,
    lacks_ticket,
    reserve,
    too_fast,
    wanted_items,
)
from api.reservations.handlers import reservation_shown
from api.routing import OVERLOADED, answered, held, is_work
from api.sales.handlers import sale_shown
from api.written import as_bytes, head_of, http_date
from engine.admission.limit import Priority
from engine.errors import DoorbusterError, Overloaded, Unavailable
from engine.inventory.inventory import read_reply
from engine.model import Outcome
from engine.sales import Sale
from ext.gate import Kind, Request
from ext.straight import SaleDoor, StraightPath, Wish

KNOWN_MAX: Final = 1024  # Bodies, and sales, that the straight path knows; few are asked for.
USERS_MAX: Final = 65_536  # Tokens verified already, ~400 bytes each.
KNOWN_BODY_BYTES_MAX: Final = 512
SALE_KNOWN_SECONDS: Final = (
    0.5  # Then the directory, which is a second old at most, is asked again.
)

SALE: Final = int(Kind.SHOW_SALE)
RESERVATION: Final = int(Kind.SHOW_RESERVATION)
ENTRY: Final = int(Kind.ENTER_QUEUE)
RESERVE: Final = "POST /v1/sales/{sale}/reservations"
SHOW_SALE: Final = "GET /v1/sales/{sale}"
SHOW_QUEUE: Final = f"GET {POLL}"
ENTER_QUEUE: Final = f"POST {ENTER}"
SHOW_CHALLENGE: Final = f"GET {CHALLENGE}"
SHOW_RESERVATION: Final = "GET /v1/reservations/{reservation}"


class GateDoors:
    """The doors of one process' gate."""

    def __init__(self, front: Front, entrance: Entrance, guards: ConnectionGuards) -> None:
        self._front = front
        self._entrance = entrance
        self._engine = front.engine
        self._guards = guards
        self._tasks: set[asyncio.Task[None]] = set()
        self.straight = StraightPath(
            self,
            user_until=front.tokens.user_until,
            user_throttle=front.throttles.user,
            address_throttle=front.throttles.address,
            addresses=front.addresses,
            access=front.engine.access,
            limit=front.limit,
            meter=front.meter,
            replays=front.replays,
            memory=front.engine.memory,
            peek_room=front.engine.rooms.peek,
            ticket_required=Outcome.TICKET_REQUIRED,
            now_ms=front.engine.clock.now_ms,
            head=head_of(201, PERSONAL),
            shown_head=head_of(200, PERSONAL),
            id_prefix=f"{fresh_prefix()}-".encode(),
            known_max=KNOWN_MAX,
            users_max=USERS_MAX,
        )
        front.revocations.tell(self.straight.forget_users)

    # What the gate asks.

    def take(self, request: Request) -> bytes | None:
        """The answer to a call that is neither a reservation nor a poll, or None: it will come."""
        if request.kind == SALE:
            answer = self._front.shown_sales.peek(request.name)
            if answer is not None:
                return self._written(request, SHOW_SALE, answer)
        if request.kind == RESERVATION:
            place, showing = Place(Priority.PAYMENT), self._show_reservation(request)
            return self._begin(request, SHOW_RESERVATION, place, showing)
        place = Place(Priority.BROWSE)
        if request.kind == SALE:
            return self._begin(request, SHOW_SALE, place, self._show_sale(request))
        if request.kind == ENTRY:
            return self._begin(request, ENTER_QUEUE, place, self._enter_queue(request, place))
        return self._begin(request, SHOW_CHALLENGE, place, self._show_challenge(request))

    def hand_over(self, transport: asyncio.Transport, data: bytes) -> None:
        """Gives a connection to aiohttp, with what it has sent of its next request."""
        guard = self._guards()
        transport.set_protocol(guard)
        guard.connection_made(transport)
        guard.data_received(data)

    async def stop(self) -> None:
        """Waits until everything begun is answered."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    # What the straight path asks.

    def decide(self, request: Request) -> bytes | None:
        """A reserve call that is not straight. Those after it may be: a crowd wants the same."""
        self._learn(request)
        return self._begin(request, RESERVE, Place(Priority.RESERVE), self._reserve(request))

    def look_up(self, request: Request) -> bytes | None:
        """A poll that is not straight."""
        return self._begin(request, SHOW_QUEUE, Place(Priority.BROWSE), self._show_queue(request))

    def shown(self, request: Request, body: bytes) -> bytes:
        return self._written(request, SHOW_QUEUE, Answer(200, body, PERSONAL))

    def shed(self, request: Request) -> bytes | None:
        """Too many are in work: refused before anything is looked at."""
        return self._shed(request, RESERVE)

    def slow_down(self, request: Request, wait_s: float) -> bytes | None:
        """More would be reserved than can be stored."""
        answer = too_fast(self._front, wait_s)
        self._front.counts.outcomes[answer.label] += 1
        return self._held(request, RESERVE, answer)

    def refuse(self, request: Request, sale: Sale, outcome: Outcome) -> bytes:
        answer = answer_to_refusal(self._engine, sale, outcome)
        if outcome is Outcome.TICKET_REQUIRED:
            self._front.counts.refused[answer.label] += 1
        return self._reserved(request, answer)

    def refusal_form(self, sale: Sale, outcome: Outcome) -> tuple[bytes, bytes] | None:
        """Head and body of a refusal that is always the same; None for one that tells the time."""
        if outcome is Outcome.NOT_STARTED:
            return None
        answer = answer_to_refusal(self._engine, sale, outcome)
        return head_of(answer.status, answer.headers), answer.body

    def count_refused(self, outcome: Outcome | None, count: int) -> None:
        if outcome is not None and count:
            answer = REFUSALS[outcome]
            self._front.counts.outcomes[answer.label] += count
            self._front.counts.requests[RESERVE, answer.status] += count
            if outcome is Outcome.TICKET_REQUIRED:
                self._front.counts.refused[answer.label] += count

    def conclude(self, request: Request, until_s: bytes, reply: bytes) -> bytes:
        said = read_reply(request.reservation_id, until_s, reply)
        sale, items_text = request.sale.sale, request.wish.items_text
        if reply == Outcome.STALE_EPOCH.encode():
            self.straight.forget_sale(sale.sale_id)
        if lacks_ticket(said):
            refused = self._front.turn_refused(sale, request.queue_ticket, request.user_id)
            return self._reserved(request, refused)
        return self._reserved(request, answer_to_reply(self._engine, sale, items_text, said))

    def fail(self, request: Request, error: DoorbusterError) -> bytes:
        return self._reserved(request, answer_to_failure(error))

    def until_text(self, until_s: bytes) -> bytes:
        return time_text(int(until_s) * 1000).encode()

    def date(self) -> bytes:
        return http_date().encode()

    # What has to be done aside.

    async def follow_sales(self) -> None:
        """Keeps the sales that are asked for as the directory has them, until cancelled."""
        while True:
            await asyncio.sleep(SALE_KNOWN_SECONDS)
            for sale_id in self.straight.used_sales():
                await self._renew(sale_id)

    async def _renew(self, sale_id: str) -> None:
        try:
            sale = await self._engine.directory.get(sale_id)
        except Unavailable:
            sale = None
        if sale is None:
            self.straight.forget_sale(sale_id)
        else:
            self._learn_sale(sale)

    def flush_counts(self) -> None:
        """Adds what the straight path counted by itself."""
        if accepted := self.straight.take_accepted():
            self._front.counts.outcomes["reserved"] += accepted
            self._front.counts.requests[RESERVE, 201] += accepted
        self.count_refused(*self.straight.take_refused())
        if polled := self.straight.take_polled():
            self._front.counts.requests[SHOW_QUEUE, 200] += polled

    def _begin(
        self,
        request: Request,
        route: str,
        place: Place,
        answering: Coroutine[Any, Any, Answer],
    ) -> bytes | None:
        place.entered = self._front.limit.try_enter(place.priority)
        if not place.entered:
            answering.close()
            return self._shed(request, route)
        task = asyncio.create_task(self._finish(request, route, place, answering))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return None

    async def _finish(
        self, request: Request, route: str, place: Place, answering: Coroutine[Any, Any, Answer]
    ) -> None:
        request_id = self._request_id(request)
        try:
            answer = await held(self._front, await self._in(place, answering, request_id))
            written = self._written(request, route, answer, request_id)
        except BaseException:
            request.abort()  # Nobody waits for an answer that will not come.
            raise
        request.answer(written)

    async def _in(
        self, place: Place, answering: Coroutine[Any, Any, Answer], request_id: str
    ) -> Answer:
        """The answer. The place is free again then, whatever happens."""
        measured = False
        try:
            answer = await answered(answering, request_id)
            measured = place.measured and is_work(answer)
        finally:
            self._front.limit.leave(place.priority, place.entered, measured)
        return answer

    async def _show_sale(self, request: Request) -> Answer:
        async with reading():
            return await sale_shown(self._front, request.name)

    async def _show_reservation(self, request: Request) -> Answer:
        async with reading():
            return await reservation_shown(
                self._front, _text(request.authorization), self._address_of(request), request.name
            )

    async def _show_queue(self, request: Request) -> Answer:
        user_id = self._caller_of(request, request.name)
        call = PollCall(user_id, request.name, request.queue_ticket)
        async with reading():
            answer = await place_shown(self._front, call)
        self._learn_room(request.name)
        return answer

    async def _enter_queue(self, request: Request, place: Place) -> Answer:
        user_id = self._caller_of(request, request.name)
        address, user_agent = self._address_of(request), _text(request.user_agent)
        call = EnterCall(
            visitor_of(request.name, user_id, address, user_agent),
            request.queue_ticket,
            _text(request.content_type),
            request.body,
            place,
        )
        answer = await self._entrance.enter(self._front, call)
        self._learn_room(request.name)  # He polls from now on.
        return answer

    async def _show_challenge(self, request: Request) -> Answer:
        user_id = self._caller_of(request, request.name)
        async with reading():
            return await self._entrance.challenge(self._front, request.name, user_id)

    async def _reserve(self, request: Request) -> Answer:
        call = ReserveCall(
            self._caller_of(request, request.name),
            request.name,
            _text(request.idempotency_key),
            _text(request.content_type),
            request.body,
            request.queue_ticket,
            request.paid,
        )
        answer = await reserve(self._front, call)
        self._front.counts.outcomes[answer.label] += 1
        return answer

    def _learn(self, request: Request) -> None:
        """Shows the straight path what it may know from now on."""
        sale = self._engine.directory.peek(request.name)
        known = self.straight.knows(request.body, request.name)
        if sale is None or known or len(request.body) > KNOWN_BODY_BYTES_MAX:
            return
        try:
            items_text = wanted_items(JSON, request.body)
        except Refusal:
            return
        self.straight.learn_wish(request.body, Wish(items_text, bytes(items_json(items_text))))
        self._learn_sale(sale)

    def _learn_room(self, sale_id: str) -> None:
        if (sale := self._engine.directory.peek(sale_id)) is not None:
            self._learn_sale(sale)

    def _learn_sale(self, sale: Sale) -> None:
        try:
            queue = self._engine.inventory.queue(sale.ref)
        except Overloaded:
            return
        has_room = sale.room is not None and sale.room.on
        self.straight.learn_sale(SaleDoor(sale, queue.join, has_room))

    def _caller_of(self, request: Request, sale_id: str) -> str:
        """The user. Raises Refusal."""
        address = self._address_of(request)
        authorization = _text(request.authorization)
        return self._front.caller_by(authorization, address, sale_id, request.paid).user_id

    def _address_of(self, request: Request) -> str:
        said = (_text(request.forwarded), _text(request.x_forwarded_for))
        return self._front.addresses.client(request.address, *said)

    def _shed(self, request: Request, route: str) -> bytes | None:
        self._front.count_shed()
        return self._held(request, route, OVERLOADED)

    def _held(self, request: Request, route: str, answer: Answer) -> bytes | None:
        """None: the answer will be given in a moment, so that nobody asks again at once."""
        later = partial(self._answer, request, route, answer)
        return None if self._front.held.hold(later) else self._written(request, route, answer)

    def _answer(self, request: Request, route: str, answer: Answer) -> None:
        request.answer(self._written(request, route, answer))

    def _reserved(self, request: Request, answer: Answer) -> bytes:
        self._front.counts.outcomes[answer.label] += 1
        return self._written(request, RESERVE, answer)

    def _written(
        self, request: Request, route: str, answer: Answer, request_id: str | None = None
    ) -> bytes:
        answer = self._front.spread(answer)
        self._front.counts.requests[route, answer.status] += 1
        if request_id is None and request.request_id is None and not self._front.stopping:
            head = head_of(answer.status, answer.headers)
            return self.straight.written(head, answer.location, answer.body)
        close = self._front.stopping and request.is_last()
        return as_bytes(answer, request_id or self._request_id(request), close=close)

    def _request_id(self, request: Request) -> str:
        return self._front.request_ids.of(_text(request.request_id))


def _text(header: bytes | None) -> str | None:
    """A header as aiohttp reads it."""
    return None if header is None else header.decode("utf-8", "surrogateescape")
