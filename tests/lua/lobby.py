"""A sale with a waiting room to try the scripts on, and short ways to ask it for things."""

import asyncio
from collections.abc import Iterable
from typing import Any

from engine.admission.room.settings import RoomSettings
from engine.admission.room.store import (
    Attendance,
    Entered,
    EnterRefused,
    Numbers,
    Proof,
    RoomLook,
    RoomStore,
)
from engine.clock import ManualClock
from engine.inventory import Inventory
from tests.lua.shelf import SALE, put_up

SALE_ID = SALE.sale_id
SEED = "5eed" * 16
PERIOD = 45  # Seconds: absent_seconds of the room.


def room_settings(**changes: Any) -> RoomSettings:
    return RoomSettings(**({"revision": 1, "on": True, "absent_seconds": PERIOD} | changes))


async def open_room(
    store: RoomStore,
    inventory: Inventory,
    clock: ManualClock,
    *,
    units: int = 100_000,
    sale: dict[str, Any] | None = None,
    numbers: Numbers = Numbers(),  # noqa: B008  # a value
    **changes: Any,
) -> None:
    """A sale whose room is on, and a first turn of its crank."""
    await put_up(inventory, clock, {"black": units}, **(sale or {}))
    assert await store.furnish(SALE_ID, room_settings(**changes), SEED, numbers)
    await store.serve(SALE_ID, 0)


async def enter(
    store: RoomStore,
    *users: str,
    holds_ticket: bool = False,
    number: int = 0,
    proof: Proof | None = None,
) -> list[str]:
    """The words for people who come at once, numbers included."""
    known: dict[str, Any] = {"holds_ticket": holds_ticket, "number": number, "proof": proof}
    wishes = (store.enter(SALE_ID, user, **known) for user in users)
    return [word_of(answer) for answer in await asyncio.gather(*wishes)]


async def crowd(store: RoomStore, count: int, name: str = "user") -> None:
    """So many people enter."""
    for start in range(0, count, 1000):
        numbers = range(start, min(start + 1000, count))
        await enter(store, *(f"{name}-{n}" for n in numbers))


def word_of(answer: Entered | EnterRefused) -> str:
    if isinstance(answer, EnterRefused):
        return answer.reason.value
    return f"{'KEPT' if answer.kept else 'ENTERED'} {answer.number}"


async def turn(
    store: RoomStore, clock: ManualClock, pace: float, *, seconds: float = 1.0, steps: int = 10
) -> RoomLook:
    """Time passes in even steps, with a call of serve after each."""
    for _ in range(steps):
        clock.advance(seconds=seconds / steps)
        await store.serve(SALE_ID, pace)
    return await look(store, pace)


async def look(store: RoomStore, pace: float = 0) -> RoomLook:
    """How the room stands. No time passes."""
    found = await store.serve(SALE_ID, pace)
    assert found is not None
    return found


async def attend(
    store: RoomStore, places: Iterable[int] = (), drawn: int | None = None
) -> Attendance:
    """The people in these places poll."""
    return await store.attend(SALE_ID, bitmap(places), drawn)


async def stay(
    store: RoomStore,
    clock: ManualClock,
    places: Iterable[int],
    *,
    seconds: float,
    drawn: int | None = None,
) -> Attendance:
    """The people in these places go on polling while time passes, and nobody is served."""
    there = tuple(places)
    attendance = await attend(store, there, drawn)
    for _ in range(round(seconds / 5)):
        clock.advance(seconds=5)
        attendance = await attend(store, there, drawn)
        await store.serve(SALE_ID, 0)
    return attendance


def bitmap(places: Iterable[int]) -> bytes:
    """Place p is bit p, as Redis counts bits."""
    bits = bytearray()
    for place in places:
        bits.extend(bytes(max(0, (place >> 3) + 1 - len(bits))))
        bits[place >> 3] |= 0x80 >> (place & 7)
    return bytes(bits)


def places_in(bits: bytes) -> list[int]:
    """The inverse of `bitmap`."""
    return [p for p in range(8 * len(bits)) if bits[p >> 3] & 0x80 >> (p & 7)]
