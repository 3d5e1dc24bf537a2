"""Sales shown from memory: the same bytes as put together anew, never older than 100 ms."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest
from redis.asyncio import Redis

from api.answers import Answer, public
from api.sales import shown as shown_module
from api.sales.bodies import sale_body
from api.sales.shown import RENEW_SECONDS, ShownSales
from engine.clock import ManualClock, SystemClock
from engine.connections import connect_redis
from engine.inventory import Inventory, StockSnapshot
from engine.sales import LiveStock, Sale, SaleControl, SaleDirectory
from engine.sales.directory import STOCK_FRESH_SECONDS
from engine.store.database import Pool
from tests.support.sales import make_inventory, open_sale, reserve_for
from tests.support.waiting import until


class Looks(Inventory):
    """Counts the looks at the stock."""

    count = 0

    async def snapshot(self, sale_id: str) -> StockSnapshot:
        self.count += 1
        return await super().snapshot(sale_id)


class Board:
    """What one front process shows of sales."""

    def __init__(self, pool: Pool, redis: Redis) -> None:
        self.clock = ManualClock(SystemClock().now_ms())
        self.inventory = Looks(redis, self.clock, batch_max=64, queue_max=64)
        self.directory = SaleDirectory(pool, self.clock)
        self.live_stock = LiveStock(self.inventory, self.clock)
        self.sales = ShownSales(self.directory, self.live_stock, self.clock)

    async def anew(self, sale: Sale) -> Answer:
        """The answer put together from Redis as it is now."""
        stock = await self.inventory.snapshot(sale.sale_id)
        return public(sale_body(sale, stock, self.clock.now_ms()))


@pytest.fixture
def board(pool: Pool, redis: Redis) -> Board:
    return Board(pool, redis)


def read(answer: Answer | None) -> dict[str, object]:
    assert answer is not None
    found: dict[str, object] = msgspec.json.decode(answer.body)
    return found


def available(answer: Answer | None) -> object:
    return read(answer)["items"][0]["available"]  # type: ignore[index]


def shows(board: Board, units: int) -> Callable[[], Awaitable[bool]]:
    async def condition() -> bool:
        return available(board.sales.peek("demo")) == units

    return condition


@pytest.mark.parametrize(
    "name", [{"en": "Plain"}, {"en": '"server_time":"2026-01-01T00:00:00Z"', "zh-CN": "双十一"}]
)
async def test_answer_from_memory_has_the_bytes_of_one_put_together_anew(
    board: Board, pool: Pool, name: dict[str, str]
) -> None:
    sale = await open_sale(pool, board.inventory, opens_in=0.02, closes_in=0.05, name=name)
    await board.sales.show("demo")

    states = []
    for _ in range(12):
        answer = board.sales.peek("demo")
        assert answer == await board.anew(sale)
        states.append(read(answer)["state"])
        board.clock.advance(seconds=0.007)

    assert list(dict.fromkeys(states)) == ["scheduled", "open", "ended"]


async def test_time_is_that_of_the_answer_to_the_millisecond(board: Board, pool: Pool) -> None:
    await open_sale(pool, board.inventory)
    first = await board.sales.show("demo")
    assert board.sales.peek("demo") == first
    assert board.sales.peek("demo") is board.sales.peek("demo"), "nothing changed within a ms"
    board.clock.advance(seconds=0.001)
    later = board.sales.peek("demo")
    assert read(later)["server_time"] != read(first)["server_time"]
    assert read(later) | {"server_time": ""} == read(first) | {"server_time": ""}


async def test_copy_of_a_tenth_of_a_second_is_not_shown(board: Board, pool: Pool) -> None:
    await open_sale(pool, board.inventory)
    assert board.sales.peek("demo") is None
    await board.sales.show("demo")
    board.clock.advance(seconds=STOCK_FRESH_SECONDS + 0.001)  # Floats may round.
    assert board.sales.peek("demo") is None
    await board.sales.show("demo")
    assert board.sales.peek("demo") is not None


async def test_copy_is_renewed_behind_the_answer_by_one_look_at_a_time(
    board: Board, pool: Pool
) -> None:
    sale = await open_sale(pool, board.inventory, stock={"phone-black": 9})
    await board.sales.show("demo")
    await reserve_for(board.inventory, sale, ["ann"])
    looks = board.inventory.count
    assert available(board.sales.peek("demo")) == 9

    board.clock.advance(seconds=RENEW_SECONDS)
    assert [available(board.sales.peek("demo")) for _ in range(50)] == [9] * 50
    await until(shows(board, 8), "the copy is renewed")
    assert board.inventory.count == looks + 1

    # Under load no buyer ever waits for a look.
    for _ in range(20):
        board.clock.advance(seconds=RENEW_SECONDS)
        assert board.sales.peek("demo") is not None
        before = board.inventory.count
        while board.sales._renewing:
            await asyncio.wait(board.sales._renewing)
        assert board.inventory.count <= before + 1


async def test_change_made_by_this_process_is_seen_at_once(board: Board, pool: Pool) -> None:
    await open_sale(pool, board.inventory)
    await board.sales.show("demo")
    await SaleControl(pool, board.inventory, board.clock).pause("demo", "olga")
    assert read(board.sales.peek("demo"))["state"] == "open"
    board.directory.forget("demo")
    assert board.sales.peek("demo") is None
    assert read(await board.sales.show("demo"))["state"] == "paused"
    assert read(board.sales.peek("demo"))["state"] == "paused"


async def test_change_made_elsewhere_is_seen_with_the_next_look(board: Board, pool: Pool) -> None:
    await open_sale(pool, board.inventory)
    await board.sales.show("demo")
    await SaleControl(pool, board.inventory, board.clock).pause("demo", "olga")
    board.clock.advance(seconds=STOCK_FRESH_SECONDS + 0.001)
    assert read(await board.sales.show("demo"))["state"] == "paused"


async def test_without_redis_the_sale_is_shown_recovering_and_never_from_memory(
    pool: Pool, redis: Redis
) -> None:
    sale = await open_sale(pool, make_inventory(redis))
    nowhere = connect_redis("unix:///nowhere/redis.sock", 1)
    board = Board(pool, nowhere)
    answer = await board.sales.show("demo")
    assert answer == public(sale_body(sale, None, board.clock.now_ms()))
    assert (read(answer)["state"], available(answer)) == ("recovering", None)
    assert board.sales.peek("demo") is None
    await nowhere.aclose()


async def test_fenced_sale_is_not_kept_in_memory(board: Board, pool: Pool) -> None:
    sale = await open_sale(pool, board.inventory)
    await board.inventory.fence(sale.ref)
    assert read(await board.sales.show("demo"))["state"] == "recovering"
    assert board.sales.peek("demo") is None


async def test_sale_that_does_not_exist_is_a_problem_and_is_not_kept(board: Board) -> None:
    answer = await board.sales.show("nope")
    assert (answer.status, answer.label) == (404, "unknown_sale")
    assert board.sales.peek("nope") is None


async def test_pages_in_memory_are_bounded(
    board: Board, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown_module, "PAGES_MAX", 2)
    for name in ("one", "two", "three"):
        await open_sale(pool, board.inventory, name)
        await board.sales.show(name)
    kept = [board.sales.peek(name) is not None for name in ("one", "two", "three")]
    assert kept == [False, True, True]
