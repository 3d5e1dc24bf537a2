"""What operators do to waiting rooms: Postgres first, with its audit line, then Redis.

Leaves the people in a room to the scripts: no change of a setting takes anybody's place.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import structs

from engine.admission.room.settings import RoomChanges, RoomSettings
from engine.admission.room.store import Numbers, RoomStanding, RoomStore
from engine.clock import Clock
from engine.errors import Conflict, RedisUnavailable, UnknownSale
from engine.store.database import Connection, Pool, postgres_errors
from engine.store.rooms import (
    RoomRow,
    fetch_room,
    fetch_rooms,
    insert_room,
    new_seed,
    note_numbers,
    update_room,
)
from engine.store.sales import Row, lock_sale, log_audit

logger = logging.getLogger(__name__)

# A sale that ended is extended sooner than this, or not at all: its room is left alone.
KEPT_AFTER_CLOSING: Final = timedelta(days=1)


class RoomControl:
    """Changes rooms. Each change is one transaction with its audit line; repeating it is fine."""

    def __init__(
        self,
        pool: Pool,
        store: RoomStore,
        clock: Clock,
        seeds: Callable[[], bytes] = new_seed,
    ) -> None:
        """`seeds` makes the secrets that draws go by, 32 bytes each."""
        self._pool = pool
        self._store = store
        self._clock = clock
        self._seeds = seeds

    async def get(self, sale_id: str) -> RoomSettings:
        """The settings; those of a room that is off where the sale never had one. Raises UnknownSale."""
        with postgres_errors():
            async with self._pool.acquire() as connection:
                row = await fetch_room(connection, sale_id)
                if row is None and not await _is_sale(connection, sale_id):
                    raise UnknownSale(f"There is no sale {sale_id}.")
        return RoomSettings() if row is None else row.settings

    async def change(self, sale_id: str, actor: str, changes: RoomChanges) -> RoomSettings:
        """Changes what is given, and makes the room where there was none.

        Raises UnknownSale; Conflict if the order is to change once the sale has opened;
        RedisUnavailable, saying that the change is recorded, if that has to wait: `sync` sees to it.
        """
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                sale = await lock_sale(connection, sale_id)
                if sale is None:
                    raise UnknownSale(f"There is no sale {sale_id}.")
                row = await fetch_room(connection, sale_id)
                await self._record(connection, sale, row, actor, changes)
                row = await fetch_room(connection, sale_id)
        if row is None:
            return RoomSettings()
        try:
            await self._furnish(row)
        except RedisUnavailable as error:
            raise RedisUnavailable("Recorded; takes effect when Redis answers.") from error
        return row.settings

    async def sync(self) -> int:
        """Brings every room in Redis to what Postgres says, and notes how far its numbers have come.

        Returns how many rooms it brought up to date. Meant to be called every second.
        """
        after = self._now() - KEPT_AFTER_CLOSING
        with postgres_errors():
            async with self._pool.acquire() as connection:
                rows = await fetch_rooms(connection, after)
        if not rows:
            return 0
        standings = await self._store.standings([row.sale_id for row in rows])
        pairs = list(zip(rows, standings, strict=True))
        lagging = [row for row, found in pairs if _lags(row, found)]
        for row in lagging:
            await self._furnish(row)
        await self._note(pairs)
        return len(lagging)

    async def _record(
        self,
        connection: Connection,
        sale: Row,
        row: RoomRow | None,
        actor: str,
        changes: RoomChanges,
    ) -> None:
        before = RoomSettings() if row is None else row.settings
        after = structs.replace(before, **changes.given())
        detail = _differences(before, after)
        if not detail:
            return
        if "order" in detail and sale["opens_at"] <= self._now():
            raise Conflict("conflict", "The order is settled once the sale has opened.")
        if row is None:
            await insert_room(connection, sale["sale_id"], after, self._seeds())
        else:
            await update_room(connection, sale["sale_id"], after)
        await log_audit(
            connection, actor=actor, action="change_room", sale_id=sale["sale_id"], detail=detail
        )

    async def _furnish(self, row: RoomRow) -> None:
        numbers = Numbers(row.issued, row.serving, row.drawn)
        if await self._store.furnish(row.sale_id, row.settings, row.seed, numbers):
            logger.info(
                "The room of %s is at revision %d.",
                row.sale_id,
                row.settings.revision,
                extra={"action": "room_furnished", "sale_id": row.sale_id},
            )

    async def _note(self, pairs: list[tuple[RoomRow, RoomStanding]]) -> None:
        moved = [
            (row.sale_id, *found.numbers)
            for row, found in pairs
            if found.seed == row.seed and _moved(row, found.numbers)
        ]
        if moved:
            with postgres_errors():
                async with self._pool.acquire() as connection:
                    await note_numbers(connection, moved)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)


async def _is_sale(connection: Connection, sale_id: str) -> bool:
    found = await connection.fetchval("SELECT 1 FROM sales WHERE sale_id = $1", sale_id)
    return found is not None


def _differences(before: RoomSettings, after: RoomSettings) -> dict[str, object]:
    """Each field that differs, from what to what, as an audit line has it."""
    old, new = structs.asdict(before), structs.asdict(after)
    return {name: {"from": old[name], "to": new[name]} for name in old if old[name] != new[name]}


def _lags(row: RoomRow, found: RoomStanding) -> bool:
    return found.revision < row.settings.revision or found.seed != row.seed


def _moved(row: RoomRow, numbers: Numbers) -> bool:
    return (
        numbers.issued > row.issued
        or numbers.serving > row.serving
        or (row.drawn is None and numbers.drawn is not None)
    )
