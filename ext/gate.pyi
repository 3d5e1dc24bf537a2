import asyncio
from collections.abc import Callable
from enum import IntEnum
from typing import Any

class Kind(IntEnum):
    COLD = 0
    RESERVE = 1
    SHOW_SALE = 2
    SHOW_RESERVATION = 3
    SHOW_QUEUE = 4
    ENTER_QUEUE = 5
    SHOW_CHALLENGE = 6

class Gate:
    stopping: bool
    def __init__(
        self,
        straight: Callable[[Request], bytes | None],
        doors: Any,
        connections: Any,
        make_parser: Callable[[Any], Any],
        *,
        body_bytes_max: int,
        request_seconds_max: float,
        keepalive_seconds: float,
    ) -> None: ...
    def __call__(self) -> GateConnection: ...

class GateConnection(asyncio.Protocol):
    address: str
    def is_late(self, now: float) -> bool: ...
    def is_idle(self) -> bool: ...
    def abort(self) -> None: ...
    def close(self) -> None: ...

class Request:
    kind: int
    name: str
    authorization: bytes | None
    idempotency_key: bytes | None
    content_type: bytes | None
    request_id: bytes | None
    queue_ticket: bytes | None
    x_forwarded_for: bytes | None
    forwarded: bytes | None
    user_agent: bytes | None
    body: bytes
    paid: int
    path: Any
    sale: Any
    wish: Any
    user_id: str
    reservation_id: str
    @property
    def address(self) -> str: ...
    def answer(self, written: bytes) -> None: ...
    def abort(self) -> None: ...
    def is_last(self) -> bool: ...
