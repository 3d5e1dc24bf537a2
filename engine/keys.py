"""Names the Redis keys. All keys of one shard of one sale share a hash tag, hence a slot."""

from typing import NamedTuple

DRAIN_GROUP = "drain"  # The consumer group of every `orders` stream.
ONLY_SHARD = 0  # Sales have one shard each; the key layout is ready for more.
# Of the shortest `absent_seconds`, 20, they reach back longer than enter.lua keeps an unused number.
ATTENDANCE_SLOTS = 18


class ShardKeys(NamedTuple):
    """The keys of one shard of one sale that reserve.lua takes, in its order."""

    config: str  # hash: epoch, revision, state, window, limits
    stock: str  # hash: <sku>:available, <sku>:reserved, <sku>:sold
    buyers: str  # hash: user -> that user's reservations, one per line
    orders: str  # stream: one entry per batch of reservations
    arrivals: str  # sharded channel: what goes into the stream, for those who listen
    used: str  # bitmap: numbers of the room's tickets that a reservation was made with
    room: str  # hash: the waiting room's settings and counters

    @property
    def without_room(self) -> tuple[str, ...]:
        """What reserve.lua takes where no request has to do with a waiting room."""
        return self[:-2]


def shard_keys(sale_id: str, shard: int = ONLY_SHARD) -> ShardKeys:
    tag = f"sale:{{{sale_id}.{shard}}}"
    return ShardKeys(
        config=f"{tag}:config",
        stock=f"{tag}:stock",
        buyers=f"{tag}:buyers",
        orders=f"{tag}:orders",
        arrivals=f"{tag}:arrivals",
        used=f"{tag}:used",
        room=f"{tag}:room",
    )


class RoomKeys(NamedTuple):
    """What else a sale's waiting room keeps. `room` and `used` are those of its ShardKeys."""

    room: str
    used: str
    tickets: str  # hash: user -> '<number> <issued_ms>'
    present: str  # bitmap by place: who polled in this period of attendance or in the one before
    passed: str  # bitmap by place: passed over as absent, and not back since
    fronts: str  # sorted set: a front's name, by when it last attended (ms)
    scratch: str  # a bitmap on its way into another; empty between scripts
    attendance: tuple[str, ...]  # ring of bitmaps by place, one per period: who polled in it


def room_keys(sale_id: str, shard: int = ONLY_SHARD) -> RoomKeys:
    keys, tag = shard_keys(sale_id, shard), f"sale:{{{sale_id}.{shard}}}"
    return RoomKeys(
        room=keys.room,
        used=keys.used,
        tickets=f"{tag}:tickets",
        present=f"{tag}:present",
        passed=f"{tag}:passed",
        fronts=f"{tag}:fronts",
        scratch=f"{tag}:scratch",
        attendance=tuple(f"{tag}:attendance:{slot}" for slot in range(ATTENDANCE_SLOTS)),
    )


def serve_keys(sale_id: str, shard: int = ONLY_SHARD) -> list[str]:
    """What serve.lua takes, in its order."""
    sale, room = shard_keys(sale_id, shard), room_keys(sale_id, shard)
    own = (room.room, room.present, room.passed, room.used)
    return [sale.config, sale.stock, sale.orders, *own, *room.attendance]


def proof_key(sale_id: str, mark: str, shard: int = ONLY_SHARD) -> str:
    """Exists while a proof of work that was accepted could be shown again."""
    return f"sale:{{{sale_id}.{shard}}}:proof:{mark}"
