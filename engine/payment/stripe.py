"""Stripe: payment intents over form-encoded HTTP, refunds, webhooks, balance transactions.

What its objects say is `stripe_objects`; signatures are `stripe_signing`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from engine.clock import Clock
from engine.config import Settings, StripeCapture
from engine.errors import ProviderUnavailable
from engine.payment.amounts import stripe_amount
from engine.payment.http import HttpClient, HttpReply
from engine.payment.keys import is_configured
from engine.payment.provider import (
    Acknowledgement,
    ActionKind,
    Charge,
    ChargeStatus,
    Offer,
    PaymentRequest,
    ProviderRefused,
    ProviderResult,
    StatementLine,
    StatementUnreadable,
    WebhookEvent,
    WebhookRefused,
)
from engine.payment.shop_url import shop_url
from engine.payment.stripe_objects import (
    PAYMENT_ID,
    event_of,
    intent_result,
    is_paid_back,
    line_of,
    refund_result,
)
from engine.payment.stripe_signing import HEADER, is_genuine

NAME: Final = "stripe"
API: Final = "https://api.stripe.com"
VERSION: Final = "2024-06-20"  # Pinned: what answers look like is decided here, not by an account.
NEEDED: Final = ("stripe_secret_key", "stripe_webhook_secrets")
CURRENCIES: Final = frozenset(
    [
        "AUD",
        "BRL",
        "CAD",
        "CHF",
        "CNY",
        "CZK",
        "DKK",
        "EUR",
        "GBP",
        "HKD",
        "HUF",
        "INR",
        "ISK",
        "JPY",
        "KRW",
        "MXN",
        "MYR",
        "NOK",
        "NZD",
        "PHP",
        "PLN",
        "RON",
        "SEK",
        "SGD",
        "THB",
        "TWD",
        "USD",
        "ZAR",
    ]
)
# A search sees what was made "under a minute" ago (docs.stripe.com/search), and what is not found
# before that may be there.
SEARCHABLE_MS: Final = 300_000
PAGE_MAX: Final = 100  # Stripe's own.
PAGES_MAX: Final = 5000  # Of one day: half a million movements.
OTHER_WISH: Final = "idempotency_error"  # The key was used with other parameters.
PAID_BACK_BEFORE: Final = "charge_already_refunded"
# Faults of Stripe's, of our key, or a wish for patience: they say nothing of the charge.
AWAY: Final = frozenset({401, 403, 408, 409, 425, 429})


class Account(NamedTuple):
    """Who we are to Stripe."""

    secret_key: str
    webhook_secrets: tuple[str, ...]
    publishable_key: str | None = None
    capture: StripeCapture = StripeCapture.AUTOMATIC

    @property
    def is_live(self) -> bool:
        """Whether real money moves: then what is told of Stripe's test mode pays nothing."""
        return self.secret_key.startswith(("sk_live_", "rk_live_"))


class Said(NamedTuple):
    """An answer: what was asked for, or an error."""

    status: int
    body: dict[str, Any]

    @property
    def error(self) -> dict[str, Any]:
        return self.body.get("error") or {}


class Stripe:
    """Implements `provider.Provider`. `shop` is where this shop is reached."""

    name = NAME
    offer = Offer(CURRENCIES, (ActionKind.CLIENT_SECRET, ActionKind.REDIRECT))
    acknowledgement = Acknowledgement(b'{"received":true}', "application/json")
    bill_offset_hours = 0

    def __init__(
        self, http: HttpClient, clock: Clock, account: Account, *, shop: str, url: str = API
    ) -> None:
        self._http = http
        self._clock = clock
        self._account = account
        self._shop = shop
        self._root = url.rstrip("/")

    async def create(self, request: PaymentRequest) -> ProviderResult:
        """A payment intent; with the option `payment_method` confirmed at once."""
        said = await self._post(
            "/v1/payment_intents", self._wish(request), f"create:{request.payment_id}"
        )
        if said.error.get("type") == OTHER_WISH:
            # An earlier try was heard there, with settings that have changed since: it may have charged.
            return await self.query(_charge(request, self._clock.now_ms()))
        declined = said.error.get("payment_intent")
        if said.status == 402 and declined:
            reason = said.error.get("decline_code") or said.error.get("code")
            return ProviderResult(
                request.payment_id,
                ChargeStatus.FAILED,
                provider_ref=declined.get("id"),
                detail=str(reason),
            )
        return self._result(_accept(said), request.payment_id)

    async def query(self, charge: Charge) -> ProviderResult:
        intent = await self._find(charge)
        if intent is None:
            return self._not_found(charge)
        if is_paid_back(intent):
            refund = await self._refund_of(charge.payment_id, intent["id"])
            if refund is not None and refund.status is ChargeStatus.REFUNDED:
                return refund
        return self._result(intent, charge.payment_id)

    async def capture(self, charge: Charge) -> ProviderResult:
        return await self._move(charge, "capture")

    async def cancel(self, charge: Charge) -> ProviderResult:
        return await self._move(charge, "cancel")

    async def refund(self, charge: Charge) -> ProviderResult:
        """All that was paid. One that came to nothing is not tried again: that is for a person.

        Without an Idempotency-Key, whose first answer would be repeated, be it a failure of Stripe's:
        it never pays back more than was paid.
        """
        intent = await self._find(charge)
        if intent is None:
            return self._not_found(charge)
        if intent.get("status") != "succeeded":
            return self._result(intent, charge.payment_id)
        refund = await self._refund_of(charge.payment_id, intent["id"])
        if is_paid_back(intent):
            return refund or ProviderResult(charge.payment_id, ChargeStatus.PENDING)
        if refund is not None and refund.status is ChargeStatus.FAILED:
            return refund
        wish = {"payment_intent": intent["id"], f"metadata[{PAYMENT_ID}]": charge.payment_id}
        said = await self._post("/v1/refunds", wish)
        if said.error.get("code") == PAID_BACK_BEFORE:
            return ProviderResult(charge.payment_id, ChargeStatus.PENDING)
        return _read(lambda: refund_result(_accept(said), charge.payment_id))

    async def parse_webhook(
        self, headers: Mapping[str, str], body: bytes, now_ms: int
    ) -> WebhookEvent:
        secrets = self._account.webhook_secrets
        if not is_genuine(headers.get(HEADER, ""), secrets, body, now_ms):
            raise WebhookRefused("Stripe: the signature does not fit, or is too old.")
        return self.read_event(body)

    def read_event(self, body: bytes) -> WebhookEvent:
        try:
            event = json.loads(body)
            told = event_of(event, self._account.publishable_key)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WebhookRefused(f"Stripe: the event makes no sense: {error}") from error
        is_practice = event.get("livemode") is False and self._account.is_live
        return WebhookEvent(told.event_id, None) if is_practice else told

    async def statement(self, day: date) -> Sequence[StatementLine]:
        begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
        window = {
            "created[gte]": str(int(begin.timestamp())),
            "created[lt]": str(int((begin + timedelta(days=1)).timestamp())),
            "limit": str(PAGE_MAX),
            "expand[]": "data.source",
        }
        lines: list[StatementLine] = []
        for _ in range(PAGES_MAX):
            page = _accept(await self._get("/v1/balance_transactions", window))
            lines += read_page(page)
            if not page.get("has_more"):
                return lines
            window["starting_after"] = str(page["data"][-1]["id"])
        raise StatementUnreadable(f"Stripe's statement of {day} has no end in sight.")

    def _wish(self, request: PaymentRequest) -> dict[str, str]:
        capture = request.options.get("capture_method", self._account.capture.value)
        if not isinstance(capture, str) or capture not in set(StripeCapture):
            raise ProviderRefused("options.capture_method must be automatic or manual.")
        wish = {
            "amount": str(stripe_amount(request.amount_minor, request.currency)),
            "currency": request.currency.lower(),
            "capture_method": str(capture),
            "description": request.description,
            f"metadata[{PAYMENT_ID}]": request.payment_id,
            "automatic_payment_methods[enabled]": "true",
        }
        method = request.options.get("payment_method")
        if method is not None:
            wish |= {
                "payment_method": str(method),
                "confirm": "true",
                "return_url": self._shop + (request.return_path or "/"),
            }
        return {name: text for name, text in wish.items() if text}

    async def _move(self, charge: Charge, verb: str) -> ProviderResult:
        """Captures or cancels; where the state does not allow it, a query tells the state."""
        intent = await self._find(charge)
        if intent is None:
            return self._not_found(charge)
        # Without an Idempotency-Key: the state decides, and a refusal of an earlier one is stale.
        said = await self._post(f"/v1/payment_intents/{_segment(intent['id'])}/{verb}", {})
        if said.status != 200:
            return await self.query(charge)
        return self._result(said.body, charge.payment_id)

    async def _find(self, charge: Charge) -> dict[str, Any] | None:
        """The intent with its charge. By our own name only where Stripe's was never heard."""
        ref = charge.provider_ref or await self._search(charge)
        if ref is None:
            return None
        path = f"/v1/payment_intents/{_segment(ref)}"
        return _accept(await self._get(path, {"expand[]": "latest_charge"}))

    async def _search(self, charge: Charge) -> str | None:
        wish = {"query": f"metadata['{PAYMENT_ID}']:'{charge.payment_id}'"}
        found = _accept(await self._get("/v1/payment_intents/search", wish)).get("data") or []
        return str(found[0]["id"]) if found else None

    def _not_found(self, charge: Charge) -> ProviderResult:
        """Pending while a search may not know of it yet. No failure: Stripe did answer."""
        is_new = self._clock.now_ms() < charge.created_at_ms + SEARCHABLE_MS
        status = ChargeStatus.PENDING if is_new else ChargeStatus.UNKNOWN
        return ProviderResult(charge.payment_id, status)

    async def _refund_of(self, payment_id: str, intent_id: str) -> ProviderResult | None:
        """The least certain word on the refunds of an intent; FAILED where no other was made."""
        wish = {"payment_intent": intent_id, "limit": str(PAGE_MAX)}
        refunds = _accept(await self._get("/v1/refunds", wish)).get("data") or []
        words = [_read(lambda r=refund: refund_result(r, payment_id)) for refund in refunds]  # type: ignore[misc]
        held = [word for word in words if word.status is not ChargeStatus.FAILED]
        failed = next((word for word in words if word.status is ChargeStatus.FAILED), None)
        return min(held, key=lambda word: word.status is ChargeStatus.REFUNDED, default=failed)

    def _result(self, intent: dict[str, Any], payment_id: str) -> ProviderResult:
        return _read(lambda: intent_result(intent, payment_id, self._account.publishable_key))

    async def _post(self, path: str, wish: Mapping[str, str], key: str | None = None) -> Said:
        headers = {**self._headers(), "Content-Type": "application/x-www-form-urlencoded"}
        if key is not None:
            headers["Idempotency-Key"] = key
        return _said(await self._http.post(self._root + path, urlencode(wish).encode(), headers))

    async def _get(self, path: str, wish: Mapping[str, str]) -> Said:
        url = f"{self._root}{path}?{urlencode(wish)}"
        return _said(await self._http.get(url, self._headers()))

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._account.secret_key}", "Stripe-Version": VERSION}


def make_stripe(settings: Settings, http: HttpClient, clock: Clock) -> Stripe | None:
    """None where it is not configured. Raises ConfigError."""
    if not is_configured(settings, "Stripe", NEEDED):
        return None
    secrets = (settings.stripe_webhook_secrets or "").split(",")
    account = Account(
        settings.stripe_secret_key or "",
        tuple(secret.strip() for secret in secrets if secret.strip()),
        settings.stripe_publishable_key,
        settings.stripe_capture,
    )
    url = settings.stripe_url or API
    return Stripe(http, clock, account, shop=shop_url(settings), url=url)


def read_page(page: Mapping[str, Any]) -> list[StatementLine]:
    """The lines of a page of balance transactions. Raises StatementUnreadable."""
    try:
        lines = [line_of(transaction) for transaction in page["data"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StatementUnreadable(f"It is no list of balance transactions: {error}") from error
    return [line for line in lines if line is not None]


def read_statement(data: bytes) -> list[StatementLine]:
    """A file: one page as the API answers it, or a list of them. Raises StatementUnreadable."""
    try:
        pages = json.loads(data)
    except ValueError as error:
        raise StatementUnreadable(f"It is no JSON: {error}") from error
    pages = pages if isinstance(pages, list) else [pages]
    return [line for page in pages for line in read_page(page)]


def _said(reply: HttpReply) -> Said:
    """Raises ProviderUnavailable for anything but an answer about what was asked."""
    if reply.status >= 500 or reply.status in AWAY:
        raise ProviderUnavailable(f"Stripe answered {reply.status}.")
    try:
        body = json.loads(reply.body)
    except ValueError as error:
        raise ProviderUnavailable(f"Stripe answered nonsense: {error}") from error
    if not isinstance(body, dict):
        raise ProviderUnavailable("Stripe answered with no object.")
    return Said(reply.status, body)


def _accept(said: Said) -> dict[str, Any]:
    if said.status != 200:
        reason = f"{said.error.get('code', said.status)} {said.error.get('message', '')}"[:200]
        raise ProviderRefused(f"Stripe refused it: {reason}")
    return said.body


def _read(reading: Callable[[], ProviderResult]) -> ProviderResult:
    """Raises ProviderUnavailable for an object that makes no sense."""
    try:
        return reading()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProviderUnavailable(f"Stripe answered amiss: {error}") from error


def _charge(request: PaymentRequest, now_ms: int) -> Charge:
    return Charge(request.payment_id, request.amount_minor, request.currency, now_ms)


def _segment(text: object) -> str:
    return quote(str(text), safe="")
