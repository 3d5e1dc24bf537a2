"""The sandbox carrier's memory: parcels and what is still to be told of them, in one SQLite file.

A parcel moves by the clock alone, so a carrier that was down for a while goes on where it should be.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from api.carriers.protocol import Parcel, ParcelState, TrackingEvent

STAGES: Final = tuple(ParcelState)
PLACE_CHARACTERS_MAX: Final = 100
RETRY_MS: Final = 200  # Doubles up to the next.
RETRY_MS_MAX: Final = 60_000

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS parcels (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    shipment_id TEXT NOT NULL UNIQUE,
    place       TEXT NOT NULL,
    created_ms  INTEGER NOT NULL,
    step_ms     INTEGER NOT NULL,
    cancelled   INTEGER NOT NULL DEFAULT 0,
    told        INTEGER NOT NULL DEFAULT 0,  -- how many stages were told
    attempts    INTEGER NOT NULL DEFAULT 0,
    due_ms      INTEGER NOT NULL             -- when the next one is told
);
CREATE INDEX IF NOT EXISTS parcels_due ON parcels (due_ms) WHERE told < 4 AND NOT cancelled;
"""

Value = TypeVar("Value")


class Kept(NamedTuple):
    """A parcel as it is remembered."""

    number: int
    shipment_id: str
    place: str
    created_ms: int
    step_ms: int
    cancelled: int
    told: int
    attempts: int
    due_ms: int

    @property
    def tracking_number(self) -> str:
        return f"SB{self.number:010d}"

    def reaches_ms(self, stage: int) -> int:
        """When it reaches the stage, counted from 0."""
        return self.created_ms + (stage + 1) * self.step_ms

    def event(self, stage: int) -> TrackingEvent:
        return TrackingEvent(
            event_id=f"{self.tracking_number}-{stage}",
            shipment_id=self.shipment_id,
            tracking_number=self.tracking_number,
            state=STAGES[stage],
            happened_at=datetime.fromtimestamp(self.reaches_ms(stage) / 1000, UTC),
            place=self.place if stage else "",
        )

    def events(self, now_ms: int) -> list[TrackingEvent]:
        """All that happened to it so far."""
        if self.cancelled:
            return []
        stages = range(len(STAGES))
        return [self.event(stage) for stage in stages if self.reaches_ms(stage) <= now_ms]


class Depot:
    """Parcels. Every method is a transaction of its own."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, check_same_thread=False)
        # WAL outlives a kill of this process; only a power cut could take the last commits.
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.executescript(SCHEMA)
        self._turn = asyncio.Lock()

    async def create(self, parcel: Parcel, step_ms: int, now_ms: int) -> Kept:
        """The parcel, new or as it was made before; `cancelled` where it was."""
        place = str(parcel.address.get("city", ""))[:PLACE_CHARACTERS_MAX]
        return await self._run(
            lambda connection: _keep(
                connection, parcel.shipment_id, place, step_ms, now_ms, cancelled=False
            )
        )

    async def find(self, shipment_id: str) -> Kept | None:
        return await self._run(lambda connection: _find(connection, shipment_id))

    async def cancel(self, shipment_id: str, now_ms: int) -> bool:
        """False if it was picked up. One that was never seen is not taken on later."""
        return await self._run(lambda connection: _cancel(connection, shipment_id, now_ms))

    async def due(self, now_ms: int, count: int) -> list[Kept]:
        """Those of which something is to be told."""
        return await self._run(
            lambda connection: [
                Kept(*row)
                for row in connection.execute(
                    "SELECT * FROM parcels WHERE told < 4 AND NOT cancelled AND due_ms <= ?"
                    " ORDER BY due_ms LIMIT ?",
                    (now_ms, count),
                )
            ]
        )

    async def note(self, told: Sequence[Kept], again: Sequence[Kept], now_ms: int) -> None:
        """`told` were heard, `again` were not."""
        forth = [(kept.reaches_ms(kept.told + 1), kept.number) for kept in told]
        back = [(now_ms + _pause_ms(kept.attempts), kept.number) for kept in again]

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "UPDATE parcels SET told = told + 1, attempts = 0, due_ms = ? WHERE number = ?",
                forth,
            )
            connection.executemany(
                "UPDATE parcels SET attempts = attempts + 1, due_ms = ? WHERE number = ?", back
            )

        await self._run(write)

    def close(self) -> None:
        self._connection.close()

    async def _run(self, operation: Callable[[sqlite3.Connection], Value]) -> Value:
        async with self._turn:
            return await asyncio.to_thread(self._commit, operation)

    def _commit(self, operation: Callable[[sqlite3.Connection], Value]) -> Value:
        with self._connection:
            return operation(self._connection)


def _keep(
    connection: sqlite3.Connection,
    shipment_id: str,
    place: str,
    step_ms: int,
    now_ms: int,
    *,
    cancelled: bool,
) -> Kept:
    connection.execute(
        "INSERT INTO parcels (shipment_id, place, created_ms, step_ms, cancelled, due_ms)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (shipment_id, place, now_ms, step_ms, cancelled, now_ms + step_ms),
    )
    kept = _find(connection, shipment_id)
    assert kept is not None
    return kept


def _find(connection: sqlite3.Connection, shipment_id: str) -> Kept | None:
    row = connection.execute(
        "SELECT * FROM parcels WHERE shipment_id = ?", (shipment_id,)
    ).fetchone()
    return Kept(*row) if row else None


def _cancel(connection: sqlite3.Connection, shipment_id: str, now_ms: int) -> bool:
    kept = _keep(connection, shipment_id, "", 0, now_ms, cancelled=True)
    if not kept.cancelled and kept.reaches_ms(0) <= now_ms:
        return False
    connection.execute("UPDATE parcels SET cancelled = 1 WHERE number = ?", (kept.number,))
    return True


def _pause_ms(attempts: int) -> int:
    return int(min(RETRY_MS * 2 ** min(attempts, 20), RETRY_MS_MAX))
