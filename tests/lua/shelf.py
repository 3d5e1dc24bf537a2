"""A sale to try the scripts on, and short ways to ask it for things."""

from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import Redis

from engine.clock import ManualClock
from engine.inventory import Inventory, SaleRef
from engine.inventory.inventory import Counters, SaleSettings
from engine.keys import shard_keys
from engine.model import Refused, Reserved, ReserveRequest, SaleState, make_reservation_id

SALE = SaleRef("drop", 1)
KEYS = shard_keys(SALE.sale_id)
WINDOW_SECONDS = 3600


def open_settings(clock: ManualClock, **changes: Any) -> SaleSettings:
    """An open sale around the clock's present."""
    values: dict[str, Any] = {
        "revision": 1,
        "state": SaleState.OPEN,
        "opens_at_ms": clock.now_ms() - 1000,
        "closes_at_ms": clock.now_ms() + WINDOW_SECONDS * 1000,
        "per_user_max": 2,
        "reservation_seconds": 900,
    }
    return SaleSettings(**(values | changes))


async def put_up(
    inventory: Inventory, clock: ManualClock, stock: Mapping[str, int], **changes: Any
) -> None:
    """Launches the sale with so many units available per SKU."""
    counters = {sku: Counters(units, 0, 0) for sku, units in stock.items()}
    assert await inventory.launch(SALE, open_settings(clock, **changes), counters) == "LAUNCHED"


def wish(user: str, items: str, key: str = "k") -> ReserveRequest:
    return ReserveRequest(user, make_reservation_id(SALE.sale_id, user, key), items)


def word_of(answer: Reserved | Refused) -> str:
    """The answer in the script's own word."""
    if isinstance(answer, Refused):
        return answer.outcome.value
    return "DUPLICATE" if answer.replayed else "RESERVED"


async def ask(
    inventory: Inventory,
    *requests: ReserveRequest,
    sale: SaleRef = SALE,
    tickets: Sequence[int] = (),
) -> list[str]:
    """The words for a batch."""
    answers = await inventory.reserve_batch(sale, requests, tickets)
    return [word_of(answer) for answer in answers]


async def counters(inventory: Inventory, sku: str) -> tuple[int, int, int]:
    """(available, reserved, sold) of one SKU."""
    return (await inventory.snapshot(SALE.sale_id)).stock[sku]


async def dump(redis: Redis) -> dict[str, Any]:
    """Everything the sale has in Redis."""
    hashes: Sequence[str] = (KEYS.config, KEYS.stock, KEYS.buyers)
    found: dict[str, Any] = {key: await redis.hgetall(key) for key in hashes}
    found[KEYS.orders] = await redis.xrange(KEYS.orders)
    return found


async def streamed(redis: Redis) -> list[dict[bytes, bytes]]:
    """The fields of the entries that wait for the drainer."""
    entries: Any = await redis.xrange(KEYS.orders)
    return [fields for _, fields in entries]
