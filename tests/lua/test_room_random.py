"""Whatever happens to a room, in whatever order: nobody's number is another's, nobody goes back."""

import random
from math import ceil
from typing import Any

import pytest
from redis.asyncio import Redis

from engine.admission.room.store import Entered, RoomLook, RoomStore
from engine.clock import ManualClock
from engine.inventory import Inventory
from engine.keys import room_keys
from engine.model import SaleState
from tests.lua.lobby import SALE_ID, SEED, bitmap, open_room, room_settings
from tests.lua.shelf import SALE, ask, open_settings, put_up, wish

STEPS = 400
UNITS = 60
PACE = 25.0
OVER = 1.5
SEEDS = range(20_261_111, 20_261_119)


class Storm:
    """Two fronts, a crowd, and an operator who cannot leave the settings alone."""

    def __init__(self, seed: int, redis: Redis, inventory: Inventory, clock: ManualClock) -> None:
        self.draw = random.Random(seed)
        self.redis, self.inventory, self.clock = redis, inventory, clock
        self.fronts = [RoomStore(redis, clock, our_clock_rules=True) for _ in range(2)]
        self.revision = 1
        self.numbers: dict[int, str] = {}  # who has it
        self.reserved: list[tuple[str, str]] = []
        self.last: RoomLook | None = None
        self.stock_lost = False

    @property
    def front(self) -> RoomStore:
        return self.draw.choice(self.fronts)

    async def step(self) -> None:
        deeds = (
            (self.enter, 6),
            (self.serve, 12),
            (self.attend, 3),
            (self.reserve, 5),
            (self.give_back, 2),
            (self.change, 1),
            (self.set_clock, 1),
            (self.lose_everything, 0.3),
        )
        (deed,) = self.draw.choices([deed for deed, _ in deeds], [weight for _, weight in deeds])
        await deed()
        self.clock.advance(seconds=self.draw.choice([0.01, 0.1, 0.1, 0.1, 2]))

    async def enter(self) -> None:
        user = f"user-{self.draw.randrange(300)}"
        found = await self.front.enter(SALE_ID, user, holds_ticket=self.draw.random() < 0.3)
        if isinstance(found, Entered):
            assert self.numbers.setdefault(found.number, user) == user

    async def serve(self) -> None:
        look = await self.front.serve(SALE_ID, PACE)
        assert look is not None
        if self.last is not None:
            self.check(self.last, look)
        self.last = look

    def check(self, before: RoomLook, now: RoomLook) -> None:
        assert now.issued >= before.issued
        assert before.serving <= now.serving <= now.issued
        assert 0 <= now.waiting <= now.issued - now.serving
        served = now.admitted - before.admitted
        if served > 0:
            assert now.state is SaleState.OPEN
            assert served <= PACE + 1
            assert served <= ceil(OVER * now.available)

    async def attend(self) -> None:
        top = max(self.numbers, default=1)
        places = {self.draw.randint(1, top) for _ in range(self.draw.randrange(40))}
        before = await self.admitted()
        attendance = await self.front.attend(SALE_ID, bitmap(places), None)
        assert 0 <= attendance.mark <= top
        back = await self.admitted() - before
        assert 0 <= back <= len(places)
        if self.last is not None:  # Who is back was passed over before, and is not served now.
            assert self.last.admitted + back <= self.last.serving
            self.last = self.last._replace(admitted=self.last.admitted + back)

    async def admitted(self) -> int:
        found: Any = await self.redis.hget(room_keys(SALE_ID).room, "admitted")
        return int(found or 0)

    async def reserve(self) -> None:
        served = [n for n in self.numbers if self.last is not None and n <= self.last.serving]
        if not served:
            return
        number = self.draw.choice(served)
        request = wish(self.numbers[number], "black*1", key=f"{self.clock.now_ms()}")
        before = await self.redis.getbit(room_used(), number)
        (word,) = await ask(self.inventory, request, tickets=[number])
        if word == "RESERVED":
            assert not before
            self.reserved.append((request.user_id, request.reservation_id))
        elif before:
            assert word in {"TICKET_USED", "PAUSED"}

    async def give_back(self) -> None:
        if self.reserved:
            user, name = self.reserved.pop(self.draw.randrange(len(self.reserved)))
            await self.inventory.release(SALE, [(user, name, "expired")])

    async def change(self) -> None:
        self.revision += 1
        settings = room_settings(
            revision=self.revision,
            on=self.draw.random() < 0.8,
            over_admission=OVER,
            admission_seconds=self.draw.choice([10, 60, 600]),
            absent_seconds=self.draw.choice([20, 45]),
        )
        await self.front.furnish(SALE_ID, settings, SEED)
        state = self.draw.choice([SaleState.OPEN, SaleState.OPEN, SaleState.PAUSED])
        await self.inventory.configure(
            SALE, open_settings(self.clock, revision=self.revision, state=state, **WINDOW)
        )

    async def set_clock(self) -> None:
        self.clock.advance(seconds=self.draw.choice([-3600, -60, -1, 1, 60, 3600]))

    async def lose_everything(self) -> None:
        for front in self.fronts:  # Each has looked within a tenth of a second.
            await front.serve(SALE_ID, 0)
        await self.redis.flushdb()
        self.reserved.clear()
        await put_up(self.inventory, self.clock, {"black": UNITS}, **WINDOW)
        settings = room_settings(revision=self.revision, over_admission=OVER)
        await self.front.furnish(SALE_ID, settings, SEED)
        await self.front.serve(SALE_ID, 0)
        self.last = None
        self.stock_lost = True


WINDOW = {"opens_at_ms": 1_600_000_000_000, "closes_at_ms": 1_800_000_000_000, "per_user_max": 9}


def room_used() -> str:
    return f"sale:{{{SALE_ID}.0}}:used"


@pytest.mark.parametrize("seed", SEEDS)
async def test_numbers_are_nobody_elses_and_nobody_goes_back(
    redis: Redis, inventory: Inventory, clock: ManualClock, seed: int
) -> None:
    storm = Storm(seed, redis, inventory, clock)
    await open_room(
        storm.fronts[0], inventory, clock, units=UNITS, sale=WINDOW, over_admission=OVER
    )
    for _ in range(STEPS):
        await storm.step()
    assert storm.last is not None or storm.stock_lost
    assert len(storm.numbers) > 20
