"""What the handlers of one front process share, and who may call them."""

import re
import secrets
from dataclasses import dataclass
from random import Random
from typing import Final, Self

from aiohttp import web

from api.answers import Answer
from api.bodies import BodyReader
from api.counts import Counts
from api.held import HeldAnswers
from api.oauth.provider import Oidc
from api.problems import TAKE_A_TICKET, Code, Refusal, problem, spread, throttled
from api.sales.shown import ShownSales
from api.spec import Access
from api.tokens import TOKEN_SECONDS, Identity, Role, Tokens
from api.users.browser import Browser, session_of
from api.users.passwords import PasswordVault
from api.users.revocations import Revocations
from engine import metrics
from engine.admission.access import Verdict
from engine.admission.addresses import AddressReader
from engine.admission.limit import AdmissionLimit
from engine.admission.throttle import Throttle, Throttles
from engine.clock import Clock
from engine.core import Engine
from engine.errors import ConfigError, RedisUnavailable
from engine.model import parse_public_id
from engine.payment.provider import Provider
from engine.sales import Sale
from ext import Meter, Room

FORGERY_LOG_SECONDS: Final = 10  # Anyone may forge webhooks; nobody may fill the log with them.

# What a request paid for on the straight path (ext/straight.pyx).
USER_PAID: Final = 1
ADDRESS_PAID: Final = 2
PACE_PAID: Final = 4

# Reserve calls without a ticket that may ask Redis for an earlier answer, of one process: those who
# bought before the room was on, or lost their ticket. A crowd without tickets is refused from memory.
REPLAYS_PER_SECOND: Final = 500.0
REPLAYS_BURST: Final = 100.0

CALLER: Final = web.RequestKey("caller", Identity)
_ROLES_OF: Final = {
    Access.CALLER: frozenset(Role),
    Access.SUPPORT: frozenset({Role.SUPPORT, Role.OPERATOR}),
    Access.OPERATOR: frozenset({Role.OPERATOR}),
}
_BEARER: Final = "Bearer "
_TICKET_FAULTS: Final = {
    "required": TAKE_A_TICKET,
    "forged": "It is no ticket that was given here.",
    "foreign": "It is another sale's or another user's ticket.",
    "expired": "The ticket has expired: take a new one.",
}
_NOT_YET: Final = "Your turn has not come yet."
_SPREAD: Final = frozenset({Code.OVERLOADED.value, Code.UNAVAILABLE.value})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{8,64}")


def fresh_prefix() -> str:
    """What the names of one source of requests begin with."""
    return secrets.token_hex(6)


class RequestIds:
    """Names each request, so that an answer can be found in the log."""

    def __init__(self) -> None:
        self._prefix = fresh_prefix()
        self._count = 0

    def of(self, incoming: str | None) -> str:
        """The caller's own if it is sane, else a fresh one."""
        if incoming is not None and _REQUEST_ID.fullmatch(incoming):
            return incoming
        self._count += 1
        return f"{self._prefix}-{self._count:x}"


@dataclass
class Front:
    """One process's share of the HTTP border. `stopping` makes every answer the last of its connection."""

    engine: Engine
    tokens: Tokens
    revocations: Revocations
    browser: Browser
    oidc: Oidc
    limit: AdmissionLimit
    meter: Meter
    replays: Meter  # of earlier answers, for who has no ticket
    throttles: Throttles
    addresses: AddressReader
    forgery_log_throttle: Throttle
    held: HeldAnswers
    dice: Random
    passwords: PasswordVault
    providers: dict[str, Provider]
    bodies: BodyReader
    shown_sales: ShownSales
    request_ids: RequestIds
    counts: Counts
    stopping: bool = False

    @classmethod
    def of(cls, engine: Engine, providers: dict[str, Provider]) -> Self:
        """Raises ConfigError if there is no secret to verify tokens with."""
        settings = engine.settings
        if settings.secret is None:
            raise ConfigError(["DOORBUSTER_SECRET is not set: tokens cannot be verified."])
        limit = AdmissionLimit.of(settings, engine.clock)
        token_seconds = max(settings.access_token_seconds, TOKEN_SECONDS)
        revocations = Revocations(engine.pool, engine.clock, seconds=token_seconds)
        return cls(
            engine=engine,
            tokens=Tokens(settings.secret, engine.clock, revocations),
            revocations=revocations,
            browser=Browser(settings.secret, settings.public_url),
            oidc=Oidc.of(settings, engine.clock),
            limit=limit,
            meter=engine.meter,
            replays=_replays(engine.clock),
            throttles=Throttles.of(settings, engine.clock),
            addresses=AddressReader.of(settings),
            forgery_log_throttle=Throttle(
                engine.clock, per_second=1 / FORGERY_LOG_SECONDS, burst=1, clients_max=8
            ),
            held=HeldAnswers(settings.shed_hold_seconds),
            dice=Random(),  # noqa: S311  # Spreads returns; hides nothing.
            passwords=PasswordVault(settings.password_threads),
            providers=providers,
            bodies=BodyReader(settings.body_bytes_max, limit),
            shown_sales=ShownSales(engine.directory, engine.live_stock, engine.clock),
            request_ids=RequestIds(),
            counts=Counts(),
        )

    def let_in(self, request: web.BaseRequest, access: Access) -> None:
        """Passes those through whom the route is for. Raises Refusal."""
        if access is Access.VISITOR:
            self._let_visitor_in(request)
            return
        roles = _ROLES_OF.get(access)
        if roles is not None and self.caller(request).role not in roles:
            raise Refusal(Code.FORBIDDEN)

    def _let_visitor_in(self, request: web.BaseRequest) -> None:
        if "Authorization" in request.headers or self._has_good_cookie(request):
            self.caller(request)
            return
        address = self.address(request)
        if not self._is_allowed(None, address, None) and not self.addresses.is_unthrottled(address):
            self._charge("address", self.throttles.address, address)

    def _has_good_cookie(self, request: web.BaseRequest) -> bool:
        """Whether a browser brings a session that goes on; one that is over makes him a guest."""
        session_id, token = session_of(request)
        return session_id is not None and self.tokens.read(token) is not None

    def visitor(self, request: web.BaseRequest) -> Identity | None:
        """Who looks at a route for visitors: a user, or None for anybody."""
        return request.get(CALLER)

    def caller(self, request: web.BaseRequest, sale_id: str | None = None) -> Identity:
        """Who calls, if nothing is against it; asked again, the same at no cost. Raises Refusal."""
        known = request.get(CALLER)
        if known is None:
            authorization = self.browser.authorization(request)
            known = self.caller_by(authorization, self.address(request), sale_id)
            request[CALLER] = known
        return known

    def caller_by(
        self, authorization: str | None, address: str, sale_id: str | None = None, paid: int = 0
    ) -> Identity:
        """As `caller`, by the Authorization header alone. What is `paid` is not asked for again."""
        identity = self.identify(authorization)
        if identity is None:
            raise Refusal(Code.UNAUTHENTICATED)
        self._admit(identity.user_id, address, sale_id, paid)
        return identity

    def address(self, request: web.BaseRequest) -> str:
        """Where the request comes from, by what trusted proxies say."""
        said = (_all_of(request, name) for name in ("Forwarded", "X-Forwarded-For"))
        return self.addresses.client(request.remote or "", *said)

    def _admit(self, user_id: str, address: str, sale_id: str | None, paid: int) -> None:
        if self._is_allowed(user_id, address, sale_id):
            return
        if not paid & USER_PAID:
            self._charge("user", self.throttles.user, user_id)
        if not paid & ADDRESS_PAID and not self.addresses.is_unthrottled(address):
            self._charge("address", self.throttles.address, address)

    def _is_allowed(self, user_id: str | None, address: str, sale_id: str | None) -> bool:
        """Whether the operator lets the client in past every rate. Raises Refusal where not at all."""
        access = self.engine.access
        verdict = None if access.is_empty else access.verdict(user_id, address, sale_id)
        if verdict is Verdict.DENY:
            self.counts.refused["denied"] += 1
            raise Refusal(Code.FORBIDDEN, "The operator lets this client in no more.")
        return verdict is Verdict.ALLOW

    def _charge(self, kind: str, throttle: Throttle, client: str) -> None:
        if wait_s := throttle.admit(client):
            self.counts.refused[f"throttled_{kind}"] += 1
            raise Refusal.of(throttled(wait_s, throttle.policy, throttle.standing(client)))

    def identify(self, authorization: str | None) -> Identity | None:
        """Whose token an Authorization header carries."""
        if authorization is None:
            return None
        if authorization.startswith(_BEARER):
            return self.tokens.read(authorization[len(_BEARER) :])
        scheme, _, token = authorization.partition(" ")
        return self.tokens.read(token.strip()) if scheme.lower() == "bearer" else None

    def admit_anonymous(self, request: web.BaseRequest) -> None:
        """Lets a caller without a token in, at the rate of its address. Raises Refusal."""
        address = self.address(request)
        if not self._is_allowed(None, address, None):
            self._charge("anonymous", self.throttles.anonymous, address)

    def admit_login(self, email: str) -> None:
        """Lets a password be tried, at the account's rate, whoever tries. Raises Refusal."""
        self._charge("account", self.throttles.account, email.lower())

    async def room_of(self, sale: Sale) -> Room | None:
        """The sale's waiting room; None if it has none that is on. Raises Unavailable."""
        if sale.room is None or not sale.room.on:
            return None
        room = self.engine.rooms.peek(sale) or await self.engine.rooms.follow(sale)
        if room is None:  # It is furnished soon, or again. Taken for none, all would pass.
            raise RedisUnavailable(f"Redis does not know the waiting room of {sale.sale_id}.")
        return room if room.on else None  # The look is newer than the copy of the sale.

    def ticket_refused(self, room: Room, ticket: bytes | None, user_id: str) -> Refusal:
        """Why a queue ticket does not help."""
        code = Code.TICKET_REQUIRED if ticket is None else Code.TICKET_INVALID
        why = room.why(ticket, user_id, self.engine.clock.now_ms() / 1000)
        self.counts.refused[code.value] += 1
        return Refusal(code, _TICKET_FAULTS.get(why, ""))

    def turn_refused(self, sale: Sale, ticket: bytes | None, user_id: str) -> Answer:
        """What Redis would not take: a call that needs a ticket whose turn has come."""
        room = self.engine.rooms.peek(sale)
        why = "required" if ticket is None else ""
        if room is not None and ticket is not None:
            why = room.why(ticket, user_id, self.engine.clock.now_ms() / 1000)
        self.counts.refused[Code.TICKET_REQUIRED.value] += 1
        return problem(Code.TICKET_REQUIRED, _TICKET_FAULTS.get(why, _NOT_YET))

    def count_shed(self) -> None:
        """A request was refused before anything was looked at: too many are in work."""
        self.counts.shed["in_flight"] += 1
        self.counts.refused["limit"] += 1

    def flush(self) -> None:
        """Hands what was counted, and what is going on, to the metrics."""
        self.counts.flush()
        metrics.limit.set(self.limit.limit)
        metrics.in_flight.set(self.limit.in_flight)

    def spread(self, answer: Answer) -> Answer:
        """The answer as it goes out: those shed together are not told to return together."""
        return spread(answer, self.dice) if answer.label in _SPREAD else answer


def _replays(clock: Clock) -> Meter:
    meter = Meter(clock)
    meter.set_rate(REPLAYS_PER_SECOND, REPLAYS_BURST)
    return meter


def _all_of(request: web.BaseRequest, name: str) -> str | None:
    """A list header, in one line however many it came in (RFC 9110 §5.3)."""
    lines = request.headers.getall(name, ())
    return ", ".join(lines) if lines else None


def ticket_of(request: web.BaseRequest) -> bytes | None:
    """The queue ticket that was sent, as it came."""
    text = request.headers.get("Queue-Ticket")
    return None if text is None else text.encode("utf-8", "surrogateescape")


def order_ids(request: web.Request, name: str) -> tuple[str, str]:
    """(sale_id, reservation_id) of a public id in the path. Raises Refusal."""
    return ids_in(request.match_info[name])


def ids_in(text: str) -> tuple[str, str]:
    """(sale_id, reservation_id) of a public id. Raises Refusal."""
    ids = parse_public_id(text)
    if ids is None:
        raise Refusal(Code.NOT_FOUND)
    return ids
