"""Numbers and keeps invoices. The number is taken in the transaction that writes the invoice, so a
year's numbers have no gaps, and an order has one for good."""

from datetime import datetime
from typing import Any, Final

import msgspec

from api.invoices.document import InvoiceDocument, Seller, Terms, make_document
from api.orders.lines import names_of
from api.orders.store import Order
from engine.errors import Conflict, UnknownReservation
from engine.model import OrderStatus, public_id
from engine.store.database import Connection
from engine.store.resolutions import OrderKey

INVOICEABLE: Final = frozenset({OrderStatus.PAID, OrderStatus.SHIPPED, OrderStatus.DELIVERED})


class Invoice(msgspec.Struct, frozen=True):
    """An invoice as issued. `order_status` is the order's of now."""

    year: int
    number: int
    issued_at: datetime
    order_status: str
    document: InvoiceDocument

    @property
    def name(self) -> str:
        return f"{self.year}-{self.number:06d}"


async def invoice_of(
    connection: Connection, key: OrderKey, seller: Seller, now: datetime
) -> Invoice:
    """The order's invoice, issued now if it has none. Belongs into a transaction.

    Raises UnknownReservation, Conflict `not_invoiceable`.
    """
    order = await _lock(connection, key)
    found = await _find(connection, key, order.status)
    if found is not None:
        return found
    if order.status not in INVOICEABLE:
        raise Conflict("not_invoiceable", f"The order is {order.status}.")
    terms = await _terms(connection, order)
    document = make_document(order, public_id(*key), terms, seller)
    await _issue(connection, key, document, now)
    issued = await _find(connection, key, order.status)
    assert issued is not None
    return issued


async def _lock(connection: Connection, key: OrderKey) -> Order:
    """Two who ask at once get the same invoice: the second waits here."""
    row = await connection.fetchrow(
        """
        SELECT sale_id, reservation_id, user_id, items, amount_minor, currency, status,
               status_reason, reserved_at, reserved_until
        FROM orders WHERE sale_id = $1 AND reservation_id = $2 FOR NO KEY UPDATE
        """,
        *key,
    )
    if row is None:
        raise UnknownReservation("There is no such order.")
    return Order(**row)


async def _find(connection: Connection, key: OrderKey, status: str) -> Invoice | None:
    row = await connection.fetchrow(
        """
        SELECT year, number, issued_at, document FROM invoices
        WHERE sale_id = $1 AND reservation_id = $2
        """,
        *key,
    )
    if row is None:
        return None
    document = msgspec.convert(row["document"], InvoiceDocument)
    return Invoice(row["year"], row["number"], row["issued_at"], status, document)


async def _issue(
    connection: Connection, key: OrderKey, document: InvoiceDocument, now: datetime
) -> None:
    await connection.execute(
        """
        WITH taken AS (
            INSERT INTO invoice_numbers AS numbers (year, last) VALUES ($3, 1)
            ON CONFLICT (year) DO UPDATE SET last = numbers.last + 1
            RETURNING last
        )
        INSERT INTO invoices (sale_id, reservation_id, year, number, document, issued_at)
        SELECT $1, $2, $3, last, $4, $5 FROM taken
        """,
        *key,
        now.year,
        msgspec.to_builtins(document),
        now,
    )


async def _terms(connection: Connection, order: Order) -> Terms:
    row: Any = await connection.fetchrow(
        """
        SELECT c.quote, c.address, p.provider, p.payment_id,
               (SELECT coalesce(jsonb_object_agg(sku, price_minor), '{}') FROM sale_items
                WHERE sale_id = $1 AND sku = ANY ($3::text[])) AS prices,
               coalesce((SELECT min(at) FROM events
                         WHERE sale_id = $1 AND reservation_id = $2 AND type = 'order.paid'),
                        p.updated_at, o.updated_at) AS paid_at
        FROM orders o
        LEFT JOIN checkouts c USING (sale_id, reservation_id)
        LEFT JOIN payments p ON (p.sale_id, p.reservation_id) = (o.sale_id, o.reservation_id)
                            AND p.status = 'captured'
        WHERE o.sale_id = $1 AND o.reservation_id = $2
        """,
        order.sale_id,
        order.reservation_id,
        list(order.items),
    )
    names = await names_of(connection, [(order.sale_id, order.items)])
    return Terms(names=names, **row)
