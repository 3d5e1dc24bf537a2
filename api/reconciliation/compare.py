"""Finds what differs between a provider's statement and our payments of that day. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec

from engine.model import PaymentStatus
from engine.payment.provider import LineKind, StatementLine

# That money came in, whatever became of it.
CAPTURED: Final = frozenset(
    {PaymentStatus.CAPTURED, PaymentStatus.REFUNDING, PaymentStatus.REFUNDED}
)
GIVEN_BACK: Final = frozenset({PaymentStatus.REFUNDING, PaymentStatus.REFUNDED})


class DifferenceKind(StrEnum):
    """What is wrong."""

    MISSING_HERE = "missing_here"  # The provider moved money for a payment that is not ours.
    MISSING_THERE = "missing_there"  # We count money that the provider did not book.
    AMOUNT = "amount"
    CURRENCY = "currency"
    STATUS = "status"  # It took money for what is not paid here.
    REFUND = "refund"  # One of the two gave money back, or gave back another amount.


class Kept(msgspec.Struct, frozen=True):
    """A payment here. The days are those at the provider, None where it did not happen."""

    payment_id: str
    provider_ref: str | None
    status: PaymentStatus
    amount_minor: int
    currency: str
    captured_here: bool  # on the day of the statement
    refunded_here: bool


class Difference(msgspec.Struct, frozen=True):
    """One thing for a person to look at."""

    kind: DifferenceKind
    payment_id: str
    provider_ref: str | None = None
    ours: dict[str, Any] | None = None
    theirs: dict[str, Any] | None = None


def compare(lines: Sequence[StatementLine], payments: Iterable[Kept]) -> list[Difference]:
    """What differs, in the statement's order, then what it lacks.

    `payments` are those that the lines name, by our id or the provider's, and ours of that day.
    """
    kept = list(payments)
    by_name: dict[str, Kept] = {}
    for payment in kept:
        by_name |= {name: payment for name in (payment.provider_ref, payment.payment_id) if name}
    found: list[Difference] = []
    told: set[tuple[LineKind, str]] = set()
    for line in lines:
        ours = by_name.get(line.payment_id) or by_name.get(line.provider_ref)
        found += _of_line(line, ours, told)
    return found + [gap for payment in kept for gap in _gaps(payment, told)]


def _of_line(
    line: StatementLine, ours: Kept | None, told: set[tuple[LineKind, str]]
) -> list[Difference]:
    if ours is None:
        return [_difference(DifferenceKind.MISSING_HERE, line, None)]
    key = (line.kind, ours.payment_id)
    if key in told:  # Booked twice: a payment is charged and given back once.
        twice = line.kind is LineKind.PAYMENT
        kind = DifferenceKind.AMOUNT if twice else DifferenceKind.REFUND
        return [_difference(kind, line, ours)]
    told.add(key)
    kinds = _payment_kinds if line.kind is LineKind.PAYMENT else _refund_kinds
    return [_difference(kind, line, ours) for kind in kinds(line, ours)]


def _payment_kinds(line: StatementLine, ours: Kept) -> list[DifferenceKind]:
    kinds = []
    if ours.status not in CAPTURED:
        kinds.append(DifferenceKind.STATUS)
    if line.currency != ours.currency:
        kinds.append(DifferenceKind.CURRENCY)
    elif line.amount_minor != ours.amount_minor:
        kinds.append(DifferenceKind.AMOUNT)
    return kinds


def _refund_kinds(line: StatementLine, ours: Kept) -> list[DifferenceKind]:
    given_back = ours.status in GIVEN_BACK
    same = (line.amount_minor, line.currency) == (ours.amount_minor, ours.currency)
    return [] if given_back and same else [DifferenceKind.REFUND]


def _gaps(ours: Kept, told: set[tuple[LineKind, str]]) -> Iterable[Difference]:
    """What we count on that day and the statement lacks."""
    if ours.captured_here and (LineKind.PAYMENT, ours.payment_id) not in told:
        yield _lacking(DifferenceKind.MISSING_THERE, ours)
    if ours.refunded_here and (LineKind.REFUND, ours.payment_id) not in told:
        yield _lacking(DifferenceKind.REFUND, ours)


def _lacking(kind: DifferenceKind, ours: Kept) -> Difference:
    return Difference(kind, ours.payment_id, ours.provider_ref, _ours(ours), None)


def _difference(kind: DifferenceKind, line: StatementLine, ours: Kept | None) -> Difference:
    theirs: Mapping[str, Any] = {
        "kind": line.kind.value,
        "amount_minor": line.amount_minor,
        "currency": line.currency,
    }
    return Difference(
        kind,
        ours.payment_id if ours else line.payment_id,
        line.provider_ref,
        _ours(ours) if ours else None,
        dict(theirs),
    )


def _ours(ours: Kept) -> dict[str, Any]:
    return {
        "status": ours.status.value,
        "amount_minor": ours.amount_minor,
        "currency": ours.currency,
    }
