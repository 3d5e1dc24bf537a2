"""A served engine's waiting rooms: switched on, entered, and the tickets that come of it."""

from dataclasses import dataclass, field
from typing import Any

from engine.admission.room.settings import RoomChanges
from engine.admission.room.store import Entered
from ext import Room
from tests.support.front import Served
from tests.support.waiting import until


@dataclass
class Visitors:
    """Those who entered one sale's room, and their tickets."""

    served: Served
    sale_id: str
    room: Room
    tickets: dict[str, bytes] = field(default_factory=dict)

    async def enter(self, user: str) -> str:
        """The user's ticket, in the words of the Queue-Ticket header."""
        store = self.served.engine.rooms.store
        entered = await store.enter(self.sale_id, user, holds_ticket=False)
        assert isinstance(entered, Entered), entered
        now_s = self.served.engine.clock.now_ms() / 1000
        self.tickets[user] = self.room.issue(user, entered.number, now_s)[0]
        return self.tickets[user].decode()

    def signed(self, user: str, number: int, seconds: int = 300, sale: str | None = None) -> str:
        """A genuine ticket, whoever was given the number."""
        now_s = self.served.engine.clock.now_ms() // 1000
        key = self.served.engine.rooms.tickets
        named = sale or self.sale_id
        return key.sign(named, user, number, now_s, now_s + seconds, 0, False).decode()

    async def are_served(self, number: int) -> None:
        """Returns once everybody up to that number is."""

        async def served() -> bool:
            return self.room.serving >= number

        await until(served, f"number {number} is served")


async def open_room(served: Served, sale_id: str = "demo", **changes: Any) -> Visitors:
    """Switches a sale's room on; its front follows it when this returns."""
    engine = served.engine
    await engine.room_control.change(sale_id, "tester", RoomChanges(on=True, **changes))
    await engine.room_control.sync()
    engine.directory.forget(sale_id)
    sale = await engine.directory.get(sale_id)
    assert sale is not None
    room = await engine.rooms.follow(sale)
    assert room is not None
    return Visitors(served, sale_id, room)
