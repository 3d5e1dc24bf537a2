"""Stores payments and webhooks. Decides nothing: what follows from a payment is `payment.settlement`."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Protocol, TypeAlias

from engine.store.database import Connection

Row: TypeAlias = Any


class Change(Protocol):
    """What is to be written of one payment."""

    @property
    def payment_id(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def provider_ref(self) -> str | None: ...
    @property
    def detail(self) -> str | None: ...
    @property
    def action(self) -> object | None: ...
    @property
    def at(self) -> datetime | None: ...


PAYMENTS_PER_ORDER_MAX: Final = 16  # A buyer who tries more often needs a person, not a retry.
# So long after a charge was tried, "unknown" may mean that it is still on its way.
CHARGE_SECONDS_MAX: Final = 30
# Whether that is so, as a column.
UNDER_WAY: Final = f"""
    coalesce(p.tried_at > now() - interval '{CHARGE_SECONDS_MAX} s', false) AS under_way
    """

# A payment as it is carried to its provider, with its order.
CHARGE: Final = f"""
    p.payment_id, p.sale_id, p.reservation_id, p.idempotency_key, p.provider, p.options,
    p.amount_minor, p.currency, p.status, p.provider_ref, p.created_at, p.return_path,
    p.client_address, p.language, o.status AS order_status, o.user_id, o.reserved_until, {UNDER_WAY}
    """

COLUMNS: Final = (
    "payment_id, sale_id, reservation_id, idempotency_key, provider, options, amount_minor, "
    "currency, status, detail, created_at"
)


async def find_order_of(
    connection: Connection, sale_id: str, reservation_id: str, user_id: str
) -> Row | None:
    """The status, amount and currency of a buyer's order, locked against its resolution."""
    return await connection.fetchrow(
        """
        SELECT status, amount_minor, currency FROM orders
        WHERE sale_id = $1 AND reservation_id = $2 AND user_id = $3 FOR NO KEY UPDATE
        """,
        sale_id,
        reservation_id,
        user_id,
    )


async def payments_of(connection: Connection, sale_id: str, reservation_id: str) -> list[Row]:
    """All payments of an order, oldest first."""
    rows: list[Row] = await connection.fetch(
        f"SELECT {COLUMNS} FROM payments WHERE sale_id = $1 AND reservation_id = $2 "  # noqa: S608
        "ORDER BY created_at, payment_id LIMIT $3",
        sale_id,
        reservation_id,
        PAYMENTS_PER_ORDER_MAX + 1,
    )
    return rows


async def find_payment(connection: Connection, payment_id: str) -> Row | None:
    """One payment."""
    return await connection.fetchrow(
        f"SELECT {COLUMNS} FROM payments WHERE payment_id = $1",  # noqa: S608
        payment_id,
    )


async def status_of_order(connection: Connection, sale_id: str, reservation_id: str) -> str | None:
    status: str | None = await connection.fetchval(
        "SELECT status FROM orders WHERE sale_id = $1 AND reservation_id = $2",
        sale_id,
        reservation_id,
    )
    return status


async def add_payment(
    connection: Connection,
    *,
    payment_id: str,
    sale_id: str,
    reservation_id: str,
    idempotency_key: str,
    provider: str,
    options: Mapping[str, object],
    amount_minor: int,
    currency: str,
    return_path: str | None = None,
    client_address: str | None = None,
    language: str = "en",
) -> Row:
    """A new payment, in status created."""
    return await connection.fetchrow(
        f"""
        INSERT INTO payments (payment_id, sale_id, reservation_id, idempotency_key, provider,
                              options, amount_minor, currency, status, return_path,
                              client_address, language)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'created', $9, $10, $11) RETURNING {COLUMNS}
        """,  # noqa: S608
        payment_id,
        sale_id,
        reservation_id,
        idempotency_key,
        provider,
        options,
        amount_minor,
        currency,
        return_path,
        client_address,
        language,
    )


async def add_captures(
    connection: Connection,
    sale_ids: Sequence[str],
    reservation_ids: Sequence[str],
    payment_ids: Sequence[str],
    provider: str,
) -> None:
    """The engine's own payments (key 'auto') of orders that await one; those made before stay.

    They count as tried: it costs nothing here, and the caller charges them at once.
    """
    await connection.execute(
        """
        INSERT INTO payments (payment_id, sale_id, reservation_id, idempotency_key, provider,
                              amount_minor, currency, status, tried_at)
        SELECT wanted.payment_id, sale_id, reservation_id, 'auto', $4, amount_minor, currency,
               'created', now()
        FROM unnest($1::text[], $2::text[], $3::text[])
                 AS wanted(sale_id, reservation_id, payment_id)
        JOIN orders USING (sale_id, reservation_id)
        WHERE status = 'awaiting_payment'
        ON CONFLICT (sale_id, reservation_id, idempotency_key) DO NOTHING
        """,
        list(sale_ids),
        list(reservation_ids),
        list(payment_ids),
        provider,
    )


async def fetch_charges(
    connection: Connection, payment_ids: Sequence[str], captures: Sequence[tuple[str, str]]
) -> list[Row]:
    """Payments by id, and the engine's own by order, each with the order's status and user."""
    rows: list[Row] = await connection.fetch(
        f"""
        SELECT {CHARGE} FROM payments p JOIN orders o USING (sale_id, reservation_id)
        WHERE p.payment_id = ANY ($1::text[])
        UNION ALL
        SELECT {CHARGE}
        FROM unnest($2::text[], $3::text[]) AS wanted(sale_id, reservation_id)
        JOIN payments p USING (sale_id, reservation_id) JOIN orders o USING (sale_id, reservation_id)
        WHERE p.idempotency_key = 'auto'
        """,  # noqa: S608
        list(payment_ids),
        [sale_id for sale_id, _ in captures],
        [reservation_id for _, reservation_id in captures],
    )
    return rows


async def mark_tried(connection: Connection, payment_ids: Sequence[str]) -> None:
    """Remembers that these are being charged. Belongs into a transaction of its own, before the calls."""
    await lock_orders_of_payments(connection, payment_ids)
    await connection.execute(
        "UPDATE payments SET tried_at = now() WHERE payment_id = ANY ($1::text[])",
        list(payment_ids),
    )


async def lock_orders_of_payments(connection: Connection, payment_ids: Sequence[str]) -> None:
    """Locks the orders, always in the same order, until the transaction ends.

    Whoever changes a payment holds its order, so a payment stands still as well.
    """
    await connection.execute(
        """
        SELECT FROM orders WHERE (sale_id, reservation_id) IN (
            SELECT sale_id, reservation_id FROM payments WHERE payment_id = ANY ($1::text[]))
        ORDER BY sale_id, reservation_id FOR NO KEY UPDATE
        """,
        list(payment_ids),
    )


async def fetch_standings(connection: Connection, payment_ids: Sequence[str]) -> list[Row]:
    """All payments of the orders of these payments, with the order's status."""
    rows: list[Row] = await connection.fetch(
        f"""
        SELECT p.payment_id, p.sale_id, p.reservation_id, p.idempotency_key, p.amount_minor,
               p.currency, p.status, o.status AS order_status, {UNDER_WAY}
        FROM (SELECT DISTINCT sale_id, reservation_id FROM payments
              WHERE payment_id = ANY ($1::text[])) AS wanted
        JOIN payments p USING (sale_id, reservation_id)
        JOIN orders o USING (sale_id, reservation_id)
        """,  # noqa: S608
        list(payment_ids),
    )
    return rows


async def write_payments(connection: Connection, changes: Sequence[Change]) -> None:
    """Writes what became of payments whose orders are locked."""
    if changes:
        await connection.execute(
            """
            UPDATE payments
            SET status = change.status, provider_ref = coalesce(change.ref, provider_ref),
                detail = coalesce(change.detail, payments.detail),
                action = coalesce(change.action, payments.action),
                captured_at = CASE WHEN change.status IN ('captured', 'refunding')
                    THEN coalesce(captured_at, change.at, now()) ELSE captured_at END,
                refunded_at = CASE WHEN change.status = 'refunded'
                    THEN coalesce(change.at, now()) ELSE refunded_at END,
                updated_at = now()
            FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::jsonb[],
                        $6::timestamptz[])
                     AS change(payment_id, status, ref, detail, action, at)
            WHERE payments.payment_id = change.payment_id
            """,
            [change.payment_id for change in changes],
            [change.status for change in changes],
            [change.provider_ref for change in changes],
            [change.detail for change in changes],
            [change.action for change in changes],
            [change.at for change in changes],
        )


async def take_unheard(
    connection: Connection, *, after_seconds: float, count: int, cut_off: Sequence[str] = ()
) -> list[Row]:
    """Payments to ask the provider about, longest not asked about first; none of those `cut_off`.

    Asked after `after_seconds`, then ever more rarely: each pause is half the payment's age. An
    order whose deadline has passed is asked for once at once, because its expiry waits for it. One
    without an answer is asked again after `after_seconds`, when all others had their turn.
    """
    rows: list[Row] = await connection.fetch(
        """
        UPDATE payments asked SET asked_at = now()
        FROM orders
        WHERE (orders.sale_id, orders.reservation_id) = (asked.sale_id, asked.reservation_id)
          AND asked.payment_id = ANY (ARRAY(
            SELECT p.payment_id
            FROM payments p JOIN orders o USING (sale_id, reservation_id)
            WHERE p.status IN ('created', 'pending', 'refunding')
              AND p.provider <> ALL ($3::text[]) AND (
                (p.status <> 'created'
                    AND p.updated_at < now() - greatest(
                        make_interval(secs => $1), (p.updated_at - p.created_at) / 2)
                    AND (p.asked_at IS NULL OR p.asked_at < now() - make_interval(secs => $1)))
                OR (p.status <> 'refunding' AND o.status = 'awaiting_payment'
                    AND o.reserved_until <= now() AND p.updated_at < o.reserved_until
                    AND (p.asked_at IS NULL OR p.asked_at < greatest(
                        o.reserved_until, now() - make_interval(secs => $1)))))
            ORDER BY p.asked_at NULLS FIRST, p.updated_at LIMIT $2
            -- Whoever settles locks several of them, in an order of its own.
            FOR NO KEY UPDATE OF p SKIP LOCKED))
        RETURNING asked.payment_id, asked.provider, asked.amount_minor, asked.currency,
                  asked.provider_ref, asked.created_at, orders.reserved_until
        """,
        after_seconds,
        count,
        list(cut_off),
    )
    return rows


async def add_webhooks(
    connection: Connection, webhooks: Sequence[tuple[str, str, bytes]]
) -> set[tuple[str, str]]:
    """Stores (provider, event_id, body) as they came; returns which were new."""
    rows = await connection.fetch(
        """
        INSERT INTO webhook_inbox (provider, event_id, body)
        SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[])
        ON CONFLICT DO NOTHING RETURNING provider, event_id
        """,
        [provider for provider, _, _ in webhooks],
        [event_id for _, event_id, _ in webhooks],
        [body for _, _, body in webhooks],
    )
    return {(row["provider"], row["event_id"]) for row in rows}


async def take_webhooks(connection: Connection, count: int) -> list[Row]:
    """Locks webhooks that are due. One that failed n times waits n² × 0.2 s after its arrival."""
    rows: list[Row] = await connection.fetch(
        """
        SELECT provider, event_id, body, attempts FROM webhook_inbox
        WHERE handled_at IS NULL
          AND received_at + attempts * attempts * interval '0.2 s' <= now()
        ORDER BY received_at LIMIT $1 FOR UPDATE SKIP LOCKED
        """,
        count,
    )
    return rows


async def find_foreign(
    connection: Connection, named: Sequence[tuple[str, str]]
) -> set[tuple[str, str]]:
    """Of (provider, payment id), those whose payment is with another provider."""
    rows = await connection.fetch(
        """
        SELECT named.provider, payment_id FROM unnest($1::text[], $2::text[])
                 AS named(provider, payment_id)
        JOIN payments USING (payment_id) WHERE payments.provider <> named.provider
        """,
        [provider for provider, _ in named],
        [payment_id for _, payment_id in named],
    )
    return {(row["provider"], row["payment_id"]) for row in rows}


async def finish_webhooks(connection: Connection, events: Sequence[tuple[str, str]]) -> None:
    """Marks webhooks as handled: in the transaction of their effect."""
    if events:
        await connection.execute(
            """
            UPDATE webhook_inbox SET handled_at = now(), attempts = attempts + 1
            WHERE (provider, event_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
            """,
            [provider for provider, _ in events],
            [event_id for _, event_id in events],
        )


async def fail_webhook(connection: Connection, provider: str, event_id: str, error: str) -> None:
    """Counts an attempt that came to nothing."""
    await connection.execute(
        """
        UPDATE webhook_inbox SET attempts = attempts + 1, last_error = $3
        WHERE provider = $1 AND event_id = $2
        """,
        provider,
        event_id,
        error[:500],
    )


async def start_refund(connection: Connection, payment_id: str, detail: str) -> bool:
    """Captured → refunding; False if it was not captured. The order must be locked."""
    row = await connection.fetchrow(
        """
        UPDATE payments SET status = 'refunding', detail = $2, updated_at = now()
        WHERE payment_id = $1 AND status = 'captured' RETURNING payment_id
        """,
        payment_id,
        detail,
    )
    return row is not None
