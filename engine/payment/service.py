"""Starts payments, asks for refunds and takes webhooks in. The payer and the inbox do the rest."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from engine.errors import Conflict, Invalid, UnknownReservation
from engine.ids import Ids
from engine.inventory import Batcher
from engine.model import Money, OrderStatus, PaymentStatus
from engine.store import outbox
from engine.store import payments as store
from engine.store.database import Connection, Pool, postgres_errors
from engine.store.sales import log_audit

WEBHOOK_BATCH_MAX: Final = 200  # Webhooks stored per statement: one commit, hence one fsync.
WEBHOOK_QUEUE_MAX: Final = 2000  # Beyond it Overloaded; the provider delivers again.

SENT: Final = frozenset({OrderStatus.SHIPPED, OrderStatus.DELIVERED})


class Payment(msgspec.Struct, frozen=True):
    """A payment as its buyer may see it."""

    payment_id: str
    sale_id: str
    reservation_id: str
    provider: str
    status: PaymentStatus
    amount: Money
    created_at: datetime
    detail: str | None = None


class Visit(NamedTuple):
    """From where a buyer pays, for the provider to know."""

    return_path: str | None = None
    client_address: str | None = None
    language: str = "en"


class Webhook(NamedTuple):
    """A webhook as it came."""

    provider: str
    event_id: str
    body: bytes


class PaymentService:
    """What the front asks of payment. Talks to Postgres only: no provider is called here."""

    def __init__(self, pool: Pool, ids: Ids) -> None:
        self._pool = pool
        self._ids = ids
        self._webhooks = Batcher[Webhook, bool](
            self._store_webhooks, batch_max=WEBHOOK_BATCH_MAX, queue_max=WEBHOOK_QUEUE_MAX
        )

    async def start(  # noqa: PLR0917
        self,
        sale_id: str,
        reservation_id: str,
        user_id: str,
        provider: str,
        options: Mapping[str, object],
        idempotency_key: str,
        *,
        visit: Visit = Visit(),  # noqa: B008  # Frozen.
        currencies: frozenset[str] | None = None,
    ) -> Payment:
        """Records a payment and the wish to make it, in one transaction. None: in any currency.

        The same key gives the same payment again. Raises UnknownReservation where the buyer has no
        such order (yet), Conflict: `order_not_payable`, `too_many_payments`, `idempotency_mismatch`;
        Invalid where the provider does not take the order's currency.
        """
        key = f"buyer:{idempotency_key}"  # Never the engine's own key.
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                order = await store.find_order_of(connection, sale_id, reservation_id, user_id)
                if order is None:
                    raise UnknownReservation("There is no such order.")
                earlier = await store.payments_of(connection, sale_id, reservation_id)
                for row in earlier:
                    if row["idempotency_key"] == key:
                        return _replay(row, provider, options)
                _check_payable(order["status"], len(earlier))
                _check_currency(provider, order["currency"], currencies)
                row = await store.add_payment(
                    connection,
                    payment_id=self._ids.new("pay"),
                    sale_id=sale_id,
                    reservation_id=reservation_id,
                    idempotency_key=key,
                    provider=provider,
                    options=options,
                    amount_minor=order["amount_minor"],
                    currency=order["currency"],
                    **visit._asdict(),
                )
                await outbox.put(connection, "pay", [(sale_id, row["payment_id"])])
        return _payment(row)

    async def get(self, payment_id: str) -> Payment | None:
        """One payment. Whose it is, is for the caller to check."""
        with postgres_errors():
            async with self._pool.acquire() as connection:
                row = await store.find_payment(connection, payment_id)
        return _payment(row) if row else None

    async def of_order(self, sale_id: str, reservation_id: str) -> list[Payment]:
        """All payments of an order, oldest first."""
        with postgres_errors():
            async with self._pool.acquire() as connection:
                rows = await store.payments_of(connection, sale_id, reservation_id)
        return [_payment(row) for row in rows]

    async def request_refund(
        self, payment_id: str, actor: str, *, unless_sent: bool = False
    ) -> Payment:
        """Records that a captured payment goes back; asking again changes nothing, except where the
        provider was given up on: then it is tried again. `unless_sent`: not while the goods are out.

        Raises Conflict `not_refundable`, UnknownReservation.
        """
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                await store.lock_orders_of_payments(connection, [payment_id])
                row = await store.find_payment(connection, payment_id)
                if row is None:
                    raise UnknownReservation("There is no such payment.")
                if row["status"] == PaymentStatus.CAPTURED:
                    if unless_sent:
                        await _check_not_sent(connection, row)
                    await self._refund(connection, row["sale_id"], payment_id, actor)
                    row = await store.find_payment(connection, payment_id)
                elif row["status"] == PaymentStatus.REFUNDING:
                    await self._refund_again(connection, row["sale_id"], payment_id, actor)
                elif row["status"] != PaymentStatus.REFUNDED:
                    raise Conflict("not_refundable", f"The payment is {row['status']}.")
        return _payment(row)

    async def receive_webhook(self, provider: str, event_id: str, body: bytes) -> bool:
        """Stores a verified webhook as it came; False if it was stored before. Answer 2xx after it.

        Raises Overloaded or Unavailable: let the provider deliver it again.
        """
        return await self._webhooks.submit(Webhook(provider, event_id, body))

    async def _refund(
        self, connection: Connection, sale_id: str, payment_id: str, actor: str
    ) -> None:
        await store.start_refund(connection, payment_id, "asked_for")  # By whom: the log says.
        await self._ask_for_refund(connection, sale_id, payment_id, actor)

    async def _refund_again(
        self, connection: Connection, sale_id: str, payment_id: str, actor: str
    ) -> None:
        if not await outbox.is_waiting(connection, "refund", sale_id, payment_id):
            await self._ask_for_refund(connection, sale_id, payment_id, actor)

    async def _ask_for_refund(
        self, connection: Connection, sale_id: str, payment_id: str, actor: str
    ) -> None:
        await outbox.put(connection, "refund", [(sale_id, payment_id)])
        await log_audit(
            connection,
            actor=actor,
            action="refund",
            sale_id=sale_id,
            detail={"payment_id": payment_id},
        )

    async def _store_webhooks(self, webhooks: Sequence[Webhook]) -> list[bool]:
        with postgres_errors():
            async with self._pool.acquire() as connection:
                new = await store.add_webhooks(connection, webhooks)
        return [(provider, event_id) in new for provider, event_id, _ in webhooks]


async def _check_not_sent(connection: Connection, payment: store.Row) -> None:
    """Under the order's lock, so that it is not sent in this moment. Raises Conflict."""
    status = await store.status_of_order(connection, payment["sale_id"], payment["reservation_id"])
    if status in SENT:
        raise Conflict("not_refundable", "It was sent: ask for a return.")


def _check_payable(status: str, payments: int) -> None:
    if status != OrderStatus.AWAITING_PAYMENT:
        raise Conflict("order_not_payable", f"The order is {status}.")
    if payments >= store.PAYMENTS_PER_ORDER_MAX:
        raise Conflict("too_many_payments", "The order has too many payments already.")


def _check_currency(provider: str, currency: str, currencies: frozenset[str] | None) -> None:
    if currencies is not None and currency not in currencies:
        raise Invalid("provider", f"{provider} takes no {currency}")


def _replay(row: store.Row, provider: str, options: Mapping[str, object]) -> Payment:
    if (row["provider"], row["options"]) != (provider, dict(options)):
        raise Conflict("idempotency_mismatch", "The key was used for another payment.")
    return _payment(row)


def _payment(row: store.Row) -> Payment:
    return Payment(
        row["payment_id"],
        row["sale_id"],
        row["reservation_id"],
        row["provider"],
        PaymentStatus(row["status"]),
        Money(row["amount_minor"], row["currency"]),
        row["created_at"],
        row["detail"],
    )
