"""Reads orders and their payments from Postgres. Changes nothing."""

from datetime import datetime
from typing import Any, Final

import msgspec

from api.answers import time_text
from engine.model import Item, Items, Money, PaymentStatus, public_id
from engine.payment.provider import Action
from engine.sales.sale import epoch_ms
from engine.store.database import Pool, postgres_errors

PAYMENTS_MAX: Final = 50  # Of one order; more are tries, and the newest matter.


class Order(msgspec.Struct, frozen=True):
    """An order, as Postgres keeps it."""

    sale_id: str
    reservation_id: str
    user_id: str
    items: dict[str, int]
    amount_minor: int
    currency: str
    status: str
    status_reason: str | None
    reserved_at: datetime
    reserved_until: datetime


class PaymentRow(msgspec.Struct, frozen=True):
    """A payment, as Postgres keeps it, with the owner of its order."""

    payment_id: str
    sale_id: str
    reservation_id: str
    user_id: str
    provider: str
    status: str
    amount_minor: int
    currency: str
    detail: str | None
    created_at: datetime
    action: dict[str, str] | None = None


class PaymentBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """A payment, as its buyer sees it."""

    payment_id: str
    order_id: str
    provider: str
    status: str
    amount: Money
    created_at: str
    detail: str | None = None
    action: Action | None = None  # What the buyer has to do, while it is pending.


class OrderBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """An order, as its buyer sees it. `payments` only where one order is shown."""

    order_id: str
    reservation_id: str
    sale_id: str
    items: Items
    status: str
    amount: Money
    reserved_until: str
    created_at: str
    status_reason: str | None = None
    payments: list[PaymentBody] | None = None


class OrderBook:
    """The orders and payments tables, read."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find(self, sale_id: str, reservation_id: str) -> Order | None:
        with postgres_errors():
            row = await self._pool.fetchrow(
                "SELECT * FROM orders WHERE sale_id = $1 AND reservation_id = $2",
                sale_id,
                reservation_id,
            )
        return _read(Order, row) if row else None

    async def payments_of(self, order: Order) -> list[PaymentRow]:
        """An order's payments, newest first."""
        with postgres_errors():
            rows = await self._pool.fetch(
                "SELECT *, $3::text AS user_id FROM payments"
                " WHERE sale_id = $1 AND reservation_id = $2"
                " ORDER BY created_at DESC, payment_id LIMIT $4",
                order.sale_id,
                order.reservation_id,
                order.user_id,
                PAYMENTS_MAX,
            )
        return [_read(PaymentRow, row) for row in rows]

    async def payment(self, payment_id: str) -> PaymentRow | None:
        with postgres_errors():
            row = await self._pool.fetchrow(
                "SELECT p.*, o.user_id FROM payments p JOIN orders o"
                " USING (sale_id, reservation_id) WHERE payment_id = $1",
                payment_id,
            )
        return _read(PaymentRow, row) if row else None


def order_body(order: Order, payments: list[PaymentRow] | None = None) -> OrderBody:
    name = public_id(order.sale_id, order.reservation_id)
    return OrderBody(
        order_id=name,
        reservation_id=name,
        sale_id=order.sale_id,
        items=tuple(Item(sku, quantity) for sku, quantity in sorted(order.items.items())),
        status=order.status,
        amount=Money(order.amount_minor, order.currency),
        reserved_until=time_text(epoch_ms(order.reserved_until)),
        created_at=time_text(epoch_ms(order.reserved_at)),
        status_reason=order.status_reason,
        payments=None if payments is None else [payment_body(row) for row in payments],
    )


def payment_body(row: PaymentRow) -> PaymentBody:
    return PaymentBody(
        payment_id=row.payment_id,
        order_id=public_id(row.sale_id, row.reservation_id),
        provider=row.provider,
        status=row.status,
        amount=Money(row.amount_minor, row.currency),
        created_at=time_text(epoch_ms(row.created_at)),
        detail=row.detail,
        action=msgspec.convert(row.action, Action) if _waits_for_buyer(row) else None,
    )


def _waits_for_buyer(row: PaymentRow) -> bool:
    return row.status == PaymentStatus.PENDING and row.action is not None


def _read(kind: Any, row: Any) -> Any:
    return kind(**{name: row[name] for name in kind.__struct_fields__})
