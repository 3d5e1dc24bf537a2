from collections.abc import Callable
from typing import Any

from ext.gate import Request
from ext.limit import Limit
from ext.meter import Meter
from ext.throttle import Throttle

class Wish:
    items_text: str
    items_json: bytes
    def __init__(self, items_text: str, items_json: bytes) -> None: ...

class SaleDoor:
    sale: Any
    join: Callable[..., None]
    has_room: bool
    def __init__(self, sale: Any, join: Callable[..., None], has_room: bool = False) -> None: ...

class StraightPath:
    def __init__(
        self,
        others: Any,
        *,
        user_until: Callable[[bytes], tuple[str, int] | None],
        user_throttle: Throttle,
        address_throttle: Throttle,
        addresses: Any,
        access: Any,
        limit: Limit,
        meter: Meter,
        replays: Meter,
        memory: Any,
        peek_room: Callable[[Any], Any],
        ticket_required: Any,
        now_ms: Callable[[], int],
        head: bytes,
        shown_head: bytes,
        id_prefix: bytes,
        known_max: int,
        users_max: int,
    ) -> None: ...
    def learn_wish(self, body: bytes, wish: Wish) -> None: ...
    def learn_sale(self, door: SaleDoor) -> None: ...
    def knows(self, body: bytes, sale_id: str) -> bool: ...
    def forget_sale(self, sale_id: str) -> None: ...
    def used_sales(self) -> list[str]: ...
    def forget_users(self) -> None: ...
    def take_accepted(self) -> int: ...
    def take_polled(self) -> int: ...
    def take_refused(self) -> tuple[Any, int]: ...
    def take(self, request: Request) -> bytes | None: ...
    def written(self, head: bytes, location: str, body: bytes) -> bytes: ...
