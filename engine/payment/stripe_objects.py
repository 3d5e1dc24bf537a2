"""What Stripe's objects (payment intents, charges, refunds, events) say of a payment. Pure."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from engine.payment.amounts import minor_of_stripe
from engine.payment.provider import (
    Action,
    ActionKind,
    ChargeStatus,
    LineKind,
    ProviderResult,
    StatementLine,
    WebhookEvent,
)

PAYMENT_ID: Final = "payment_id"  # Our name in the metadata of what we make.
EVENT_ID_MAX: Final = 128
STATUSES: Final = {
    "requires_payment_method": ChargeStatus.PENDING,  # Also after a decline: another card may do.
    "requires_confirmation": ChargeStatus.PENDING,
    "requires_action": ChargeStatus.PENDING,
    "processing": ChargeStatus.PENDING,
    "requires_capture": ChargeStatus.AUTHORIZED,
    "succeeded": ChargeStatus.CAPTURED,
    "canceled": ChargeStatus.FAILED,
}
# Where the amount stands that counts in this state.
AMOUNTS: Final = {
    ChargeStatus.AUTHORIZED: "amount_capturable",
    ChargeStatus.CAPTURED: "amount_received",
}
REFUND_STATUSES: Final = {
    "succeeded": ChargeStatus.REFUNDED,
    "pending": ChargeStatus.PENDING,
    "requires_action": ChargeStatus.PENDING,
    "failed": ChargeStatus.FAILED,
    "canceled": ChargeStatus.FAILED,
}
MOVED: Final = frozenset({ChargeStatus.CAPTURED, ChargeStatus.REFUNDED})
PAID: Final = frozenset({"charge", "payment"})
PAID_BACK: Final = frozenset({"refund", "payment_refund"})

Object = Mapping[str, Any]


def payment_id_of(thing: Object) -> str | None:
    """Ours, if we made it."""
    return (thing.get("metadata") or {}).get(PAYMENT_ID)


def intent_result(
    intent: Object, payment_id: str, publishable_key: str | None = None
) -> ProviderResult:
    """Raises KeyError, ValueError."""
    status = STATUSES[intent["status"]]
    currency = str(intent["currency"]).upper()
    amount = intent[AMOUNTS.get(status, "amount")]
    if not isinstance(amount, int) or payment_id_of(intent) != payment_id:
        raise ValueError("the payment intent is another's, or has no amount")
    failed = status is ChargeStatus.FAILED
    return ProviderResult(
        payment_id,
        status,
        minor_of_stripe(amount, currency),
        currency,
        str(intent["id"]),
        str(intent.get("cancellation_reason") or "canceled") if failed else None,
        action=_action(intent, publishable_key) if status is ChargeStatus.PENDING else None,
        at_ms=_captured_at_ms(intent) if status is ChargeStatus.CAPTURED else None,
    )


def refund_result(refund: Object, payment_id: str) -> ProviderResult:
    """Raises KeyError."""
    status = REFUND_STATUSES[refund["status"]]
    reason = refund.get("failure_reason") if status is ChargeStatus.FAILED else None
    return ProviderResult(payment_id, status, detail=reason, at_ms=_ms_of(refund.get("created")))


def is_paid_back(intent: Object) -> bool:
    """Whether refunds of its whole charge were made; `latest_charge` must be expanded."""
    charge = intent.get("latest_charge")
    return isinstance(charge, dict) and charge.get("refunded") is True


def event_of(event: Object, publishable_key: str | None = None) -> WebhookEvent:
    """Raises KeyError, ValueError, TypeError."""
    event_id, kind, thing = str(event["id"]), str(event["type"]), event["data"]["object"]
    if not 0 < len(event_id) <= EVENT_ID_MAX:
        raise ValueError("the event has no usable id")
    payment_id = payment_id_of(thing)
    if not payment_id:
        return WebhookEvent(event_id, None)
    result = _told(kind, thing, payment_id, publishable_key)
    if result is not None and result.at_ms is None and result.status in MOVED:
        # Its objects rarely say when money moved. The event does: that counts to a day, be it told on the next.
        result = msgspec.structs.replace(result, at_ms=_ms_of(event.get("created")))
    return WebhookEvent(event_id, result)


def _told(
    kind: str, thing: Object, payment_id: str, publishable_key: str | None
) -> ProviderResult | None:
    match thing.get("object"):
        case "payment_intent":
            return intent_result(thing, payment_id, publishable_key)
        case "charge" if kind == "charge.refunded" and thing.get("refunded") is True:
            return ProviderResult(payment_id, ChargeStatus.REFUNDED)
        case "refund" if thing.get("status") == "succeeded":
            return refund_result(thing, payment_id)
    return None


def _action(intent: Object, publishable_key: str | None) -> Action | None:
    redirect = (intent.get("next_action") or {}).get("redirect_to_url")
    if redirect:
        return Action(ActionKind.REDIRECT, url=str(redirect["url"]))
    secret = intent.get("client_secret")
    if not secret:
        return None
    return Action(
        ActionKind.CLIENT_SECRET, client_secret=str(secret), publishable_key=publishable_key
    )


def _captured_at_ms(intent: Object) -> int | None:
    charge = intent.get("latest_charge")
    return _ms_of(charge.get("created")) if isinstance(charge, dict) else None


def _ms_of(seconds: object) -> int | None:
    return seconds * 1000 if isinstance(seconds, int) else None


def line_of(transaction: Object) -> StatementLine | None:
    """A balance transaction with its source expanded; None for fees, payouts and the like.

    What the buyer paid is in the source; the transaction is in the currency of our account.
    """
    kind, source = transaction["type"], transaction.get("source")
    if kind not in PAID | PAID_BACK or not isinstance(source, dict):
        return None
    currency = str(source["currency"]).upper()
    paid = kind in PAID
    amount = source["amount_captured" if paid and "amount_captured" in source else "amount"]
    return StatementLine(
        LineKind.PAYMENT if paid else LineKind.REFUND,
        payment_id_of(source) or "",
        str(source.get("payment_intent") or source["id"]),
        minor_of_stripe(abs(amount), currency),
        currency,
    )
