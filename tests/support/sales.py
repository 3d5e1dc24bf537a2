"""Sales to sell in tests, and buyers who buy."""

from datetime import UTC, datetime, timedelta

import msgspec
from redis.asyncio import Redis

from engine.clock import Clock, SystemClock
from engine.inventory import Inventory
from engine.model import Refused, Reserved, ReserveRequest, make_reservation_id
from engine.sales import Sale, SaleControl, parse_sale_document
from engine.store.database import Pool

Stock = dict[str, int]


def sale_document(
    sale_id: str = "demo",
    stock: Stock | None = None,
    *,
    opens_in: float = -60,
    closes_in: float = 86_400,
    **changes: object,
) -> bytes:
    """A sale document as an operator would send it; `changes` replace its fields."""
    now = datetime.now(UTC)
    document: dict[str, object] = {
        "sale_id": sale_id,
        "name": {"en": "Test sale", "zh-CN": "测试"},
        "opens_at": now + timedelta(seconds=opens_in),
        "closes_at": now + timedelta(seconds=closes_in),
        "per_user_max": 2,
        "reservation_seconds": 900,
        "auto_capture": False,
        "items": [
            {
                "sku": sku,
                "name": {"en": sku},
                "units": units,
                "price": {"amount_minor": 129900, "currency": "CNY"},
            }
            for sku, units in (stock or {"phone-black": 100}).items()
        ],
    }
    return msgspec.json.encode(document | changes)


async def open_sale(
    pool: Pool,
    inventory: Inventory,
    sale_id: str = "demo",
    stock: Stock | None = None,
    *,
    clock: Clock | None = None,
    **changes: object,
) -> Sale:
    """A sale that sells."""
    control = SaleControl(pool, inventory, clock or SystemClock())
    document = parse_sale_document(sale_document(sale_id, stock, **changes))  # type: ignore[arg-type]
    return await control.create(document, "tester")


def make_inventory(redis: Redis, clock: Clock | None = None) -> Inventory:
    return Inventory(redis, clock or SystemClock(), batch_max=256, queue_max=4096)


def wish(
    sale: Sale, user_id: str, items_text: str = "phone-black*1", key: str = "k"
) -> ReserveRequest:
    """What a buyer asks for."""
    return ReserveRequest(user_id, make_reservation_id(sale.sale_id, user_id, key), items_text)


async def reserve_for(
    inventory: Inventory, sale: Sale, users: list[str], items_text: str = "phone-black*1"
) -> list[Reserved | Refused]:
    """One batch in which every user asks for the same."""
    return await inventory.reserve_batch(sale.ref, [wish(sale, user, items_text) for user in users])
