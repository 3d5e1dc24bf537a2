"""Decides what a provider's word on a payment means for the payment and its order, and applies it.

One transaction per batch. Words may come twice, late or in any order: a payment only ever moves
down the list created, pending, failed, captured, refunding, refunded.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import asyncpg
import msgspec

from engine import metrics
from engine.model import OrderStatus, PaymentStatus
from engine.payment.provider import Action, ChargeStatus, ProviderResult
from engine.store import outbox
from engine.store.database import Connection
from engine.store.payments import Row, fetch_standings, lock_orders_of_payments, write_payments
from engine.store.resolutions import CANCEL, PAY, REFUND, OrderKey, lock_units, resolve

AUTO: Final = "auto"  # The idempotency key of the engine's own captures.
OPEN: Final = frozenset({PaymentStatus.CREATED, PaymentStatus.PENDING})
NOT_CAPTURED: Final = frozenset({*OPEN, PaymentStatus.FAILED})
REFUNDABLE: Final = frozenset(REFUND.origins)
# What a provider's word may lead to that nobody thought of: its neighbours are not to wait for it.
UNFORESEEN: Final = (asyncpg.PostgresError, ValueError, TypeError, LookupError, ArithmeticError)


class Change(msgspec.Struct, frozen=True):
    """What is to be written of one payment."""

    payment_id: str
    status: PaymentStatus
    provider_ref: str | None
    detail: str | None
    action: Action | None = None
    at: datetime | None = None  # Captured or refunded, by the provider's clock.


@dataclass
class PaymentStanding:
    """One payment as the batch sees it."""

    payment_id: str
    idempotency_key: str
    amount_minor: int
    currency: str
    status: PaymentStatus
    under_way: bool = False  # Tried a moment ago: the provider may not know of it yet.


@dataclass
class OrderStanding:
    """One order, locked, with all of its payments."""

    key: OrderKey
    status: OrderStatus
    payments: dict[str, PaymentStanding] = field(default_factory=dict)

    def has_other(self, payment_id: str, *statuses: PaymentStatus) -> bool:
        return any(
            other.status in statuses
            for other in self.payments.values()
            if other.payment_id != payment_id
        )


@dataclass
class Settlement:
    """What a batch of words comes to. Pure: no I/O, so that it can be tested as a table."""

    orders: dict[str, OrderStanding]  # by payment id
    changes: dict[str, Change] = field(default_factory=dict)
    paid: list[OrderKey] = field(default_factory=list)
    failed: list[OrderKey] = field(default_factory=list)
    refunded: list[OrderKey] = field(default_factory=list)
    late: list[tuple[str, str]] = field(default_factory=list)  # (sale_id, payment_id)
    to_refund: list[tuple[str, str]] = field(default_factory=list)
    to_collect: list[tuple[str, str]] = field(default_factory=list)
    to_void: list[tuple[str, str]] = field(default_factory=list)
    wrong: list[ProviderResult] = field(default_factory=list)

    def hear(self, result: ProviderResult) -> None:
        """Takes in one word, after all those before it."""
        order = self.orders[result.payment_id]
        payment = order.payments[result.payment_id]
        match result.status:
            case ChargeStatus.PENDING if payment.status in OPEN:
                self._wait(order, payment, result)
            case ChargeStatus.AUTHORIZED if payment.status in NOT_CAPTURED:
                self._authorize(order, payment, result)
            case ChargeStatus.UNKNOWN if payment.under_way:
                pass  # Perhaps known in a moment; never taken for a failure.
            case ChargeStatus.FAILED | ChargeStatus.UNKNOWN if payment.status in OPEN:
                self._fail(order, payment, result)
            case ChargeStatus.CAPTURED if payment.status in NOT_CAPTURED:
                self._capture(order, payment, result)
            case ChargeStatus.REFUNDED if payment.status is not PaymentStatus.REFUNDED:
                self._refund(order, payment, result)

    def _wait(self, order: OrderStanding, payment: PaymentStanding, word: ProviderResult) -> None:
        self._change(payment, PaymentStatus.PENDING, word)
        if word.action is not None and order.status is not OrderStatus.AWAITING_PAYMENT:
            self.to_void.append((order.key.sale_id, payment.payment_id))  # Too late to be asked.

    def _authorize(
        self, order: OrderStanding, payment: PaymentStanding, word: ProviderResult
    ) -> None:
        """Held, not taken: only of an order that awaits it, and only the amount that was asked."""
        key = (order.key.sale_id, payment.payment_id)
        is_fit = _is_as_asked(payment, word)
        if not is_fit:
            self.wrong.append(word)
        if payment.status in OPEN:
            self._change(payment, PaymentStatus.PENDING, word)
        if is_fit and order.status is OrderStatus.AWAITING_PAYMENT and payment.status in OPEN:
            self.to_collect.append(key)
        else:
            self.to_void.append(key)

    def _fail(self, order: OrderStanding, payment: PaymentStanding, word: ProviderResult) -> None:
        self._change(payment, PaymentStatus.FAILED, word, word.detail or word.status)
        # A buyer may try again until the deadline; the engine's own capture was the only try.
        if (
            payment.idempotency_key == AUTO
            and order.status is OrderStatus.AWAITING_PAYMENT
            and not order.has_other(payment.payment_id, *OPEN)
        ):
            order.status = OrderStatus.CANCELLED
            self.failed.append(order.key)

    def _capture(
        self, order: OrderStanding, payment: PaymentStanding, word: ProviderResult
    ) -> None:
        if not _is_as_asked(payment, word):
            self.wrong.append(word)
            self._give_back(order, payment, word, "wrong_amount")
        elif order.status is OrderStatus.AWAITING_PAYMENT:
            self._change(payment, PaymentStatus.CAPTURED, word)
            order.status = OrderStatus.PAID
            self.paid.append(order.key)
        elif order.status is OrderStatus.EXPIRED and not order.has_other(
            payment.payment_id, PaymentStatus.CAPTURED, PaymentStatus.REFUNDING
        ):
            self._change(payment, PaymentStatus.CAPTURED, word, "paid_late")
            self.late.append((order.key.sale_id, payment.payment_id))
        else:
            self._give_back(order, payment, word, f"order_already_{order.status}")

    def _give_back(
        self, order: OrderStanding, payment: PaymentStanding, word: ProviderResult, why: str
    ) -> None:
        self._change(payment, PaymentStatus.REFUNDING, word, why)
        self.to_refund.append((order.key.sale_id, payment.payment_id))

    def _refund(self, order: OrderStanding, payment: PaymentStanding, word: ProviderResult) -> None:
        self._change(payment, PaymentStatus.REFUNDED, word)
        # The refund of a second capture leaves the order with the first.
        if order.status in REFUNDABLE and not order.has_other(
            payment.payment_id, PaymentStatus.CAPTURED, PaymentStatus.REFUNDING
        ):
            order.status = OrderStatus.REFUNDED
            self.refunded.append(order.key)

    def _change(
        self,
        payment: PaymentStanding,
        status: PaymentStatus,
        word: ProviderResult,
        detail: str | None = None,
    ) -> None:
        payment.status = status
        self.changes[payment.payment_id] = Change(
            payment.payment_id,
            status,
            word.provider_ref,
            detail,
            word.action if status is PaymentStatus.PENDING else None,
            _time_of(word.at_ms),
        )


def _time_of(at_ms: int | None) -> datetime | None:
    """None for what is beyond the calendar, too: a provider's odd clock holds no money up."""
    try:
        return None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _is_as_asked(payment: PaymentStanding, word: ProviderResult) -> bool:
    return (word.amount_minor, word.currency) == (payment.amount_minor, payment.currency)


async def settle(connection: Connection, results: Sequence[ProviderResult]) -> set[str]:
    """Applies the words in their order; returns the payment ids that nobody knows.

    Belongs into a transaction. Orders and payments stay locked until it ends.
    """
    ids = [result.payment_id for result in results]
    if not ids:
        return set()
    await lock_orders_of_payments(connection, ids)
    settlement = Settlement(_standings(await fetch_standings(connection, ids)))
    unknown = set(ids) - settlement.orders.keys()
    for result in results:
        if result.payment_id not in unknown:
            settlement.hear(result)
    await _write(connection, settlement)
    return unknown


def _standings(rows: Iterable[Row]) -> dict[str, OrderStanding]:
    """Every payment's order, the same object for all payments of one order."""
    orders: dict[OrderKey, OrderStanding] = {}
    for row in rows:
        key = OrderKey(row["sale_id"], row["reservation_id"])
        order = orders.setdefault(key, OrderStanding(key, OrderStatus(row["order_status"])))
        order.payments[row["payment_id"]] = PaymentStanding(
            row["payment_id"],
            row["idempotency_key"],
            row["amount_minor"],
            row["currency"],
            PaymentStatus(row["status"]),
            row["under_way"],
        )
    return {payment_id: order for order in orders.values() for payment_id in order.payments}


async def _write(connection: Connection, settlement: Settlement) -> None:
    await write_payments(connection, list(settlement.changes.values()))
    kinds = [
        orders for orders in (settlement.paid, settlement.failed, settlement.refunded) if orders
    ]
    if len(kinds) > 1:
        await lock_units(connection, [order for orders in kinds for order in orders])
    await resolve(connection, PAY, settlement.paid)
    await resolve(connection, CANCEL, settlement.failed, "payment_failed")
    await resolve(connection, REFUND, settlement.refunded)
    await outbox.put(connection, "late_capture", settlement.late)
    await outbox.put(connection, "refund", settlement.to_refund)
    await _put_once(connection, "collect", settlement.to_collect)
    await _put_once(connection, "void", settlement.to_void)
    for result in settlement.wrong:
        await outbox.bury(
            connection,
            source="outbox",
            sale_id=settlement.orders[result.payment_id].key.sale_id,
            reference=result.payment_id,
            body=msgspec.json.encode(result),
            error="the provider charged another amount than asked; it is being given back",
        )
    for change in settlement.changes.values():
        metrics.payments.labels(change.status.value).inc()


async def _put_once(
    connection: Connection, kind: str, references: Iterable[tuple[str, str]]
) -> None:
    """An authorization is heard of by webhook and by every question; one message will do."""
    for sale_id, payment_id in dict.fromkeys(references):
        if not await outbox.is_waiting(connection, kind, sale_id, payment_id):
            await outbox.put(connection, kind, [(sale_id, payment_id)])
