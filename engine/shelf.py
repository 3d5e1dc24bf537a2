"""Sells what is sold outside of sales: ordinary stock, in Postgres alone. Redis is not told.

Takes units for orders and puts units up; what becomes of an order is decided as for any other.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import asyncpg

from engine.clock import Clock
from engine.errors import Conflict, Invalid
from engine.model import SHOP, SKU, UNITS_MAX, OrderStatus
from engine.store.database import Connection, Pool, postgres_errors
from engine.store.orders import NO_OVERSELL
from engine.store.sales import log_audit
from engine.store.shelf import (
    NewOrder,
    change_stocked,
    fetch_placed,
    find_change,
    lock_stocked,
    place_order,
    put_up,
)

RESTOCKED: Final = "restocked"
WRITTEN_OFF: Final = "written_off"
ACTIONS: Final = {RESTOCKED: "restock", WRITTEN_OFF: "write_off"}  # In the audit log.
KEY_MAX: Final = 128  # Characters, as of every idempotency key.
KEY_USED: Final = "The key was used for another change."


class Wish(NamedTuple):
    """An order of ordinary stock, already priced."""

    reservation_id: str
    user_id: str
    items: Mapping[str, int]
    amount_minor: int
    currency: str


class Placed(NamedTuple):
    """The units are held until then. `replayed` says that an earlier call took them."""

    status: OrderStatus
    reserved_until: datetime
    replayed: bool


class ShelfSoldOut(NamedTuple):
    """Nothing is held: too few are left of this SKU."""

    sku: str


class _Change(NamedTuple):
    """Signed units that the stock is to have more."""

    sku: str
    units: int
    reason: str
    actor: str
    key: str | None


class Shelf:
    """The ordinary stock."""

    def __init__(self, pool: Pool, clock: Clock, *, checkout_seconds: int) -> None:
        """An order that is not paid within `checkout_seconds` gives its units back."""
        self._pool = pool
        self._clock = clock
        self._hold = timedelta(seconds=checkout_seconds)

    async def place(self, connection: Connection, wish: Wish) -> Placed | ShelfSoldOut:
        """Makes an order and takes its units, all or none, in the caller's transaction.

        The same reservation id gives the same order again, whatever became of it.
        """
        now = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)
        until = now + self._hold
        order = NewOrder(*wish, reserved_at=now, reserved_until=until)
        placed, short = await place_order(connection, order)
        if placed:
            return Placed(OrderStatus.AWAITING_PAYMENT, until, replayed=False)
        earlier = await fetch_placed(connection, wish.reservation_id)
        if earlier is None:
            assert short is not None, wish
            return ShelfSoldOut(short)
        assert earlier.user_id == wish.user_id, wish.reservation_id
        return Placed(earlier.status, earlier.reserved_until, replayed=True)

    async def restock(self, sku: str, units: int, actor: str, key: str | None = None) -> int:
        """Puts more units of an SKU up; returns the new total, sold ones included.

        The same key adds once, whoever repeats it. Raises Invalid, Conflict('idempotency_mismatch').
        """
        _check(sku, units, key)
        return await self._change(_Change(sku, units, RESTOCKED, actor, key))

    async def write_off(self, sku: str, units: int, actor: str, key: str | None = None) -> int:
        """Takes units that are lost or broken out of the stock; returns the new total.

        Never what is ordered. As `restock`; raises Conflict('sold_out') too.
        """
        _check(sku, units, key)
        return await self._change(_Change(sku, -units, WRITTEN_OFF, actor, key))

    async def put_up(self, connection: Connection, units: Mapping[str, int]) -> dict[str, int]:
        """Adds units of many SKUs in the caller's transaction, which audits it; the new totals."""
        for sku, count in units.items():
            _check(sku, count, None)
        await put_up(connection, list(units))
        return await change_stocked(connection, units, RESTOCKED, None)

    async def _change(self, change: _Change) -> int:
        try:
            with postgres_errors():
                async with self._pool.acquire() as connection, connection.transaction():
                    return await _change_once(connection, change)
        except asyncpg.UniqueViolationError:
            raise Conflict("idempotency_mismatch", KEY_USED) from None
        except asyncpg.CheckViolationError as error:
            if error.constraint_name not in {NO_OVERSELL, "sale_items_stocked_check"}:
                raise
            raise Conflict("sold_out", f"Fewer units of {change.sku} are left.") from None


async def _change_once(connection: Connection, change: _Change) -> int:
    """The new total; what was changed with this key before is not changed again."""
    sku, units, reason, actor, key = change
    if units > 0:
        await put_up(connection, [sku])
    before = await lock_stocked(connection, sku)
    if before is None:
        raise Conflict("sold_out", f"There are no units of {sku}.")
    if key is not None and (earlier := await find_change(connection, reason, key)):
        if (earlier["sku"], earlier["units"]) != (sku, units):
            raise Conflict("idempotency_mismatch", KEY_USED)
        return before
    if before + units > UNITS_MAX:
        raise Invalid("units", f"must leave at most {UNITS_MAX} stocked")
    total = await change_stocked(connection, {sku: units}, reason, key)
    detail: dict[str, object] = {"sku": sku, "units": units, "stocked": total[sku]}
    await log_audit(connection, actor=actor, action=ACTIONS[reason], sale_id=SHOP, detail=detail)
    return total[sku]


def _check(sku: str, units: int, key: str | None) -> None:
    if not SKU.fullmatch(sku):
        raise Invalid("sku", "is no SKU")
    if not 1 <= units <= UNITS_MAX:
        raise Invalid("units", f"must be 1 to {UNITS_MAX}")
    if key is not None and not 1 <= len(key) <= KEY_MAX:
        raise Invalid("key", f"must have 1 to {KEY_MAX} characters")
