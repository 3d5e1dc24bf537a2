"""The typed face of the waiting room's Lua scripts: enter, serve, attend, furnish.

Knows nothing of tickets' signatures, of Postgres or of HTTP.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis

from engine.admission.breaker import Breaker
from engine.admission.room.settings import ROOM_PACE_MAX, RoomOrder, RoomSettings
from engine.clock import Clock
from engine.connections import redis_errors
from engine.errors import CircuitOpen, Overloaded, RedisUnavailable
from engine.inventory.batcher import Batcher
from engine.keys import proof_key, room_keys, serve_keys, shard_keys
from engine.lua import ROOM_SCRIPT_NAMES, LuaScript
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
    lapsed: int = 0  # places up to this one were served, and their time to reserve is over


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

    def or_higher(self, other: "Numbers") -> "Numbers":
        """The higher of each. What was drawn first stays drawn."""
        drawn = other.drawn if self.drawn is None else self.drawn
        return Numbers(max(self.issued, other.issued), max(self.serving, other.serving), drawn)

    def as_args(self) -> list[int]:
        """As the scripts take them."""
        return [self.issued, self.serving, -1 if self.drawn is None else self.drawn]


NOTHING_KNOWN: Final = Numbers()


class RoomStanding(NamedTuple):
    """What Redis has of a room; revision 0: none."""

    revision: int
    seed: str
    numbers: Numbers


class _Wish(NamedTuple):
    """One person at the door."""

    user_id: str
    holds_ticket: bool
    proof: Proof | None
    number: int = 0


class RoomStore:
    """Every room of every sale in Redis, for one process."""

    def __init__(
        self,
        redis: Redis,
        clock: Clock,
        *,
        our_clock_rules: bool = False,
        name: str = "",
        breaker: Breaker | None = None,
    ) -> None:
        """The clock of Redis rules, which is common to all; ours does for simulations and tests.

        `name` is this process's own: it is missed when it attends no more. Without one it is not.
        While `breaker`, which is that of Redis, is open, no script is called.
        """
        self._breaker = breaker
        self._name = name
        self._redis: Any = redis
        self._clock = clock
        self._our_clock_rules = our_clock_rules
        self._scripts = {name: LuaScript(name) for name in ROOM_SCRIPT_NAMES}
        self._doors: dict[str, Batcher[_Wish, Entered | EnterRefused]] = {}
        self._known: dict[str, Numbers] = {}

    async def enter(
        self,
        sale_id: str,
        user_id: str,
        *,
        holds_ticket: bool,
        number: int = 0,
        proof: Proof | None = None,
    ) -> Entered | EnterRefused:
        """A number for a user: one each, the same as long as he did not stay away.

        `holds_ticket` says that the caller saw a valid ticket of his; `number` is that ticket's, or if
        he holds none, one that has lapsed and is not to be kept. A proof is good for one number.
        Raises Overloaded (nothing was done) or RedisUnavailable.
        """
        door = self._doors.get(sale_id) or self._open_door(sale_id)
        return await door.submit(_Wish(user_id, holds_ticket, proof, number))

    async def serve(self, sale_id: str, pace: float) -> RoomLook | None:
        """Serves whom the time since anybody's last call allows, at `pace` people/s (inf: no limit).

        None where Redis holds no room of this sale. Numbers that this store saw, or was told of, never
        go back. Raises RedisUnavailable.
        """
        known = self._known.get(sale_id, NOTHING_KNOWN)
        reply = await self._run(
            "serve",
            serve_keys(sale_id),
            [min(pace, ROOM_PACE_MAX), *known.as_args(), self._now()],
        )
        if reply is None:
            return None
        look = read_look(reply)
        self.know(sale_id, Numbers(look.issued, look.serving, look.drawn))
        return look

    async def attend(self, sale_id: str, bitmap: bytes, drawn: int | None) -> Attendance:
        """Adds the places that polled this process since its last call; says who is there at all.

        Meant to be called every 5 s by every process that is polled, also with an empty bitmap.
        `drawn` is that of the look by which the caller made places of numbers: where it is another
        now, the bitmap says nothing and is dropped. Raises RedisUnavailable; nothing was noted then.
        """
        keys = room_keys(sale_id)
        reply = await self._run(
            "attend",
            [keys.room, keys.present, keys.passed, keys.fronts, keys.scratch, *keys.attendance],
            [bitmap, -1 if drawn is None else drawn, self._name, self._now()],
        )
        if reply is None:
            raise _unknown_room(sale_id)
        present, mark = reply
        return Attendance(present, int(mark))

    async def leave(self, sale_id: str) -> None:
        """Says that this process attends no more, so that it is not missed. Raises RedisUnavailable."""
        with redis_errors():
            await self._redis.zrem(room_keys(sale_id).fronts, self._name)

    def know(self, sale_id: str, numbers: Numbers) -> None:
        """Tells of numbers that were given out or served, as a look or a genuine ticket says."""
        known = self._known.pop(sale_id, NOTHING_KNOWN)
        while len(self._known) >= ROOMS_MAX:
            del self._known[next(iter(self._known))]
        self._known[sale_id] = known.or_higher(numbers)

    async def furnish(
        self, sale_id: str, settings: RoomSettings, seed: str, numbers: Numbers = NOTHING_KNOWN
    ) -> bool:
        """Writes newer settings; False if Redis had them. Raises RedisUnavailable.

        `seed` (hex) is what the draw goes by; serve tells it as soon as there was one.
        """
        args = [*_as_args(settings), seed, *numbers.as_args()]
        keys = room_keys(sale_id)
        own = (keys.room, keys.tickets, keys.used, keys.present, keys.passed, keys.fronts)
        places = [*own, *keys.attendance]
        word: bytes = await self._run("furnish", places, args)
        return word == b"FURNISHED"

    async def standings(self, sale_ids: Sequence[str]) -> list[RoomStanding]:
        """What Redis has of each room."""
        names = ("revision", "seed", "issued", "serving", "drawn")
        with redis_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for sale_id in sale_ids:
                    pipe.hmget(shard_keys(sale_id).room, names)
                found = await pipe.execute()
        return [
            RoomStanding(
                int(revision or 0),
                (seed or b"").decode(),
                Numbers(int(issued or 0), int(serving or 0), _number(drawn)),
            )
            for revision, seed, issued, serving, drawn in found
        ]

    async def stop(self) -> None:
        """Answers everyone at the doors. Idempotent. Leaves the client open."""
        for door in tuple(self._doors.values()):
            await door.stop()

    def _open_door(self, sale_id: str) -> Batcher[_Wish, Entered | EnterRefused]:
        if len(self._doors) >= ROOMS_MAX:
            self._doors = {sale: door for sale, door in self._doors.items() if not door.idle}
        if len(self._doors) >= ROOMS_MAX:
            raise Overloaded("Too many rooms are being entered at the same moment.")
        door: Batcher[_Wish, Entered | EnterRefused] = Batcher(
            lambda wishes: self._enter(sale_id, wishes),
            batch_max=ENTER_BATCH_MAX,
            queue_max=ENTER_QUEUE_MAX,
        )
        self._doors[sale_id] = door
        return door

    async def _enter(
        self, sale_id: str, wishes: Sequence[_Wish]
    ) -> Sequence[Entered | EnterRefused]:
        """One script call."""
        keys, sale = room_keys(sale_id), shard_keys(sale_id)
        proofs: list[str] = []
        args: list[Any] = [self._now(), self._known.get(sale_id, NOTHING_KNOWN).issued]
        for wish in wishes:
            args += (wish.user_id, int(wish.holds_ticket), wish.number)
            args += self._proof_args(sale_id, wish, proofs)
        places = [sale.config, keys.room, keys.tickets, keys.used, *keys.attendance, *proofs]
        reply: list[bytes] = await self._run("enter", places, args)
        answers = [_read_word(sale_id, word.decode()) for word in reply]
        numbers = [answer.number for answer in answers if isinstance(answer, Entered)]
        self.know(sale_id, Numbers(max(numbers, default=0)))
        return answers

    def _proof_args(self, sale_id: str, wish: _Wish, proofs: list[str]) -> tuple[int, int]:
        """Which of the proofs it is, from 1, and for how many ms it has to be remembered."""
        if wish.proof is None:
            return 0, 0
        mark = blake2b(wish.proof.mark.encode(), digest_size=16).hexdigest()
        proofs.append(proof_key(sale_id, mark))
        return len(proofs), max(1, wish.proof.expires_at_ms - self._clock.now_ms())

    def _now(self) -> int | str:
        return self._clock.now_ms() if self._our_clock_rules else ""

    async def _run(self, script: str, keys: list[str], args: list[Any]) -> Any:
        guarding = nullcontext() if self._breaker is None else self._breaker.guarding()
        try:
            with guarding, redis_errors():
                return await self._scripts[script].run(self._redis, keys, args)
        except CircuitOpen as error:
            raise RedisUnavailable(str(error)) from error


def read_look(reply: Sequence[Any]) -> RoomLook:
    """What serve.lua said."""
    texts = [part.decode() if isinstance(part, bytes) else part for part in reply]
    return RoomLook(
        now_ms=int(texts[0]),
        revision=int(texts[1]),
        on=texts[2] == "1",
        order=RoomOrder(texts[3]),
        issued=int(texts[4]),
        serving=int(texts[5]),
        drawn=_number(texts[6]),
        seed=texts[7] or None,
        rate=float(texts[8]),
        admitted=int(texts[9]),
        used=int(texts[10]),
        available=int(texts[11]),
        reserved=int(texts[12]),
        sold=int(texts[13]),
        opens_at_ms=int(texts[14] or 0),
        closes_at_ms=int(texts[15] or 0),
        state=SaleState(texts[16]) if texts[16] else None,
        waiting=int(texts[17]),
        mark=int(texts[18]),
        lapsed=int(texts[19]),
    )


def _read_word(sale_id: str, reply: str) -> Entered | EnterRefused:
    word, _, number = reply.partition(" ")
    if number:
        return Entered(int(number), kept=word == "KEPT")
    if word == "NO_ROOM":
        raise _unknown_room(sale_id)
    return EnterRefused(EnterWord(word))


def _unknown_room(sale_id: str) -> RedisUnavailable:
    return RedisUnavailable(f"Redis does not know the room of sale {sale_id}.")


def _number(text: Any) -> int | None:
    return int(text) if text not in {None, ""} else None


def _as_args(settings: RoomSettings) -> list[str | int | float]:
    """In the order in which furnish.lua takes them."""
    return [
        settings.revision,
        int(settings.on),
        settings.order.value,
        settings.prequeue_seconds,
        settings.pace_max or 0,
        settings.over_admission,
        settings.admission_seconds,
        settings.absent_seconds,
    ]
