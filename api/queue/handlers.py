"""The door of a sale's waiting room: a ticket, a challenge to earn it with, and the draw's proof.

Entering and the challenge take strings and bytes, so that both the gate and aiohttp share them. Leaves polling to `polls`, which is hot, and the order of visitors to the engine's rooms.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from math import inf
from random import SystemRandom
from typing import Final, NamedTuple, Self

import msgspec
from aiohttp import web
from multidict import istr

from api.answers import PERSONAL, Answer, personal, public, time_text
from api.bodies import PLACE, Place, decode, is_json
from api.front import Front, ticket_of
from api.http_client import AioHttpClient
from api.patience import reading
from api.problems import Code, FieldError, Refusal, invalid, problem
from api.queue import specs
from api.queue.bodies import DRAW_METHOD, EnterBody, OpenBody, ProofBody
from api.queue.challenges import EARLY_SECONDS, Challenges, ProofFault
from api.queue.polls import POLL
from api.queue.screening import (
    CONNECTIONS_MAX,
    CaptchaService,
    RiskService,
    RiskVerdict,
    Visitor,
)
from api.routing import Route
from api.spec import Access
from engine import metrics
from engine.admission.access import Verdict
from engine.admission.breaker import Breaker
from engine.admission.room.settings import RoomOrder, RoomSettings
from engine.admission.room.store import Entered, EnterRefused, EnterWord, Proof
from engine.core import Engine
from engine.errors import RedisUnavailable, UnknownSale
from engine.model import SaleState
from engine.sales import Sale
from ext import Room

ENTER: Final = POLL  # With POST.
CHALLENGE: Final = f"{POLL}/challenge"
QUEUE_TICKET: Final = istr("Queue-Ticket")
USER_AGENT_MAX: Final = 512  # Characters that the risk service is told.
FULL_SECONDS: Final = 600  # Sixteen million numbers are given: it does not get better soon.

_TOO_EARLY: Final = "The room gives no tickets yet."
_WANTS_PROOF: Final = "is needed: solve what GET …/queue/challenge gives"

_decoder: Final = msgspec.json.Decoder(EnterBody)


class EnterCall(NamedTuple):
    """What entering takes of an HTTP request. Headers that are missing are None.

    `place` is the request's among those in work; waiting for others leaves it meanwhile.
    """

    visitor: Visitor
    queue_ticket: bytes | None
    content_type: str | None
    body: bytes
    place: Place


class Visit(NamedTuple):
    """One call at the door."""

    front: Front
    call: EnterCall
    settings: RoomSettings
    body: EnterBody


class Entrance:
    """One front process's door to the waiting rooms of all sales. Its owner closes it."""

    def __init__(
        self,
        challenges: Challenges,
        risk: RiskService,
        captcha: CaptchaService,
        http: AioHttpClient,
    ) -> None:
        self._challenges = challenges
        self._risk = risk
        self._captcha = captcha
        self.close = http.close

    @classmethod
    def of(cls, engine: Engine) -> Self:
        settings, clock = engine.settings, engine.clock
        assert settings.secret is not None, "Front.of refuses to go on without it"
        required = settings.risk_required
        http = AioHttpClient(
            connections_max=CONNECTIONS_MAX, timeout_seconds=settings.risk_seconds_max
        )
        risk = RiskService(
            http, Breaker("risk", clock, SystemRandom()), url=settings.risk_url, required=required
        )
        captcha = CaptchaService(
            http,
            Breaker("captcha", clock, SystemRandom()),
            url=settings.captcha_url,
            secret=settings.captcha_secret,
            required=required,
        )
        return cls(Challenges(settings.secret, clock), risk, captcha, http)

    @property
    def routes(self) -> tuple[Route, ...]:
        return (
            Route("POST", ENTER, self._enter, access=Access.SELF, spec=specs.ENTER),
            Route("GET", CHALLENGE, self._challenge, access=Access.SELF, spec=specs.CHALLENGE),
            Route("GET", f"{POLL}/proof", show_proof, access=Access.PUBLIC, spec=specs.PROOF),
        )

    async def enter(self, front: Front, call: EnterCall) -> Answer:
        """201 with a ticket, or 200 with the number of an earlier one; says what a poll says.

        Raises Refusal, Unavailable.
        """
        visitor, body = call.visitor, _body_of(call)
        sale = await _sale(front, visitor.sale_id)
        room = await _room_to_enter(front, sale)
        if room is None:
            return _no_room(front, sale)
        held = _Held.of(front, call)
        proof = None
        if not held.is_good and not _is_trusted(front, visitor):
            proof = await self._screen(Visit(front, call, _settings(sale), body))
        async with _in_time(front):
            entered = await _entered(front, room, visitor.user_id, held, proof)
        if isinstance(entered, EnterRefused):
            return _refused(front, sale, entered.reason)
        return _given(front, room, visitor.user_id, entered, held)

    async def challenge(self, front: Front, sale_id: str, user_id: str) -> Answer:
        """A proof of work to do, for this caller and sale alone; 425 long before the room opens.

        Raises Refusal, Unavailable.
        """
        sale = await _sale(front, sale_id)
        now_ms = front.engine.clock.now_ms()
        wait_ms = _tickets_from_ms(sale) - EARLY_SECONDS * 1000 - now_ms
        if wait_ms > 0:
            return problem(Code.NOT_STARTED, _TOO_EARLY, retry_after_s=wait_ms / 1000)
        _check_not_over(sale, now_ms)
        made = self._challenges.make(
            sale.sale_id,
            user_id,
            difficulty=_settings(sale).proof_difficulty,
            counts_from_ms=_tickets_from_ms(sale),
        )
        return personal(made)

    async def _enter(self, front: Front, request: web.Request) -> Answer:
        sale_id = request.match_info["sale"]
        user_id = front.caller(request, sale_id).user_id
        headers = request.headers
        visitor = visitor_of(sale_id, user_id, front.address(request), headers.get("User-Agent"))
        body = await front.bodies.raw(request)
        content_type = headers.get("Content-Type")
        call = EnterCall(visitor, ticket_of(request), content_type, body, request[PLACE])
        return await self.enter(front, call)

    async def _challenge(self, front: Front, request: web.Request) -> Answer:
        sale_id = request.match_info["sale"]
        return await self.challenge(front, sale_id, front.caller(request, sale_id).user_id)

    async def _screen(self, visit: Visit) -> Proof | None:
        """The proof of work that this visitor brings, if any. Raises Refusal if something is missing."""
        settings = visit.settings
        proof = self._proof_in(visit)  # Cheap: before others are asked.
        if proof is None and settings.proof_difficulty:
            raise _unfit(visit.front, "altcha", _WANTS_PROOF)
        if settings.captcha and visit.body.captcha is None:
            raise _unfit(visit.front, "captcha", "is needed")
        if self._risk.is_set or settings.captcha:
            with _waiting(visit):
                await self._ask(visit, has_proof=proof is not None)
        return proof

    def _proof_in(self, visit: Visit) -> Proof | None:
        text, visitor = visit.body.altcha, visit.call.visitor
        if text is None:
            return None
        found = self._challenges.verify(text, visitor.sale_id, visitor.user_id)
        if isinstance(found, ProofFault):
            raise _unfit(visit.front, "altcha", found.value)
        return found

    async def _ask(self, visit: Visit, *, has_proof: bool) -> None:
        """Asks those who know visitors better. Raises Refusal if they are against this one."""
        front, captcha, visitor = visit.front, visit.body.captcha, visit.call.visitor
        verdict = await self._risk.judge(visitor)
        if verdict is RiskVerdict.DENY:
            front.counts.refused["risk"] += 1
            raise Refusal(Code.FORBIDDEN, "This shop does not let you in.")
        if verdict is RiskVerdict.CHALLENGE and not has_proof:
            raise _unfit(front, "altcha", _WANTS_PROOF)
        if not visit.settings.captcha or captcha is None:
            return
        if not await self._captcha.passes(captcha, visitor.address):
            raise _unfit(front, "captcha", "was not passed: solve a new one")


async def show_proof(front: Front, request: web.Request) -> Answer:
    """What anyone needs to recompute the draw; with a ticket, also its number and place."""
    sale = await _sale(front, request.match_info["sale"])
    engine, settings = front.engine, _settings(sale)
    # Anyone may ask: only a room that may have had a draw takes a place among those followed.
    room = await engine.rooms.follow(sale) if settings.on or _is_drawn(settings) else None
    look = None if room is None else room.look
    ticket = engine.rooms.tickets.read(ticket_of(request))
    number = ticket.number if ticket is not None and ticket.sale_id == sale.sale_id else None
    proof = ProofBody(
        sale_id=sale.sale_id,
        order=settings.order.value,
        method=DRAW_METHOD,
        seed_hash=settings.seed_hash,
        opens_at=time_text(sale.opens_at_ms),
        server_time=time_text(engine.clock.now_ms()),
        drawn=None if look is None else look.drawn,
        seed=None if look is None else look.seed,
        number=number,
        place=None if room is None or number is None else room.place_of(number),
    )
    return public(proof) if number is None else personal(proof)


def visitor_of(sale_id: str, user_id: str, address: str, user_agent: str | None) -> Visitor:
    """Who is at the door, as the risk service is told. A header may hold any bytes; JSON may not."""
    told = (user_agent or "").encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return Visitor(sale_id, user_id, address, told[:USER_AGENT_MAX])


def _body_of(call: EnterCall) -> EnterBody:
    """What came along; no body at all will do. Raises Refusal."""
    if not call.body:
        return EnterBody()
    if not is_json(call.content_type):
        raise Refusal(Code.INVALID_REQUEST, "Content-Type must be application/json.")
    return decode(call.body, _decoder)


async def _sale(front: Front, sale_id: str) -> Sale:
    sale = front.engine.directory.peek(sale_id)
    if sale is None:
        async with reading():
            sale = await front.engine.directory.get(sale_id)
    if sale is None:
        raise UnknownSale
    return sale


def _settings(sale: Sale) -> RoomSettings:
    return sale.room or RoomSettings()


def _tickets_from_ms(sale: Sale) -> int:
    return sale.opens_at_ms - _settings(sale).prequeue_seconds * 1000


def _is_trusted(front: Front, visitor: Visitor) -> bool:
    """Whether operators let this visitor in past all checks."""
    verdict = front.engine.access.verdict(visitor.user_id, visitor.address, visitor.sale_id)
    return verdict is Verdict.ALLOW


@contextmanager
def _waiting(visit: Visit) -> Iterator[None]:
    """Waiting for others is no work of ours: it takes no place, and says nothing of our load."""
    place = visit.call.place
    place.measured = False
    with visit.front.limit.stepped_out(place.priority):
        yield


async def _room_to_enter(front: Front, sale: Sale) -> Room | None:
    """The room, if there is one and it gives tickets now; None if there is none. Raises Refusal."""
    if not _settings(sale).on:
        return None
    now_ms = front.engine.clock.now_ms()
    _check_not_over(sale, now_ms)
    wait_ms = _tickets_from_ms(sale) - now_ms
    if wait_ms > 0:
        raise Refusal(Code.NOT_STARTED, _TOO_EARLY, retry_after_s=wait_ms / 1000)
    async with _in_time(front):
        room = await front.engine.rooms.follow(sale)
    if room is None:  # Letting people pass would help nobody: reserving asks for tickets.
        raise Refusal(Code.UNAVAILABLE, "The room is being set up. Nothing was done; try again.")
    return room


@asynccontextmanager
async def _in_time(front: Front) -> AsyncIterator[None]:
    """Nobody waits for Redis longer than a reserve call would. Entering again is harmless."""
    try:
        async with asyncio.timeout(front.engine.settings.deadline_seconds):
            yield
    except TimeoutError as error:
        raise RedisUnavailable("Redis took too long to let somebody into a room.") from error


def _is_drawn(settings: RoomSettings) -> bool:
    return settings.order is RoomOrder.DRAW


def _check_not_over(sale: Sale, now_ms: int) -> None:
    if now_ms >= sale.closes_at_ms or sale.state is SaleState.CLOSED:
        raise Refusal(Code.SALE_ENDED)


class _Held(NamedTuple):
    """What came along of an older ticket: genuine and this visitor's, or nothing."""

    is_good: bool = False
    number: int = 0  # of a ticket that is good, or of an admission that is over
    until_s: float = inf  # an admission's end

    @classmethod
    def of(cls, front: Front, call: EnterCall) -> Self:
        visitor, ticket = call.visitor, front.engine.rooms.tickets.read(call.queue_ticket)
        if ticket is None or (ticket.sale_id, ticket.user_id) != (
            visitor.sale_id,
            visitor.user_id,
        ):
            return cls()
        is_good = ticket.expires_s * 1000 > front.engine.clock.now_ms()
        if not is_good and not ticket.admitted:
            return cls()
        return cls(is_good, ticket.number, ticket.expires_s if ticket.admitted else inf)


async def _entered(
    front: Front, room: Room, user_id: str, held: _Held, proof: Proof | None
) -> Entered | EnterRefused:
    """A number. Who let the time to reserve pass goes to the back: his right does not last for ever."""
    store, clock = front.engine.rooms.store, front.engine.clock
    entered = await store.enter(
        room.sale_id, user_id, holds_ticket=held.is_good, number=held.number, proof=proof
    )
    if isinstance(entered, EnterRefused) or held.is_good:
        return entered
    if not entered.kept or not room.has_lapsed(entered.number, clock.now_ms() / 1000):
        return entered
    return await store.enter(
        room.sale_id, user_id, holds_ticket=False, number=entered.number, proof=proof
    )


def _given(front: Front, room: Room, user_id: str, entered: Entered, held: _Held) -> Answer:
    metrics.queue_tickets.labels("kept" if entered.kept else "given").inc()
    until_s = held.until_s if entered.number == held.number else inf
    now_s = front.engine.clock.now_ms() / 1000
    ticket, body = room.issue(user_id, entered.number, now_s, until_s)
    headers = (*PERSONAL, (QUEUE_TICKET, ticket.decode()))
    return Answer(200 if entered.kept else 201, body, headers)


def _refused(front: Front, sale: Sale, word: EnterWord) -> Answer:
    """Redis knows better than our copies of the sale and its room."""
    match word:
        case EnterWord.ROOM_OFF:
            return _no_room(front, sale)
        case EnterWord.TOO_EARLY:
            wait_ms = _tickets_from_ms(sale) - front.engine.clock.now_ms()
            return problem(Code.NOT_STARTED, _TOO_EARLY, retry_after_s=wait_ms / 1000)
        case EnterWord.ENDED:
            return problem(Code.SALE_ENDED)
        case EnterWord.PROOF_USED:
            raise _unfit(front, "altcha", "was used before: solve a new challenge")
        case EnterWord.FULL:
            return problem(Code.OVERLOADED, "The room is full.", retry_after_s=FULL_SECONDS)


def _no_room(front: Front, sale: Sale) -> Answer:
    return personal(OpenBody.at(sale.sale_id, front.engine.clock.now_ms()))


def _unfit(front: Front, field: str, complaint: str) -> Refusal:
    front.counts.refused[field] += 1
    return Refusal.of(invalid([FieldError(field, complaint)]))
