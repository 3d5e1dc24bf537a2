"""One call of a provider for one message: which one it is, and what its answer means for the message.

Leaves taking messages and storing answers to the payer.
"""

from typing import Final

import msgspec

from engine.errors import ProviderUnavailable
from engine.model import OrderStatus, PaymentStatus, public_id
from engine.payment.provider import (
    Charge,
    ChargeStatus,
    PaymentRequest,
    Provider,
    ProviderRefused,
    ProviderResult,
)
from engine.payment.settlement import NOT_CAPTURED, OPEN
from engine.sales.sale import epoch_ms
from engine.store import outbox
from engine.store.outbox import Message
from engine.store.payments import Row

CHARGING: Final = frozenset({"capture", "pay"})
UNDER_WAY_SECONDS_MAX: Final = 60.0  # Between questions after what takes its time at the provider.
DESCRIPTIONS: Final = {"zh-CN": "订单 {}"}
DESCRIPTION: Final = "Order {}"


class Answer(msgspec.Struct, frozen=True):
    """What became of one message: a provider's word, nothing to do, or an error."""

    message: Message
    result: ProviderResult | None = None
    error: str | None = None
    away: bool = False  # The provider did not answer.
    # The error is nobody's fault: repeat without counting, within so long.
    repeat_seconds_max: float | None = None


async def call(provider: Provider, message: Message, row: Row) -> ProviderResult | None:
    """The provider's word on the payment; None where there is nothing to ask for any more."""
    match message.kind:
        case "refund":
            return await _refund(provider, row)
        case "collect":
            return await _collect(provider, row)
        case "void":
            return await provider.cancel(charge_of(row)) if _is_open(row, NOT_CAPTURED) else None
    if not _is_open(row, OPEN):
        return None
    if is_to_charge(message, row):
        return await _create(provider, row)
    # Too late to charge; but an earlier attempt may have, unheard.
    return await provider.query(charge_of(row))


async def _refund(provider: Provider, row: Row) -> ProviderResult | None:
    if row["status"] != PaymentStatus.REFUNDING:
        return None
    return await provider.refund(charge_of(row))


async def _collect(provider: Provider, row: Row) -> ProviderResult | None:
    """Takes what was authorized if the order still wants it, else lets it go."""
    if not _is_open(row, OPEN):
        return None
    if row["order_status"] == OrderStatus.AWAITING_PAYMENT:
        return await provider.capture(charge_of(row))
    return await provider.cancel(charge_of(row))


async def _create(provider: Provider, row: Row) -> ProviderResult:
    try:
        result = await provider.create(request_of(row))
    except ProviderRefused as error:
        return ProviderResult(row["payment_id"], ChargeStatus.FAILED, detail=str(error))
    if result.status is ChargeStatus.UNKNOWN:
        raise ProviderUnavailable("The provider does not know the charge that it was to make.")
    return result


def request_of(row: Row) -> PaymentRequest:
    """The payment as the provider is asked to make it."""
    order = public_id(row["sale_id"], row["reservation_id"])
    return PaymentRequest(
        row["payment_id"],
        row["amount_minor"],
        row["currency"],
        row["options"],
        description=DESCRIPTIONS.get(row["language"], DESCRIPTION).format(order),
        expires_at_ms=epoch_ms(row["reserved_until"]),
        return_path=row["return_path"],
        client_address=row["client_address"],
        language=row["language"],
    )


def charge_of(row: Row) -> Charge:
    """The payment as the provider is asked about it."""
    return Charge(
        row["payment_id"],
        row["amount_minor"],
        row["currency"],
        epoch_ms(row["created_at"]),
        epoch_ms(row["reserved_until"]),
        row["provider_ref"],
    )


def is_to_charge(message: Message, row: Row) -> bool:
    return bool(
        message.kind in CHARGING
        and row["status"] in OPEN
        and row["order_status"] == OrderStatus.AWAITING_PAYMENT
    )


def answer(message: Message, row: Row, result: ProviderResult | None) -> Answer:
    """What a provider's word means for the message: done, or to be repeated."""
    status = None if result is None else result.status
    match message.kind, status:
        case "refund", ChargeStatus.PENDING:
            return postponed(message, "the refund is under way", UNDER_WAY_SECONDS_MAX)
        case "refund", (
            ChargeStatus.CAPTURED
            | ChargeStatus.FAILED
            | ChargeStatus.UNKNOWN
            | ChargeStatus.AUTHORIZED
        ):
            return Answer(message, error=f"asked to refund it, the provider says it is {status}")
        case "collect" | "void", ChargeStatus.AUTHORIZED:
            return postponed(message, "the money is still held", UNDER_WAY_SECONDS_MAX)
        case _, ChargeStatus.UNKNOWN if row["under_way"]:
            return postponed(message, "the charge may be on its way")
        case _:
            return Answer(message, result)


def postponed(
    message: Message,
    reason: str,
    seconds_max: float = outbox.POSTPONE_SECONDS_MAX,
    *,
    away: bool = False,
) -> Answer:
    return Answer(message, error=reason, away=away, repeat_seconds_max=seconds_max)


def _is_open(row: Row, statuses: frozenset[PaymentStatus]) -> bool:
    return row["status"] in statuses
