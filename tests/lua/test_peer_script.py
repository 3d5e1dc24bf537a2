"""The script of the benchmark's peers against reserve.lua: a fair comparison decides the same."""

import random
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

import benchmarks
from engine.clock import ManualClock
from engine.inventory import Inventory
from engine.inventory.link import PooledLink
from engine.keys import shard_keys
from engine.lua import LuaScript
from engine.model import SaleState, make_reservation_id
from ext import ReserveBatch
from tests.lua.shelf import KEYS, SALE, dump, put_up

SEED = 20_261_111
PEER = (Path(benchmarks.__file__).parent / "peers" / "reserve_one.lua").read_text()
STOCK = {"phone-black": 30, "phone-white": 12, "case": 0}


def orders_without_ids(found: dict[str, Any]) -> dict[str, Any]:
    """What is kept, without the moments at which entries were written."""
    return found | {KEYS.orders: [fields for _, fields in found[KEYS.orders]]}


async def reserve_with_ours(redis: Redis, args: list[Any]) -> Any:
    """As the peer's script replies: the word of its one request follows the deadline."""
    epoch, now_ms, *request = args
    batch = ReserveBatch()
    batch.add(object(), *request)
    script, link = LuaScript("reserve"), PooledLink(redis)
    first = [str(epoch), str(now_ms)]
    said = await script.run_packed(
        redis, link.call, [*shard_keys(SALE.sale_id)], first, batch.command
    )
    return said if len(said) > 1 else [*said, b"RESERVED"]


async def reserve_with_peer(redis: Redis, args: list[Any]) -> Any:
    keys = (KEYS.config, KEYS.stock, KEYS.buyers, KEYS.orders)
    return await redis.eval(PEER, len(keys), *keys, *args)  # type: ignore[misc]


def draw_calls(clock: ManualClock, draw: random.Random) -> list[list[Any]]:
    """Few buyers who repeat themselves, change their minds and want too much."""
    calls: list[list[Any]] = []
    for _ in range(200):
        user = f"user-{draw.randrange(12)}"
        reservation_id = make_reservation_id(SALE.sale_id, user, str(draw.randrange(4)))
        sku = draw.choices([*STOCK, "nothing-we-sell"], [8, 4, 1, 1])[0]
        quantity = draw.choices([1, 2, 3, 40], [8, 4, 2, 1])[0]
        epoch = draw.choices([1, 2], [30, 1])[0]
        calls.append([epoch, clock.now_ms(), user, reservation_id, f"{sku}*{quantity}"])
        clock.advance(seconds=draw.random())
    return calls


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"per_user_max": 8},
        {"per_user_max": 50},
        {"state": SaleState.PAUSED},
        {"state": SaleState.CLOSED},
        {"opens_at_ms": 2_000_000_000_000, "closes_at_ms": 2_000_000_001_000},
    ],
)
async def test_the_peers_script_decides_and_writes_as_ours(
    inventory: Inventory, redis: Redis, changes: dict[str, Any]
) -> None:
    calls = draw_calls(ManualClock(), random.Random(SEED))
    said: list[list[Any]] = []
    kept: list[dict[str, Any]] = []

    for reserve in (reserve_with_ours, reserve_with_peer):
        await redis.flushdb()
        await put_up(inventory, ManualClock(), STOCK, **changes)
        said.append([await reserve(redis, call) for call in calls])
        kept.append(orders_without_ids(await dump(redis)))

    assert said[0] == said[1]
    assert kept[0] == kept[1]


async def test_the_calls_meet_every_outcome_of_an_open_sale(
    inventory: Inventory, redis: Redis
) -> None:
    met: set[bytes] = set()
    for units in (2, 8, 50):
        await redis.flushdb()
        await put_up(inventory, ManualClock(), STOCK, per_user_max=units)
        for call in draw_calls(ManualClock(), random.Random(SEED)):
            met.add((await reserve_with_peer(redis, call))[1].split()[0])

    assert met == {
        *(b"RESERVED", b"DUPLICATE", b"MISMATCH", b"LIMIT_REACHED"),
        *(b"SOLD_OUT", b"ALL_RESERVED", b"UNKNOWN_SKU", b"STALE_EPOCH"),
    }
