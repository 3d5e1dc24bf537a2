"""Asks others about a visitor before a ticket is given: a risk service, and a captcha's `siteverify`.

Says what they said. Decides only what their silence means; the rest is the caller's.
"""

import logging
from enum import StrEnum
from typing import Final, NoReturn, TypeVar
from urllib.parse import urlencode

import msgspec

from api.problems import Code, Refusal
from engine.admission.breaker import Breaker
from engine.errors import CircuitOpen, ProviderUnavailable, Unavailable
from engine.payment.http import HttpClient, HttpReply

logger = logging.getLogger(__name__)

CONNECTIONS_MAX: Final = 64  # Per service and process: what one that answers in 50 ms can use.
CAPTCHA_CHARACTERS_MAX: Final = 4096  # The longest tokens of today's services have about 2,000.

_FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}

Said = TypeVar("Said")


class RiskVerdict(StrEnum):
    """What the risk service says of a visitor."""

    ALLOW = "allow"
    CHALLENGE = "challenge"  # Let in whoever brings a proof of work.
    DENY = "deny"


class Visitor(msgspec.Struct, frozen=True):
    """What the risk service is told."""

    sale_id: str
    user_id: str
    address: str
    user_agent: str


class _RiskReply(msgspec.Struct, frozen=True):
    verdict: RiskVerdict


class _CaptchaReply(msgspec.Struct, frozen=True):
    success: bool


_risk_decoder: Final = msgspec.json.Decoder(_RiskReply)
_captcha_decoder: Final = msgspec.json.Decoder(_CaptchaReply)


class RiskService:
    """A service that knows visitors. Without a URL it has nothing against anybody."""

    def __init__(
        self, http: HttpClient, breaker: Breaker, *, url: str | None, required: bool
    ) -> None:
        self._http = http
        self._breaker = breaker
        self._url = url
        self._required = required

    @property
    def is_set(self) -> bool:
        return self._url is not None

    async def judge(self, visitor: Visitor) -> RiskVerdict:
        """ALLOW while it does not answer; Refusal instead where an answer is required."""
        if self._url is None:
            return RiskVerdict.ALLOW
        try:
            with self._breaker.guarding():
                reply = await self._http.post(self._url, msgspec.json.encode(visitor), {})
                return _read(reply, _risk_decoder).verdict
        except Unavailable as error:
            _tell("risk service", error)
            if self._required:
                _refuse("risk service", error)
            return RiskVerdict.ALLOW


class CaptchaService:
    """A captcha of the `siteverify` kind (hCaptcha, reCAPTCHA, Turnstile and their like)."""

    def __init__(
        self,
        http: HttpClient,
        breaker: Breaker,
        *,
        url: str | None,
        secret: str | None,
        required: bool,
    ) -> None:
        self._http = http
        self._breaker = breaker
        self._url = url
        self._secret = secret or ""
        self._required = required

    async def passes(self, response: str, address: str) -> bool:
        """Whether a person solved it. While it does not answer: as `RiskService.judge`."""
        form = {"secret": self._secret, "response": response}
        if address and "/" not in address:  # A whole network is no address to compare.
            form["remoteip"] = address
        try:
            if self._url is None:
                raise ProviderUnavailable("DOORBUSTER_CAPTCHA_URL is not set.")
            with self._breaker.guarding():
                reply = await self._http.post(self._url, urlencode(form).encode(), _FORM)
                return _read(reply, _captcha_decoder).success
        except Unavailable as error:
            _tell("captcha", error)
            if self._required:
                _refuse("captcha", error)
            return True


def _read(reply: HttpReply, decoder: msgspec.json.Decoder[Said]) -> Said:
    """The answer; ProviderUnavailable if it is none: such a service is as good as away."""
    if reply.status != 200:
        raise ProviderUnavailable(f"It answered with status {reply.status}.")
    try:
        return decoder.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProviderUnavailable(f"Its answer makes no sense: {error}") from error


def _tell(name: str, error: Unavailable) -> None:
    # Failures are few: the breaker opens after some, and what it refuses is not told again.
    if not isinstance(error, CircuitOpen):
        logger.warning("The %s fails: %s", name, error, extra={"action": "screening_failed"})


def _refuse(name: str, error: Unavailable) -> NoReturn:
    detail = f"The {name} does not answer. Nothing was done; try again."
    raise Refusal(Code.UNAVAILABLE, detail) from error
