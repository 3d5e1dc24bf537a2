"""The waiting rooms in Postgres: their settings, their seeds, and how far their numbers had come."""

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

from engine.admission.room.settings import RoomSettings
from engine.store.database import Connection

SEED_BYTES: Final = 32  # As long as the hash that commits to it.

# The settings as one JSON object in the words of RoomSettings, of the row of sale_rooms named `room`.
ROOM_JSON: Final = """jsonb_build_object('revision', room.revision, 'on', room.is_on,
    'order', room.served_in, 'prequeue_seconds', room.prequeue_seconds, 'pace_max', room.pace_max,
    'over_admission', room.over_admission, 'admission_seconds', room.admission_seconds,
    'absent_seconds', room.absent_seconds, 'proof_difficulty', room.proof_difficulty,
    'captcha', room.captcha, 'seed_hash', encode(sha256(room.seed), 'hex'))"""


class RoomRow(NamedTuple):
    """A sale's room. `seed` is hex."""

    sale_id: str
    settings: RoomSettings
    seed: str
    issued: int
    serving: int
    drawn: int | None


def new_seed() -> bytes:
    """What a draw will go by: nobody can guess it."""
    return secrets.token_bytes(SEED_BYTES)


async def insert_room(
    connection: Connection, sale_id: str, settings: RoomSettings, seed: bytes
) -> None:
    """Makes a sale's room."""
    await connection.execute(
        """
        INSERT INTO sale_rooms (sale_id, is_on, served_in, prequeue_seconds, pace_max,
            over_admission, admission_seconds, absent_seconds, proof_difficulty, captcha, seed)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        """,
        sale_id,
        *_values(settings),
        seed,
    )


async def update_room(connection: Connection, sale_id: str, settings: RoomSettings) -> None:
    """Writes settings and counts the change."""
    await connection.execute(
        """
        UPDATE sale_rooms SET revision = revision + 1, is_on = $2, served_in = $3,
            prequeue_seconds = $4, pace_max = $5, over_admission = $6, admission_seconds = $7,
            absent_seconds = $8, proof_difficulty = $9, captcha = $10
        WHERE sale_id = $1
        """,
        sale_id,
        *_values(settings),
    )


async def fetch_room(connection: Connection, sale_id: str) -> RoomRow | None:
    """The room of a sale, or None if it has none."""
    rows = await connection.fetch(f"{_SELECT} WHERE room.sale_id = $1", sale_id)
    return _row(rows[0]) if rows else None


async def fetch_rooms(connection: Connection, closing_after: datetime) -> list[RoomRow]:
    """The rooms of all sales that close after a moment."""
    rows = await connection.fetch(
        f"{_SELECT} JOIN sales USING (sale_id) WHERE closes_at > $1 ORDER BY sale_id",
        closing_after,
    )
    return [_row(row) for row in rows]


async def note_numbers(
    connection: Connection, numbers: Sequence[tuple[str, int, int, int | None]]
) -> None:
    """Remembers (sale_id, issued, serving, drawn) of rooms. Numbers only grow; the draw is held once."""
    await connection.execute(
        """
        UPDATE sale_rooms SET issued = greatest(sale_rooms.issued, now.issued),
            serving = greatest(sale_rooms.serving, now.serving),
            drawn = coalesce(sale_rooms.drawn, now.drawn)
        FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[])
            AS now (sale_id, issued, serving, drawn)
        WHERE sale_rooms.sale_id = now.sale_id
        """,
        *map(list, zip(*numbers, strict=True)),
    )


_SELECT: Final = f"""SELECT room.sale_id, {ROOM_JSON} AS settings, encode(seed, 'hex') AS seed, issued, serving,
    drawn FROM sale_rooms room"""  # noqa: S608


def _row(row: Mapping[str, Any]) -> RoomRow:
    settings = msgspec.convert(row["settings"], RoomSettings)
    return RoomRow(
        row["sale_id"], settings, row["seed"], row["issued"], row["serving"], row["drawn"]
    )


def _values(settings: RoomSettings) -> list[object]:
    return [
        settings.on,
        settings.order.value,
        settings.prequeue_seconds,
        settings.pace_max,
        settings.over_admission,
        settings.admission_seconds,
        settings.absent_seconds,
        settings.proof_difficulty,
        settings.captcha,
    ]
