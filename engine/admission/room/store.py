"""The typed face of the waiting room's Lua scripts: enter, serve, attend, furnish.

Knows nothing of tickets' signatures, of Postgres or of HTTP.
"""

from enum import StrEnum
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis

from engine.admission.room.settings import RoomOrder, RoomSettings
from engine.clock import Clock
from engine.model import SaleState

ENTER_BATCH_MAX: Final = 256  # People per enter call; the script refuses more.
ENTER_QUEUE_MAX: Final = 8192  # Who wait to enter one sale's room, per process: about a second.
ROOMS_MAX: Final = 1024  # Sales whose rooms are used at the same moment in one process.
TICKETS_MAX: Final = 1 << 24  # Numbers of one room: its bitmaps are 2 MiB each at most.


class RoomLook(NamedTuple):
    """One room at one moment of Redis's clock, as serve.lua says it."""

    now_ms: int
    revision: int
    on: bool
    order: RoomOrder
    issued: int  # the highest number given out
    serving: int  # places up to this one are served
    drawn: int | None  # numbers up to this one were drawn; None: the room has not opened or is fifo
    seed: str | None  # hex; None before the draw
    rate: float  # people/s that are served now: 0 while nobody may be
    admitted: int  # people served so far
    used: int  # tickets that a reservation was made with
    available: int  # units of all SKUs, as the two below
    reserved: int
    sold: int
    opens_at_ms: int
    closes_at_ms: int
    state: SaleState | None  # None: Redis does not know the sale
    waiting: int  # people present behind `serving`
    mark: int  # places up to this one are judged by their presence; later ones are too new


class Attendance(NamedTuple):
    """Who is there. Place p is bit p as Redis counts: `bitmap[p >> 3] & 0x80 >> (p & 7)`."""

    present: bytes  # shorter than the highest place if nobody beyond its end polled
    mark: int  # as in RoomLook: later places count as present


class Proof(NamedTuple):
    """A proof of work that was verified. `mark` is the same whenever it is shown again."""

    mark: str
    expires_at_ms: int


class EnterWord(StrEnum):
    """Why somebody got no number. The words are those of enter.lua."""

    ROOM_OFF = "ROOM_OFF"
    TOO_EARLY = "TOO_EARLY"
    ENDED = "ENDED"
    PROOF_USED = "PROOF_USED"
    FULL = "FULL"


class Entered(NamedTuple):
    """A place in the room. `kept`: the number is that of an earlier time."""

    number: int
    kept: bool


class EnterRefused(NamedTuple):
    """No number, and why."""

    reason: EnterWord


class Numbers(NamedTuple):
    """What must not go back if Redis loses a room."""

    issued: int = 0
    serving: int = 0
    drawn: int | None = None


class RoomStore:
    """Every room of every sale in Redis, for one process."""

    def __init__(self, redis: Redis, clock: Clock) -> None:
        self._redis: Any = redis
        self._clock = clock

    async def enter(
        self, sale_id: str, user_id: str, *, holds_ticket: bool, proof: Proof | None = None
    ) -> Entered | EnterRefused:
        """A number for a user: one each, the same as long as he did not stay away.

        `holds_ticket` says that the caller saw a valid ticket of his. A proof is good for one number.
        Raises Overloaded (nothing was done) or RedisUnavailable.
        """
        raise NotImplementedError

    async def serve(
        self, sale_id: str, pace: float, *, now_ms: int | None = None
    ) -> RoomLook | None:
        """Serves whom the time since anybody's last call allows, at `pace` people/s (inf: no limit).

        None where Redis holds no room of this sale. `now_ms` stands in for the clock of Redis.
        Numbers that this store saw or was told of never go back. Raises RedisUnavailable.
        """
        raise NotImplementedError

    async def attend(self, sale_id: str, bitmap: bytes, *, now_ms: int | None = None) -> Attendance:
        """Adds the places that polled this process since its last call; says who is there at all.

        Meant to be called every 5 s by every process that is polled, also with an empty bitmap.
        Raises RedisUnavailable; the bitmap should then be sent again.
        """
        raise NotImplementedError

    def know(self, sale_id: str, numbers: Numbers) -> None:
        """Tells of numbers that were given out or served, as a genuine ticket says."""
        raise NotImplementedError

    async def furnish(
        self, sale_id: str, settings: RoomSettings, seed: str, numbers: Numbers
    ) -> bool:
        """Writes newer settings; False if Redis had them. Raises RedisUnavailable."""
        raise NotImplementedError
