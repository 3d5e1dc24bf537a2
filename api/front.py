"""What the handlers of one front process share, and who may call them."""

import re
import secrets
from dataclasses import dataclass
from typing import Final, Self

from aiohttp import web

from api.bodies import BodyReader
from api.counts import Counts
from api.problems import Code, Refusal
from api.sales.shown import ShownSales
from api.tokens import Identity, Role, Tokens
from api.users.passwords import PasswordVault
from engine.admission import InFlightLimit, Throttle
from engine.core import Engine
from engine.errors import ConfigError
from engine.model import parse_public_id
from engine.payment.provider import Provider

FORGERY_LOG_SECONDS: Final = 10  # Anyone may forge webhooks; nobody may fill the log with them.

_BEARER: Final = "Bearer "
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
    in_flight: InFlightLimit
    throttle: Throttle
    anonymous_throttle: Throttle
    forgery_log_throttle: Throttle
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
        in_flight = InFlightLimit(settings.in_flight_max)
        return cls(
            engine=engine,
            tokens=Tokens(settings.secret, engine.clock),
            in_flight=in_flight,
            throttle=Throttle(
                engine.clock,
                per_second=settings.throttle_per_second,
                burst=settings.throttle_burst,
            ),
            anonymous_throttle=Throttle(
                engine.clock,
                per_second=settings.anonymous_per_second,
                burst=settings.anonymous_burst,
            ),
            forgery_log_throttle=Throttle(
                engine.clock, per_second=1 / FORGERY_LOG_SECONDS, burst=1
            ),
            passwords=PasswordVault(settings.password_threads),
            providers=providers,
            bodies=BodyReader(settings.body_bytes_max, in_flight),
            shown_sales=ShownSales(engine.directory, engine.live_stock, engine.clock),
            request_ids=RequestIds(),
            counts=Counts(),
        )

    def caller(self, request: web.BaseRequest) -> Identity:
        """Who calls, within the caller's rate. Raises Refusal."""
        return self.caller_by(request.headers.get("Authorization"))

    def caller_by(self, authorization: str | None) -> Identity:
        """As `caller`, by the Authorization header alone."""
        identity = self.identify(authorization)
        if identity is None:
            raise Refusal(Code.UNAUTHENTICATED)
        if wait_s := self.throttle.admit(identity.user_id):
            raise Refusal(Code.THROTTLED, retry_after_s=wait_s)
        return identity

    def operator(self, request: web.BaseRequest) -> Identity:
        """The caller, who must be an operator. Raises Refusal."""
        identity = self.caller(request)
        if identity.role is not Role.OPERATOR:
            raise Refusal(Code.FORBIDDEN)
        return identity

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
        if wait_s := self.anonymous_throttle.admit(request.remote or ""):
            raise Refusal(Code.THROTTLED, retry_after_s=wait_s)


def order_ids(request: web.Request, name: str) -> tuple[str, str]:
    """(sale_id, reservation_id) of a public id in the path. Raises Refusal."""
    return ids_in(request.match_info[name])


def ids_in(text: str) -> tuple[str, str]:
    """(sale_id, reservation_id) of a public id. Raises Refusal."""
    ids = parse_public_id(text)
    if ids is None:
        raise Refusal(Code.NOT_FOUND)
    return ids
