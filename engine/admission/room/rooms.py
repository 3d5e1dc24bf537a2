"""The waiting rooms that one front follows: each kept up to date, none asked of Redis per visitor.

What a visitor is told is computed in ext/room.pyx; who is served is decided in serve.lua.
"""

import asyncio
import logging
from contextlib import suppress
from typing import Final

from engine import metrics
from engine.admission.pulse import Pulse
from engine.admission.room.draw import draw
from engine.admission.room.forecast import Forecast
from engine.admission.room.settings import RoomSettings
from engine.admission.room.store import Numbers, RoomStore
from engine.admission.room.tickets import ticket_key
from engine.clock import Clock
from engine.errors import RedisUnavailable
from engine.polling import pause
from engine.sales.directory import SaleDirectory
from engine.sales.sale import Sale
from ext import Room

logger = logging.getLogger(__name__)

SERVE_SECONDS: Final = 0.1  # Whoever looks turns the crank; a tenth of a second is not felt.
ATTEND_SECONDS: Final = 5.0  # Absence is counted in tens of seconds.
REPORT_SECONDS: Final = 1.0
FOLLOW_SECONDS: Final = 60.0  # A room that nobody asked about for so long is forgotten.
ROOMS_MAX: Final = 256  # Followed by one front; the one asked about longest ago goes first.


class Followed:
    """One sale's room, and what it takes to keep it up to date."""

    def __init__(self, room: Room, forecast: Forecast) -> None:
        self.room = room
        self.forecast = forecast
        self.settings: RoomSettings | None = None
        self.asked_at = 0.0
        self.attended_at = 0.0
        self.unsent = b""  # Attendance that Redis did not take.
        self.unsent_drawn = -1
        self.looking = asyncio.Lock()
        self.first: asyncio.Task[None] | None = None
        self.tried_at = 0.0
        self.drawing: asyncio.Task[None] | None = None

    @property
    def sale_id(self) -> str:
        return self.room.sale_id


class Rooms:
    """Follows rooms from the first question about them on. Start `run`; `stop` it."""

    def __init__(
        self, store: RoomStore, directory: SaleDirectory, pulse: Pulse, clock: Clock, secret: str
    ) -> None:
        self.store = store
        self.tickets = ticket_key(secret)
        self._directory = directory
        self._pulse = pulse
        self._clock = clock
        self._followed: dict[str, Followed] = {}
        self._reported_at = 0.0
        self._redis_away = False
        self._stopped = asyncio.Event()

    def peek(self, sale: Sale) -> Room | None:
        """The sale's room if it is followed. Does no I/O.

        Whoever keeps it must ask again once it is not `known` any longer.
        """
        followed = self._followed.get(sale.sale_id)
        if followed is None or not followed.room.known:
            return None
        followed.asked_at = self._clock.monotonic()
        return followed.room

    async def follow(self, sale: Sale) -> Room | None:
        """The sale's room, followed from now on; None if Redis holds none. Raises RedisUnavailable."""
        if room := self.peek(sale):
            return room
        followed = self._followed.get(sale.sale_id) or self._add(sale)
        if followed.first is None or self._is_over(followed.tried_at, SERVE_SECONDS):
            self._try_first(followed)
        assert followed.first is not None
        await asyncio.shield(followed.first)
        return self.peek(sale)

    async def refresh_once(self) -> int:
        """Looks at every room once; attends and reports where it is time. Returns how many it looked at."""
        await self._leave(self._forget_unasked())
        rooms = list(self._followed.values())
        self._settle(await asyncio.gather(*map(self._refresh, rooms), return_exceptions=True))
        if self._is_over(self._reported_at, REPORT_SECONDS):
            self._reported_at = self._clock.monotonic()
            self._report(rooms)
        return len(rooms)

    async def run(self) -> None:
        """Until stopped."""
        while not self._stopped.is_set():
            await self.refresh_once()
            await pause(self._stopped, SERVE_SECONDS)
        for followed in self._followed.values():
            if under_way := [task for task in (followed.first, followed.drawing) if task]:
                await asyncio.wait(under_way)
        await self._leave(list(self._followed.values()))

    def stop(self) -> None:
        """Makes `run` return soon. Idempotent, safe before start."""
        self._stopped.set()

    def _try_first(self, followed: Followed) -> None:
        """One look for all who come at once, and no next one at once if it finds nothing."""
        if followed.first is None or followed.first.done():
            followed.tried_at = self._clock.monotonic()
            followed.first = asyncio.create_task(
                self._first_look(followed), name=f"follow {followed.sale_id}"
            )
            # Those who waited may have left; asyncio would report the error as never read.
            followed.first.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _first_look(self, followed: Followed) -> None:
        async with followed.looking:
            if not followed.room.known:
                await self._look(followed)

    def _add(self, sale: Sale) -> Followed:
        if len(self._followed) >= ROOMS_MAX:
            self._forget(min(self._followed.values(), key=lambda known: known.asked_at))
        forecast = Forecast()
        followed = Followed(Room(sale.sale_id, self.tickets, forecast), forecast)
        followed.asked_at = followed.attended_at = self._clock.monotonic()
        self._furnish(followed, sale)
        self._followed[sale.sale_id] = followed
        return followed

    async def _leave(self, forgotten: list[Followed]) -> None:
        """Else the others would take this front for missing, and nobody for absent, for minutes."""
        for followed in forgotten:
            with suppress(RedisUnavailable):
                await self.store.leave(followed.sale_id)

    def _forget_unasked(self) -> list[Followed]:
        """Returns those that it forgot."""
        unasked = []
        for followed in list(self._followed.values()):
            if followed.room.asked:
                followed.room.asked = False
                followed.asked_at = self._clock.monotonic()
            if self._is_over(followed.asked_at, FOLLOW_SECONDS):
                self._forget(followed)
                unasked.append(followed)
        return unasked

    def _forget(self, followed: Followed) -> None:
        followed.room.forget()
        del self._followed[followed.sale_id]

    async def _refresh(self, followed: Followed) -> None:
        if followed.looking.locked():
            return
        async with followed.looking:
            sale = self._directory.peek(followed.sale_id)
            if sale is not None:
                self._furnish(followed, sale)
            await self._look(followed)
            if self._is_over(followed.attended_at, ATTEND_SECONDS):
                await self._attend(followed)

    def _furnish(self, followed: Followed, sale: Sale) -> None:
        """Tells the room its settings, as the sale has them."""
        if sale.room is not None and sale.room != followed.settings:
            followed.settings = sale.room
            followed.room.learn_settings(
                admission_seconds=sale.room.admission_seconds,
                absent_seconds=sale.room.absent_seconds,
            )

    async def _look(self, followed: Followed) -> None:
        room = followed.room
        # Tickets know of numbers that Redis may have lost.
        self.store.know(room.sale_id, Numbers(room.issued, room.serving, drawn_of(room)))
        pace = self._share()
        look = await self.store.serve(room.sale_id, pace)
        if look is None:
            return  # Redis lost the room. It will be furnished again; until then the last look is good.
        if followed.settings is not None:
            followed.forecast.expect(followed.settings, pace, self._pulse.fronts)
        room.learn(look)
        if room.needs_draw and look.seed and followed.drawing is None:
            followed.drawing = asyncio.create_task(
                self._draw(followed, look.seed), name=f"draw {room.sale_id}"
            )

    def _share(self) -> float:
        """What every room with people waiting gets of the pace."""
        busy = sum(1 for followed in self._followed.values() if followed.room.waiting > 0)
        return self._pulse.pace / max(1, busy)

    async def _draw(self, followed: Followed, seed: str) -> None:
        """A million places take about a tenth of a second, so a thread computes them."""
        room = followed.room
        drawn = room.drawn
        try:
            places = await asyncio.to_thread(draw, bytes.fromhex(seed), drawn)
            if room.drawn == drawn:
                room.learn_draw(places)
                logger.info(
                    "Drew %d places of sale %s.",
                    drawn,
                    room.sale_id,
                    extra={"action": "places_drawn", "sale_id": room.sale_id, "count": drawn},
                )
        except ValueError:
            logger.exception(
                "The draw of sale %s failed.", room.sale_id, extra={"action": "draw_failed"}
            )
        finally:
            followed.drawing = None

    async def _attend(self, followed: Followed) -> None:
        followed.attended_at = self._clock.monotonic()
        room = followed.room
        polled = room.take_attendance()
        if followed.unsent_drawn == room.drawn:
            polled = merged(polled, followed.unsent)
        followed.unsent, followed.unsent_drawn = polled, room.drawn
        attendance = await self.store.attend(room.sale_id, polled, drawn_of(room))
        followed.unsent = b""
        room.learn_present(attendance.present, attendance.mark)

    def _settle(self, results: list[BaseException | None]) -> None:
        """Redis away is said once; the last looks stay good. Any other failure is a bug: it is raised."""
        failures = [failure for failure in results if failure is not None]
        for failure in failures:
            if not isinstance(failure, RedisUnavailable):
                raise failure
        if failures and not self._redis_away:
            logger.warning(
                "Rooms are not kept up to date: %s", failures[0], extra={"action": "rooms_stand"}
            )
        self._redis_away = bool(failures)

    def _report(self, rooms: list[Followed]) -> None:
        metrics.queue_waiting.set(sum(followed.room.waiting for followed in rooms))
        for followed in rooms:
            for said, count in followed.room.take_said().items():
                metrics.queue_tickets.labels(said).inc(count)
            for error in followed.room.take_eta_errors():
                metrics.queue_eta_error.observe(error)

    def _is_over(self, since: float, seconds: float) -> bool:
        return self._clock.monotonic() - since >= seconds


def drawn_of(room: Room) -> int | None:
    """Numbers up to this one were drawn; None: none were, yet."""
    return None if room.drawn < 0 else room.drawn


def merged(one: bytes, other: bytes) -> bytes:
    """Who polled according to one bitmap or the other."""
    longest = max(len(one), len(other))
    both = int.from_bytes(one.ljust(longest, b"\0")) | int.from_bytes(other.ljust(longest, b"\0"))
    return both.to_bytes(longest)
