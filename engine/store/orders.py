"""Stores drained reservations as orders. Knows nothing of the stream they came from but its ids."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Final

import asyncpg
import msgspec

from engine.model import items_from_text
from engine.store.database import Connection, postgres_errors

STORE_ORDERS: Final = (files("engine.store") / "statements" / "store_orders.sql").read_text()
NO_OVERSELL: Final = "no_oversell"  # The CHECK on sale_items.


class UnknownWish(ValueError):
    """A reservation names a SKU that its sale does not have."""


@dataclass
class OrderBatch:
    """Reservations of one sale in columns, as the statement takes them.

    Those of one stream entry that ask for the same share a wish: what is said once need not be sent,
    parsed and converted for each of them.
    """

    sale_id: str
    ids: list[str] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    wishes: list[int] = field(default_factory=list)  # Which of the following, per reservation.
    texts: list[bytes] = field(default_factory=list)
    at_ms: list[int] = field(default_factory=list)
    until_s: list[int] = field(default_factory=list)
    newest_entry: str = "0-0"

    def __len__(self) -> int:
        return len(self.ids)

    def add_wishes(
        self, wishes: Sequence[int], texts: Collection[bytes], at_ms: int, until_s: int
    ) -> None:
        """The wishes of reservations just added: their numbers in `texts`, all of one time."""
        first = len(self.texts)
        self.wishes += [first + wish for wish in wishes]
        self.texts += texts
        self.at_ms += [at_ms] * len(texts)
        self.until_s += [until_s] * len(texts)

    def one(self, index: int) -> "OrderBatch":
        """A batch of just one of them."""
        wish = self.wishes[index]
        return OrderBatch(
            self.sale_id,
            [self.ids[index]],
            [self.users[index]],
            [0],
            [self.texts[wish]],
            [self.at_ms[wish]],
            [self.until_s[wish]],
            self.newest_entry,
        )


@dataclass(frozen=True)
class Terms:
    """What the orders of a sale have in common."""

    prices: Mapping[str, int]  # amount_minor per SKU
    currency: str
    auto_capture: bool


async def store_orders(connection: Connection, batch: OrderBatch, terms: Terms) -> int:
    """Stores the batch in one transaction, or nothing of it; returns how many orders were new.

    Raises UnknownWish, StoreUnavailable, or asyncpg.CheckViolationError (see `is_oversold`).
    """
    carts = {text: _cart(text.decode(), terms.prices) for text in set(batch.texts)}
    with postgres_errors():
        return int(
            await connection.fetchval(
                STORE_ORDERS,
                batch.sale_id,
                batch.ids,
                batch.users,
                batch.wishes,
                range(len(batch.texts)),
                [carts[text][0] for text in batch.texts],
                [carts[text][1] for text in batch.texts],
                batch.at_ms,
                batch.until_s,
                terms.currency,
                terms.auto_capture,
                batch.newest_entry,
            )
        )


async def store_orders_within_stock(
    connection: Connection, batch: OrderBatch, terms: Terms
) -> tuple[int, list[str]]:
    """Stores one by one, refusing what exceeds the stock. Returns (new orders, refused ids).

    A refused reservation becomes a cancelled order, so that its buyer is told, and an outbox row
    that releases it in Redis.
    """
    stored, refused = 0, []
    for index in range(len(batch)):
        single = batch.one(index)
        try:
            stored += await store_orders(connection, single, terms)
        except asyncpg.CheckViolationError as error:
            if not is_oversold(error):
                raise
            await _refuse(connection, single, terms)
            refused.append(single.ids[0])
    return stored, refused


def is_oversold(error: asyncpg.CheckViolationError) -> bool:
    """Whether the database's last guard against overselling tripped."""
    return bool(error.constraint_name == NO_OVERSELL)


async def _refuse(connection: Connection, single: OrderBatch, terms: Terms) -> None:
    items, amount_minor = _cart(single.texts[0].decode(), terms.prices)
    with postgres_errors():
        await connection.execute(
            """
            WITH refused AS (
                INSERT INTO orders (sale_id, reservation_id, user_id, items, amount_minor, currency,
                                    status, status_reason, reserved_at, reserved_until)
                SELECT $1, $2, $3, $4::text::jsonb, coalesce(terms.amount_minor, $5),
                       coalesce(terms.currency, $6), 'cancelled', 'oversold',
                       to_timestamp($7::bigint / 1000.0), to_timestamp($8::bigint)
                FROM (VALUES ($1, $2)) AS refused(sale_id, reservation_id)
                LEFT JOIN checkouts terms USING (sale_id, reservation_id)
                ON CONFLICT DO NOTHING
                RETURNING sale_id, reservation_id, user_id
            )
            INSERT INTO outbox (kind, sale_id, reference, user_id, reason)
            SELECT 'release', sale_id, reservation_id, user_id, 'released' FROM refused
            """,
            single.sale_id,
            single.ids[0],
            single.users[0],
            items,
            amount_minor,
            terms.currency,
            single.at_ms[0],
            single.until_s[0],
        )


async def bury_entry(
    connection: Connection, sale_id: str, entry_id: str, body: bytes, error: str
) -> None:
    """Keeps a stream entry that cannot be stored, for a person to look at."""
    with postgres_errors():
        await connection.execute(
            """
            INSERT INTO dead_letters (source, sale_id, reference, body, error)
            VALUES ('stream', $1, $2, $3, $4) ON CONFLICT DO NOTHING
            """,
            sale_id,
            entry_id,
            body,
            error,
        )


def _cart(text: str, prices: Mapping[str, int]) -> tuple[str, int]:
    """(items as JSON, amount in minor units) of an items text."""
    items = items_from_text(text)
    if unknown := [item.sku for item in items if item.sku not in prices]:
        raise UnknownWish(f"SKU {unknown[0]} is not of this sale")
    amount = sum(prices[item.sku] * item.quantity for item in items)
    return msgspec.json.encode({item.sku: item.quantity for item in items}).decode(), amount


def entry_order(entry_id: str) -> tuple[int, int]:
    """Stream ids in their order: '12-9' before '12-10'."""
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence)


def newest_of(entry_ids: Sequence[str]) -> str:
    """The newest of some stream ids."""
    return max(entry_ids, key=entry_order, default="0-0")
