"""Keeps carts in Postgres. Each change is one transaction that holds its cart; prices are others' business."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from importlib.resources import files
from typing import Final, NamedTuple

import asyncpg

from engine.errors import Conflict, Invalid
from engine.model import QUANTITY_MAX, Money
from engine.store.database import Connection, Pool, postgres_errors

LINES_MAX: Final = 100  # Of one cart: a shopping list, not a stock.
SWEEP_BATCH_MAX: Final = 500  # Guests' carts deleted in one statement.

_SQL: Final = files("api.cart") / "sql"
_BEGIN_CHANGE: Final = (_SQL / "begin_change.sql").read_text()
_PUT_LINE: Final = (_SQL / "put_line.sql").read_text()
_MERGE_LINES: Final = (_SQL / "merge_lines.sql").read_text()
_TAKE_BOUGHT: Final = (_SQL / "take_bought.sql").read_text()
_PUT_BACK: Final = (_SQL / "put_back.sql").read_text()


class CartLine(NamedTuple):
    """Some units of one SKU of a sale or of the shop, and what one cost when they were chosen."""

    sale_id: str
    sku: str
    quantity: int
    price_minor: int | None
    currency: str | None

    @property
    def key(self) -> tuple[str, str]:
        return self.sale_id, self.sku


class Cart(NamedTuple):
    """A cart at one moment. Revision 0: there never was one."""

    revision: int
    lines: tuple[CartLine, ...]


class Owner(NamedTuple):
    """Whose cart it is."""

    cart_id: str
    is_guest: bool

    @classmethod
    def user(cls, user_id: str) -> "Owner":
        return cls(f"user:{user_id}", is_guest=False)

    @classmethod
    def guest(cls, guest_id: str) -> "Owner":
        return cls(f"guest:{guest_id}", is_guest=True)


class Carts:
    """The carts. `expected` is the revision a change was made for; None: whatever it is by now.

    Changes raise Conflict: `cart_changed` where another came between, `cart_full`.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def get(self, owner: Owner) -> Cart:
        with postgres_errors():
            async with self._pool.acquire() as connection:
                return await read_cart(connection, owner)

    async def put(
        self,
        owner: Owner,
        key: tuple[str, str],
        quantity: int,
        price: Money | None,
        *,
        at: datetime,
        expected: int | None,
        more: bool = False,
    ) -> None:
        """Sets a line's quantity, or with `more` adds to it. Raises Invalid for too many."""
        price_now = (price.amount_minor, price.currency) if price else (None, None)
        try:
            async with self._changing(owner, at, expected) as connection:
                count = await connection.fetchval(
                    _PUT_LINE, owner.cart_id, *key, quantity, *price_now, at, more
                )
                if count > LINES_MAX:
                    raise Conflict("cart_full", f"A cart has at most {LINES_MAX} lines.")
        except asyncpg.CheckViolationError as error:
            if error.constraint_name != "cart_lines_quantity_check":
                raise
            raise Invalid("quantity", f"must be at most {QUANTITY_MAX} in all") from None

    async def remove(
        self,
        owner: Owner,
        key: tuple[str, str] | None,
        *,
        at: datetime,
        expected: int | None,
    ) -> None:
        """Removes a line, or with None all of them."""
        async with self._changing(owner, at, expected) as connection:
            await connection.execute(
                "DELETE FROM cart_lines WHERE cart_id = $1"
                " AND ($2::text IS NULL OR (sale_id, sku) = ($2, $3::text))",
                owner.cart_id,
                *(key or (None, None)),
            )

    async def merge(self, guest: Owner, user: Owner, at: datetime) -> bool:
        """Moves a guest's lines into a user's cart, once: of a line in both the larger quantity stays.

        The guest's newest lines come in as far as there is room. False if there was nothing to move.
        """
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                # Whoever merges at the same moment, from another device, finds no cart after this.
                if not await connection.fetchval(
                    "SELECT true FROM carts WHERE cart_id = $1 FOR UPDATE", guest.cart_id
                ):
                    return False
                await _begin_change(connection, user, at, None)
                await connection.execute(_MERGE_LINES, guest.cart_id, user.cart_id, LINES_MAX)
                await connection.execute("DELETE FROM carts WHERE cart_id = $1", guest.cart_id)
        return True

    async def sweep(self, now: datetime, days: int) -> int:
        """Deletes guests' carts that nobody changed for so long; returns how many."""
        with postgres_errors():
            async with self._pool.acquire() as connection:
                rows = await connection.fetch(
                    """
                    DELETE FROM carts WHERE cart_id = ANY (ARRAY(
                        SELECT cart_id FROM carts WHERE is_guest AND changed_at < $1
                        LIMIT $2 FOR UPDATE SKIP LOCKED))
                    RETURNING cart_id
                    """,
                    now - timedelta(days=days),
                    SWEEP_BATCH_MAX,
                )
        return len(rows)

    @asynccontextmanager
    async def _changing(
        self, owner: Owner, at: datetime, expected: int | None
    ) -> AsyncIterator[Connection]:
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                await _begin_change(connection, owner, at, expected)
                yield connection


async def read_cart(connection: Connection, owner: Owner, *, lock: bool = False) -> Cart:
    """The lines in the order in which they were added. With `lock` nobody changes it meanwhile."""
    if lock:
        await connection.execute("SELECT FROM carts WHERE cart_id = $1 FOR UPDATE", owner.cart_id)
    rows = await connection.fetch(
        """
        SELECT revision, sale_id, sku, quantity, price_minor, currency
        FROM carts LEFT JOIN cart_lines USING (cart_id)
        WHERE cart_id = $1 ORDER BY added_at, sale_id, sku
        """,
        owner.cart_id,
    )
    if not rows:
        return Cart(0, ())
    lines = (CartLine(*list(row)[1:]) for row in rows if row["sku"] is not None)
    return Cart(rows[0]["revision"], tuple(lines))


async def take_bought(
    connection: Connection, owner: Owner, sale_id: str, bought: Mapping[str, int], at: datetime
) -> None:
    """Takes what was ordered out of the cart; what was added meanwhile stays."""
    await connection.execute(
        _TAKE_BOUGHT, owner.cart_id, sale_id, list(bought), list(bought.values()), at
    )


async def put_back(
    connection: Connection, owner: Owner, lines: Sequence[CartLine], at: datetime
) -> None:
    """Puts lines of one group back that were taken out and not bought after all."""
    await _begin_change(connection, owner, at, None)
    await connection.execute(
        _PUT_BACK,
        owner.cart_id,
        lines[0].sale_id,
        [line.sku for line in lines],
        [line.quantity for line in lines],
        [line.price_minor for line in lines],
        lines[0].currency,
        at,
        QUANTITY_MAX,
    )


async def _begin_change(
    connection: Connection, owner: Owner, at: datetime, expected: int | None
) -> None:
    """Makes the cart if there is none, and holds it until the transaction ends."""
    revision = await connection.fetchval(_BEGIN_CHANGE, *owner, at, expected)
    if revision is None:
        raise Conflict("cart_changed", "The cart was changed meanwhile; read it again.")
