"""What operators do to sales: Postgres first, with its audit line, then Redis.

Leaves reading for buyers to the directory, and rebuilding after a loss to engine/recovery.
"""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

from msgspec import structs

from engine.clock import Clock
from engine.errors import Conflict, Invalid, RedisUnavailable, StaleEpoch, UnknownSale
from engine.inventory import Inventory, StockSnapshot
from engine.inventory.inventory import Counters
from engine.model import UNITS_MAX, SaleState
from engine.sales.document import SaleDocument
from engine.sales.rows import load_sale, load_sales, load_standings
from engine.sales.sale import Sale
from engine.store.database import Connection, Pool, postgres_errors
from engine.store.fences import fence_sale
from engine.store.rooms import insert_room, new_seed
from engine.store.sales import (
    NewItem,
    Row,
    SaleStanding,
    add_stock,
    fetch_revisions,
    find_restock,
    insert_items,
    insert_sale,
    lock_sale,
    log_audit,
    mark_launched,
    update_settings,
)

logger = logging.getLogger(__name__)

RESTOCK_KEY_MAX: Final = 128  # Characters, as of every idempotency key.


class SaleControl:
    """Changes sales. Each change is one transaction with its audit line; repeating it is fine.

    After the commit Redis is brought up to date. Raises RedisUnavailable or StaleEpoch, saying
    that the change is recorded, if that has to wait; `sync` and `recover` see to it then.
    """

    def __init__(
        self,
        pool: Pool,
        inventory: Inventory,
        clock: Clock,
        seeds: Callable[[], bytes] = new_seed,
    ) -> None:
        """`seeds` makes the secrets that draws go by, 32 bytes each."""
        self._pool = pool
        self._inventory = inventory
        self._clock = clock
        self._seeds = seeds

    async def create(self, document: SaleDocument, actor: str) -> Sale:
        """Makes a sale and puts its stock up. Raises Conflict('sale_exists').

        Its waiting room, if it has one, is furnished by the rooms' own `sync`.
        """
        async with self._transaction() as connection:
            made = await insert_sale(
                connection,
                sale_id=document.sale_id,
                name=document.name,
                opens_at=document.opens_at,
                closes_at=document.closes_at,
                per_user_max=document.per_user_max,
                reservation_seconds=document.reservation_seconds,
                auto_capture=document.auto_capture,
            )
            if not made:
                raise Conflict("sale_exists", f"There is a sale {document.sale_id} already.")
            await insert_items(connection, document.sale_id, _new_items(document))
            if document.room is not None:
                await insert_room(connection, document.sale_id, document.room, self._seeds())
            detail: dict[str, object] = {
                "skus": len(document.items),
                "units": sum(item.units for item in document.items),
            }
            await log_audit(
                connection, actor=actor, action="create", sale_id=document.sale_id, detail=detail
            )
        return await self._publish_recorded(document.sale_id)

    async def get(self, sale_id: str) -> Sale:
        """Raises UnknownSale."""
        sale = await load_sale(self._pool, sale_id)
        if sale is None:
            raise UnknownSale(f"There is no sale {sale_id}.")
        return sale

    async def list(self) -> list[Sale]:
        """The newest SALES_LISTED_MAX sales, newest window first."""
        return await load_sales(self._pool)

    async def standings(self) -> Sequence[SaleStanding]:
        """Every sale there is, in few words, newest window first."""
        return await load_standings(self._pool)

    async def open(self, sale_id: str, actor: str, *, now: bool = False) -> Sale:
        """Lets buyers in within the window; `now` moves an opening still to come to this moment."""
        moment = self._now()
        async with self._locked(sale_id) as (connection, row):
            if row["closes_at"] <= moment:
                raise Conflict("sale_ended", f"Sale {sale_id} has ended; extend it first.")
            opens_at = min(row["opens_at"], moment) if now else row["opens_at"]
            await self._change(
                connection, row, actor, "open", state=SaleState.OPEN, opens_at=opens_at
            )
        return await self._publish_recorded(sale_id)

    async def pause(self, sale_id: str, actor: str) -> Sale:
        """Lets nobody in until `resume`. Raises Conflict('sale_closed')."""
        return await self._set_state(sale_id, actor, "pause", SaleState.PAUSED)

    async def resume(self, sale_id: str, actor: str) -> Sale:
        """Ends a pause. Raises Conflict('sale_closed')."""
        return await self._set_state(sale_id, actor, "resume", SaleState.OPEN)

    async def close(self, sale_id: str, actor: str) -> Sale:
        """Ends the sale early. What is reserved stays reserved. `open` undoes it."""
        async with self._locked(sale_id) as (connection, row):
            await self._change(connection, row, actor, "close", state=SaleState.CLOSED)
        return await self._publish_recorded(sale_id)

    async def extend(self, sale_id: str, closes_at: datetime, actor: str) -> Sale:
        """Moves the end of the window to a later time."""
        if closes_at.tzinfo is None:
            raise Invalid("closes_at", "must have an offset")
        closes_at = closes_at.astimezone(UTC)
        async with self._locked(sale_id) as (connection, row):
            if closes_at < row["closes_at"] or closes_at <= self._now():
                raise Invalid("closes_at", "must be later than now and than the present end")
            await self._change(connection, row, actor, "extend", closes_at=closes_at)
        return await self._publish_recorded(sale_id)

    async def restock(
        self, sale_id: str, sku: str, units: int, actor: str, key: str | None = None
    ) -> Sale:
        """Puts more units of a SKU up, once per key. A key is the caller's name for this restock."""
        if not 1 <= units <= UNITS_MAX:
            raise Invalid("units", f"must be a whole number from 1 to {UNITS_MAX}")
        if key is not None and not 1 <= len(key) <= RESTOCK_KEY_MAX:
            raise Invalid("key", f"must have 1 to {RESTOCK_KEY_MAX} characters")
        async with self._locked(sale_id) as (connection, _):
            if key is None or not await _is_repeated(connection, sale_id, sku, units, key):
                total = await add_stock(connection, sale_id, sku, units, key)
                _check_total(total)
                detail: dict[str, object] = {"sku": sku, "units": units, "key": key}
                await log_audit(
                    connection, actor=actor, action="restock", sale_id=sale_id, detail=detail
                )
        return await self._publish_recorded(sale_id)

    async def publish(self, sale: Sale) -> None:
        """Brings Redis to what Postgres says. Idempotent; an older copy of a sale changes nothing.

        Never puts the stock of a sale up a second time: that is for `recover`. Leaves a fenced sale
        alone. Raises RedisUnavailable, or StaleEpoch if Redis does not hold this sale's stock.
        """
        if sale.fenced is not None:
            return
        if not sale.launched:
            await self._launch(sale)
        stock = (await self._inventory.snapshot(sale.sale_id)).stock
        for item in sale.items:
            known = stock.get(item.sku)
            if known is None or known.stocked < item.units:
                _check_epoch(await self._inventory.restock(sale.ref, item.sku, item.units), sale)
        # The revision goes last: where Redis has it, the stock is there too.
        _check_epoch(await self._inventory.configure(sale.ref, sale.settings), sale)

    async def sync(self) -> int:
        """Publishes every sale that Redis lags behind on. Returns how many it brought up to date."""
        with postgres_errors():
            async with self._pool.acquire() as connection:
                wanted = await fetch_revisions(connection)
        configs = await self._inventory.configs([row["sale_id"] for row in wanted])
        return sum(
            [
                await self._publish_lagging(row["sale_id"])
                for row, config in zip(wanted, configs, strict=True)
                if _lags(row, config)
            ]
        )

    async def _publish_lagging(self, sale_id: str) -> bool:
        sale = await self.get(sale_id)
        try:
            await self.publish(sale)
        except StaleEpoch as error:
            logger.warning("%s", error, extra={"action": "publish_refused", "sale_id": sale_id})
            return False
        return sale.fenced is None

    async def _publish_recorded(self, sale_id: str) -> Sale:
        try:
            await self.publish(await self.get(sale_id))
        except RedisUnavailable as error:
            raise RedisUnavailable("Recorded; takes effect when Redis answers.") from error
        except StaleEpoch as error:
            raise StaleEpoch("Recorded; takes effect once the sale is recovered.") from error
        return await self.get(sale_id)

    async def _launch(self, sale: Sale) -> None:
        # Nobody can buy before Postgres knows that the stock is up: a sale that is lost in between
        # is put up again, and one that is lost later is known to have been there.
        stock = {item.sku: Counters(item.units, 0, 0) for item in sale.items}
        shut = structs.replace(sale.settings, revision=0, state=SaleState.PAUSED)
        if await self._inventory.launch(sale.ref, shut, stock) == "EXISTS":
            await self._check_own(sale)
        with postgres_errors():
            async with self._pool.acquire() as connection:
                await mark_launched(connection, sale.sale_id)

    async def _check_own(self, sale: Sale) -> None:
        """Goes on only with a launch of this sale that was not finished, or that somebody finished."""
        found = await self._inventory.snapshot(sale.sale_id)
        if _is_unfinished_launch(sale, found) or (await self.get(sale.sale_id)).launched:
            return
        reason = "Redis holds another sale of this name; Postgres was made anew or set back"
        async with self._transaction() as connection:
            await mark_launched(connection, sale.sale_id)
            await fence_sale(connection, sale.sale_id, sale.epoch, reason)
        logger.critical(
            "Sale %s is shut: %s. Run `doorbuster recover %s`.",
            sale.sale_id,
            reason,
            sale.sale_id,
            extra={"action": "sale_fenced", "sale_id": sale.sale_id, "reason": reason},
        )
        await self._inventory.fence(sale.ref)
        raise StaleEpoch(f"Sale {sale.sale_id} is shut: {reason}.")

    async def _set_state(self, sale_id: str, actor: str, action: str, state: SaleState) -> Sale:
        async with self._locked(sale_id) as (connection, row):
            if row["state"] == SaleState.CLOSED:
                raise Conflict("sale_closed", f"Sale {sale_id} is closed; open it first.")
            await self._change(connection, row, actor, action, state=state)
        return await self._publish_recorded(sale_id)

    async def _change(
        self,
        connection: Connection,
        row: Row,
        actor: str,
        action: str,
        *,
        state: SaleState | None = None,
        opens_at: datetime | None = None,
        closes_at: datetime | None = None,
    ) -> None:
        """Writes what differs from the row, with its audit line; nothing if nothing does."""
        before = (row["state"], row["opens_at"], row["closes_at"])
        after = (
            state.value if state else row["state"],
            opens_at or row["opens_at"],
            closes_at or row["closes_at"],
        )
        if after == before:
            return
        await update_settings(
            connection, row["sale_id"], state=after[0], opens_at=after[1], closes_at=after[2]
        )
        names = ("state", "opens_at", "closes_at")
        detail: dict[str, object] = {
            name: {"from": old, "to": new}
            for name, old, new in zip(names, before, after, strict=True)
            if old != new
        }
        await log_audit(
            connection, actor=actor, action=action, sale_id=row["sale_id"], detail=detail
        )

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                yield connection

    @asynccontextmanager
    async def _locked(self, sale_id: str) -> AsyncIterator[tuple[Connection, Row]]:
        async with self._transaction() as connection:
            row = await lock_sale(connection, sale_id)
            if row is None:
                raise UnknownSale(f"There is no sale {sale_id}.")
            yield connection, row

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)


def _new_items(document: SaleDocument) -> list[NewItem]:
    return [
        NewItem(item.sku, item.name, item.price.amount_minor, item.price.currency, item.units)
        for item in document.items
    ]


async def _is_repeated(
    connection: Connection, sale_id: str, sku: str, units: int, key: str
) -> bool:
    before = await find_restock(connection, sale_id, key)
    if before is None:
        return False
    if (before["sku"], before["units"]) != (sku, units):
        raise Conflict("idempotency_mismatch", f"Key {key} was used for another restock.")
    return True


def _check_total(total: int | None) -> None:
    if total is None:
        raise Invalid("sku", "no such SKU in this sale")
    if total > UNITS_MAX:
        raise Invalid("units", f"would put up more than {UNITS_MAX} in all")


def _lags(wanted: Row, config: dict[str, str]) -> bool:
    if not wanted["launched"]:
        return True
    # Another epoch, a fence, a missing config: not for us to mend.
    if config.get("epoch") != str(wanted["epoch"]) or config["state"] == SaleState.DRAINING:
        return False
    return bool(int(config["revision"]) < wanted["revision"])


def _is_unfinished_launch(sale: Sale, found: StockSnapshot) -> bool:
    """Whether Redis holds what `_launch` puts up first: nobody could have bought of it.

    Its units may be fewer than the sale has now: it was restocked since.
    """
    units = {item.sku: item.units for item in sale.items}
    return (
        found.epoch == sale.epoch
        and found.state is SaleState.PAUSED
        and found.config["revision"] == "0"
        and found.stock.keys() <= units.keys()
        and all(counters.stocked <= units[sku] for sku, counters in found.stock.items())
    )


def _check_epoch(word: str, sale: Sale) -> None:
    if word == "STALE_EPOCH":
        raise StaleEpoch(f"Redis does not hold the stock of sale {sale.sale_id}: recover it.")
    assert word != "UNKNOWN_SKU", f"sale {sale.sale_id} lacks a SKU in Redis"
