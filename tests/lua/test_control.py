"""launch.lua, configure.lua, restock.lua and fence.lua on real Valkey."""

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from engine.clock import ManualClock
from engine.inventory import Inventory, SaleRef
from engine.inventory.inventory import Counters
from engine.keys import DRAIN_GROUP
from engine.model import SaleState
from engine.sales.document import SKUS_MAX
from tests.lua.shelf import KEYS, SALE, ask, counters, dump, open_settings, put_up, wish

NEXT = SaleRef(SALE.sale_id, SALE.epoch + 1)


async def test_launch_puts_everything_up(
    inventory: Inventory, redis: Redis, clock: ManualClock
) -> None:
    settings = open_settings(clock)
    stock = {f"sku-{n}": Counters(n, n + 1, n + 2) for n in range(SKUS_MAX)}

    assert await inventory.launch(SALE, settings, stock) == "LAUNCHED"

    snapshot = await inventory.snapshot(SALE.sale_id)
    assert snapshot.stock == stock
    assert (snapshot.epoch, snapshot.state) == (1, SaleState.OPEN)
    assert snapshot.config["revision"] == "1"
    [group] = await redis.xinfo_groups(KEYS.orders)
    assert group["name"] == DRAIN_GROUP.encode()


async def test_launch_refuses_too_many_skus_with_nothing_done(
    inventory: Inventory, redis: Redis, clock: ManualClock
) -> None:
    stock = {f"sku-{n}": Counters(1, 0, 0) for n in range(SKUS_MAX + 1)}
    with pytest.raises(ResponseError, match="at most 1000 SKUs"):
        await inventory.launch(SALE, open_settings(clock), stock)
    assert await redis.keys() == []


async def test_live_sale_is_never_launched_again(
    inventory: Inventory, redis: Redis, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 5})
    await ask(inventory, wish("ann", "black*1"))
    before = await dump(redis)

    for sale in (SALE, NEXT):
        fresh = {"black": Counters(5, 0, 0)}
        assert await inventory.launch(sale, open_settings(clock), fresh) == "EXISTS"

    assert await dump(redis) == before


async def test_fenced_sale_is_launched_at_the_epoch_of_its_fence_only(
    inventory: Inventory, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 5})
    assert await inventory.fence(NEXT) == "FENCED"
    rebuilt = {"black": Counters(1, 2, 2)}

    assert await inventory.launch(SALE, open_settings(clock), rebuilt) == "EXISTS"
    assert await inventory.launch(NEXT, open_settings(clock), rebuilt) == "LAUNCHED"

    assert await counters(inventory, "black") == (1, 2, 2)
    assert await ask(inventory, wish("ann", "black*1"), sale=NEXT) == ["RESERVED"]
    assert await ask(inventory, wish("bob", "black*1"), sale=SALE) == ["STALE_EPOCH"]


async def test_fence_never_goes_back(inventory: Inventory, clock: ManualClock) -> None:
    await put_up(inventory, clock, {"black": 5})
    assert await inventory.fence(NEXT) == "FENCED"
    assert await inventory.fence(NEXT) == "FENCED"
    assert await inventory.fence(SALE) == "STALE_EPOCH"
    assert (await inventory.snapshot(SALE.sale_id)).epoch == NEXT.epoch


async def test_fence_shuts_a_sale_that_redis_lost(inventory: Inventory, clock: ManualClock) -> None:
    assert await inventory.fence(NEXT) == "FENCED"
    assert await ask(inventory, wish("ann", "black*1"), sale=NEXT) == ["STALE_EPOCH"]
    stock = {"black": Counters(5, 0, 0)}
    assert await inventory.launch(NEXT, open_settings(clock), stock) == "LAUNCHED"


async def test_older_settings_never_overwrite_newer_ones(
    inventory: Inventory, redis: Redis, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 5})
    paused = open_settings(clock, revision=3, state=SaleState.PAUSED)
    assert await inventory.configure(SALE, paused) == "CONFIGURED"
    before = await dump(redis)

    for revision in (2, 3):
        late = open_settings(clock, revision=revision)
        assert await inventory.configure(SALE, late) == "UNCHANGED"

    assert await dump(redis) == before


async def test_revisions_are_compared_as_numbers(inventory: Inventory, clock: ManualClock) -> None:
    await put_up(inventory, clock, {"black": 5}, revision=9)
    assert await inventory.configure(SALE, open_settings(clock, revision=10)) == "CONFIGURED"
    assert await inventory.configure(SALE, open_settings(clock, revision=9)) == "UNCHANGED"


async def test_restock_raises_the_total_once_and_never_lowers_it(
    inventory: Inventory, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 5})
    request = wish("ann", "black*2")
    await ask(inventory, request)
    await inventory.confirm(SALE, [("ann", request.reservation_id)])

    words = [await inventory.restock(SALE, "black", total) for total in (8, 8, 7, 5)]

    assert words == ["RESTOCKED", "UNCHANGED", "UNCHANGED", "UNCHANGED"]
    assert await counters(inventory, "black") == (6, 0, 2)


async def test_restock_ends_a_sell_out(inventory: Inventory, clock: ManualClock) -> None:
    await put_up(inventory, clock, {"black": 0})
    assert await ask(inventory, wish("ann", "black*1")) == ["SOLD_OUT"]
    await inventory.restock(SALE, "black", 1)
    assert await ask(inventory, wish("ann", "black*1")) == ["RESERVED"]


async def test_restock_of_an_unknown_sku_changes_nothing(
    inventory: Inventory, redis: Redis, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 5})
    before = await dump(redis)
    assert await inventory.restock(SALE, "green", 5) == "UNKNOWN_SKU"
    assert await dump(redis) == before


async def test_stock_of_a_lost_sale_is_not_restocked(inventory: Inventory) -> None:
    assert await inventory.restock(SALE, "black", 5) == "STALE_EPOCH"


async def test_rebuilt_stock_replaces_the_old_one_whole(
    inventory: Inventory, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 5, "ghost": 5})
    await inventory.fence(NEXT)
    await inventory.launch(NEXT, open_settings(clock), {"black": Counters(1, 0, 0)})
    assert (await inventory.snapshot(SALE.sale_id)).stock == {"black": (1, 0, 0)}
