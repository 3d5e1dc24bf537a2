"""The gate without a network: its connections on transports that keep nothing.

What a request costs here is what the front adds to its system calls and its event loop.
"""

from types import SimpleNamespace
from typing import Any, Final

from httptools import HttpRequestParser

from api.answers import PERSONAL
from api.tokens import Tokens
from api.written import head_of, http_date
from benchmarks import rig
from engine.admission.addresses import AddressReader
from engine.admission.limit import AdmissionLimit
from engine.admission.throttle import Throttle
from engine.clock import SystemClock
from engine.config import Settings
from engine.inventory.queue import Replies, ReserveQueue
from ext import Meter, ReserveBatch
from ext.gate import Gate, GateConnection
from ext.straight import SaleDoor, StraightPath, Wish

BODY: Final = b'{"items":[{"sku":"phone-black","quantity":1}]}'
SALE: Final = "bench"
KNOWN_MAX: Final = 64


class NoTransport:
    """A transport that sends nothing, and counts."""

    def __init__(self) -> None:
        self.answers = 0

    def get_extra_info(self, _: str) -> tuple[str, int]:
        return "127.0.0.1", 1

    def write(self, _: bytes) -> None:
        self.answers += 1


class AnyConnections:
    """Admits everybody."""

    def admit(self, _: object) -> bool:
        return True


class NoMemory:
    """Watches no sale."""

    watched: Final[dict[str, object]] = {}

    def refusal(self, *_: object) -> None:
        """Ask Redis."""


class NoRules:
    """Nobody is on a list."""

    is_empty = True


class Others:
    """What the straight path asks of others when all is well."""

    def until_text(self, _: bytes) -> bytes:
        return b"2026-11-11T00:15:00Z"

    def date(self) -> bytes:
        return http_date().encode()


def make_straight_path(users_max: int = KNOWN_MAX) -> StraightPath:
    clock = SystemClock()
    return StraightPath(
        Others(),
        user_until=Tokens(rig.SECRET, clock).user_until,
        user_throttle=Throttle(clock, per_second=1e9, burst=1_000_000),
        address_throttle=Throttle(clock, per_second=1e9, burst=1_000_000),
        addresses=AddressReader.of(Settings(unthrottled_networks="")),
        access=NoRules(),
        limit=AdmissionLimit(clock, floor=64, ceiling=1_000_000, adaptive=True),
        meter=Meter(clock),
        replays=Meter(clock),
        memory=NoMemory(),
        peek_room=lambda _: None,
        ticket_required="TICKET_REQUIRED",
        now_ms=clock.now_ms,
        head=head_of(201, PERSONAL),
        shown_head=head_of(200, PERSONAL),
        id_prefix=b"8c1d2e3f4a5b-",
        known_max=KNOWN_MAX,
        users_max=users_max,
    )


async def _reserved(batch: ReserveBatch) -> Replies:
    """Everybody gets what he wants, after the call was packed."""
    batch.command(b"$7\r\nEVALSHA\r\n", 1)
    return b"1800000000", [b"RESERVED"] * len(batch)


def open_gate(connections: int, users_max: int) -> tuple[list[GateConnection], ReserveQueue]:
    """Connections of a gate that knows the sale, and the queue of its reservations."""
    queue = ReserveQueue(_reserved, batch_max=256, queue_max=100_000)
    path = make_straight_path(users_max)
    path.learn_wish(BODY, Wish("phone-black*1", b'[{"sku":"phone-black","quantity":1}]'))
    path.learn_sale(SaleDoor(SimpleNamespace(sale_id=SALE), queue.join))
    gate = Gate(
        path.take,
        None,
        AnyConnections(),
        HttpRequestParser,
        body_bytes_max=65_536,
        request_seconds_max=10,
        keepalive_seconds=75,
    )
    opened = [gate() for _ in range(connections)]
    for connection in opened:
        transport: Any = NoTransport()
        connection.connection_made(transport)
    return opened, queue


def reserve_request(token: str, key: str = "click-1") -> bytes:
    """A reserve call as a buyer's client sends it."""
    head = (
        f"POST /v1/sales/{SALE}/reservations HTTP/1.1\r\nHost: shop.example\r\n"
        f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        f"Idempotency-Key: {key}\r\nContent-Length: {len(BODY)}\r\n\r\n"
    )
    return head.encode() + BODY
