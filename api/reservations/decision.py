"""Answers one reserve call: who, how fast, what, and the engine's outcome in HTTP's words.

Takes strings and bytes and gives an Answer, so that any front can share it. Knows no aiohttp.
"""

import re
from functools import lru_cache
from typing import Annotated, Final, NamedTuple

import msgspec
from multidict import istr

from api.answers import PERSONAL, Answer, time_text
from api.bodies import decode, is_json
from api.front import PACE_PAID, Front
from api.patience import reading
from api.problems import (
    TAKE_A_TICKET,
    TICKET_USED,
    Code,
    FieldError,
    Refusal,
    invalid,
    problem,
    problem_of,
)
from engine.core import Engine
from engine.errors import CircuitOpen, DoorbusterError, Overloaded, Unavailable
from engine.inventory.queue import NO_ROOM, TICKET_MISSING
from engine.model import (
    IDEMPOTENCY_KEY_MAX,
    ITEMS_MAX,
    QUANTITY_MAX,
    SKU,
    Item,
    Items,
    Outcome,
    Refused,
    Reserved,
    ReserveRequest,
    items_from_text,
    items_to_text,
    make_reservation_id,
    public_id,
)
from engine.sales import Sale

KEY_HEADER: Final = "Idempotency-Key"
_KEY_RULE: Final = f"must be 1 to {IDEMPOTENCY_KEY_MAX} printable ASCII characters"
_KEY = re.compile(rf"[ -~]{{1,{IDEMPOTENCY_KEY_MAX}}}")

OUTCOME_CODES: Final = {
    Outcome.MISMATCH: Code.IDEMPOTENCY_MISMATCH,
    Outcome.SOLD_OUT: Code.SOLD_OUT,
    Outcome.ALL_RESERVED: Code.ALL_RESERVED,
    Outcome.LIMIT_REACHED: Code.LIMIT_REACHED,
    Outcome.NOT_STARTED: Code.NOT_STARTED,
    Outcome.ENDED: Code.SALE_ENDED,
    Outcome.PAUSED: Code.SALE_PAUSED,
    Outcome.UNKNOWN_SKU: Code.UNKNOWN_SKU,
    Outcome.STALE_EPOCH: Code.UNAVAILABLE,
    Outcome.TICKET_REQUIRED: Code.TICKET_REQUIRED,
    Outcome.TICKET_USED: Code.TICKET_INVALID,
}
# Most answers of a rush are refusals, and all of one outcome are alike.
_DETAILS: Final = {Outcome.TICKET_REQUIRED: TAKE_A_TICKET, Outcome.TICKET_USED: TICKET_USED}
REFUSALS: Final = {
    outcome: problem(code, _DETAILS.get(outcome, "")) for outcome, code in OUTCOME_CODES.items()
}

PACE_EXCEEDED: Final = "More would be reserved now than can be stored; nothing was done."
NOT_ASKED: Final = "A part of the engine fails and is not asked for a moment; nothing was done."

REPLAYED: Final = (*PERSONAL, (istr("Idempotent-Replayed"), "true"))


SkuText = Annotated[str, msgspec.Meta(pattern=rf"^(?:{SKU.pattern})\Z")]


class WantedItem(Item, frozen=True, forbid_unknown_fields=True):
    """Some units of one SKU, as a client may ask for them."""

    sku: SkuText
    quantity: Annotated[int, msgspec.Meta(ge=1, le=QUANTITY_MAX)]


class ReserveBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a reserve call."""

    items: Annotated[tuple[WantedItem, ...], msgspec.Meta(min_length=1, max_length=ITEMS_MAX)]


class ReservationBody(msgspec.Struct, frozen=True, gc=False):
    """A reservation, as buyers see it."""

    reservation_id: str
    sale_id: str
    items: Items | msgspec.Raw
    status: str
    reserved_until: str


class ReserveCall(NamedTuple):
    """What a reserve decision needs of an HTTP request. Headers that are missing are None.

    `paid`: what it is not asked for again (see USER_PAID and its like).
    """

    user_id: str
    sale_id: str
    idempotency_key: str | None
    content_type: str | None
    body: bytes
    queue_ticket: bytes | None = None
    paid: int = 0


_decoder: Final = msgspec.json.Decoder(ReserveBody)
_encode: Final = msgspec.json.Encoder().encode


async def reserve(front: Front, call: ReserveCall) -> Answer:
    """201 with the reservation, 200 with an earlier one, or a problem. Raises nothing of the engine's."""
    engine = front.engine
    try:
        key = check_key(call.idempotency_key)
        items_text = wanted_items(call.content_type, call.body)
        sale = engine.directory.peek(call.sale_id) or await _look_up(engine, call.sale_id)
        if sale is None:
            return problem(Code.UNKNOWN_SALE)
        now_ms = engine.clock.now_ms()
        # First, because a hopeless request shall cost nothing: no ticket, no share of the pace.
        known = engine.memory.refusal(sale, call.user_id, items_text, now_ms)
        if known is not None:
            return answer_to_refusal(engine, sale, known)
        ticket = await _ticket_number(front, sale, call)
        if ticket != TICKET_MISSING and not call.paid & PACE_PAID:
            _keep_pace(front)
        reservation_id = make_reservation_id(call.sale_id, call.user_id, key)
        request = ReserveRequest(call.user_id, reservation_id, items_text)
        reply = await engine.inventory.reserve(sale.ref, request, ticket)
    except Refusal as refusal:
        return refusal.answer
    except (Overloaded, Unavailable) as error:
        return answer_to_failure(error)
    if lacks_ticket(reply):
        return front.turn_refused(sale, call.queue_ticket, call.user_id)
    return answer_to_reply(engine, sale, items_text, reply)


async def _ticket_number(front: Front, sale: Sale, call: ReserveCall) -> int:
    """The number of a ticket whose turn has come; TICKET_MISSING for one that is genuine and no
    more, or where there is none: an earlier answer may be given again; NO_ROOM. Raises Refusal."""
    room = await front.room_of(sale)
    if room is None:
        return NO_ROOM
    if call.queue_ticket is None and front.replays.admit() == 0.0:
        return TICKET_MISSING
    number = room.check(call.queue_ticket, call.user_id, front.engine.clock.now_ms() / 1000)
    if number == 0:
        raise front.ticket_refused(room, call.queue_ticket, call.user_id)
    return number


def _keep_pace(front: Front) -> None:
    """Raises Refusal when more come than can be stored."""
    if wait_s := front.meter.admit():
        raise Refusal.of(too_fast(front, wait_s))


def too_fast(front: Front, wait_s: float) -> Answer:
    """More would be reserved than can be stored: nobody is let in for so long."""
    front.counts.refused["pace"] += 1
    return problem(Code.OVERLOADED, PACE_EXCEEDED, retry_after_s=wait_s)


def lacks_ticket(reply: Reserved | Refused) -> bool:
    """Whether it is no earlier answer, and a new reservation needs a ticket whose turn has come."""
    return isinstance(reply, Refused) and reply.outcome is Outcome.TICKET_REQUIRED


def answer_to_failure(error: DoorbusterError) -> Answer:
    """Why there is no outcome."""
    if isinstance(error, CircuitOpen):
        return problem(Code.UNAVAILABLE, NOT_ASKED)
    answer = problem_of(error)
    assert answer is not None, error
    return answer


def answer_to_reply(
    engine: Engine, sale: Sale, items_text: str, reply: Reserved | Refused
) -> Answer:
    """The engine's outcome in HTTP's words."""
    if type(reply) is Reserved:
        return _accepted(sale.sale_id, reply, items_text)
    assert isinstance(reply, Refused)
    engine.memory.learnt(sale, reply.outcome)
    return answer_to_refusal(engine, sale, reply.outcome)


async def _look_up(engine: Engine, sale_id: str) -> Sale | None:
    async with reading():
        return await engine.directory.get(sale_id)


def check_key(key: str | None) -> str:
    """The idempotency key, or Refusal."""
    if key is None:
        raise Refusal.of(invalid([FieldError(KEY_HEADER, "is needed")]))
    if not _KEY.fullmatch(key):
        raise Refusal.of(invalid([FieldError(KEY_HEADER, _KEY_RULE)]))
    return key


def wanted_items(content_type: str | None, body: bytes) -> str:
    """The items of a reserve body as canonical text, or Refusal."""
    if not is_json(content_type):
        raise Refusal(Code.INVALID_REQUEST, "Content-Type must be application/json.")
    items = decode(body, _decoder).items
    if len(items) > 1:
        _check_distinct(items)
    return items_to_text(items)


def _check_distinct(items: Items) -> None:
    seen: set[str] = set()
    for position, item in enumerate(items):
        if item.sku in seen:
            again = FieldError(f"items[{position}].sku", "stands there more than once")
            raise Refusal.of(invalid([again]))
        seen.add(item.sku)


def _accepted(sale_id: str, reserved: Reserved, items_text: str) -> Answer:
    name = public_id(sale_id, reserved.reservation_id)
    body = ReservationBody(
        reservation_id=name,
        sale_id=sale_id,
        items=items_json(items_text),
        status=reserved.state.value,
        reserved_until=time_text(reserved.reserved_until_ms),
    )
    location = f"/v1/reservations/{name}"
    if reserved.replayed:
        return Answer(200, _encode(body), REPLAYED, "replayed", location)
    return Answer(201, _encode(body), PERSONAL, "reserved", location)


@lru_cache(maxsize=4096)
def items_json(items_text: str) -> msgspec.Raw:
    """Items as JSON. Most buyers of a sale want the same few things."""
    return msgspec.Raw(_encode(items_from_text(items_text)))


def answer_to_refusal(engine: Engine, sale: Sale, outcome: Outcome) -> Answer:
    """The problem that says why nothing is held."""
    if outcome is Outcome.NOT_STARTED:
        wait_ms = sale.opens_at_ms - engine.clock.now_ms()
        return problem(Code.NOT_STARTED, retry_after_s=wait_ms / 1000)
    if outcome is Outcome.STALE_EPOCH:
        # The stock is of another generation than the copy we know: read the sale anew.
        engine.directory.forget(sale.sale_id)
    return REFUSALS[outcome]
