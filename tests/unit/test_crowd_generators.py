"""One crowd from several processes is the crowd of one."""

import asyncio
import multiprocessing

import pytest

from loadtest.crowd import CrowdFailed, CrowdSettings
from loadtest.generators import Generators, split
from loadtest.plan import PlanSettings, draw_plan
from tests.unit.test_crowd import Answer, reserve_all, shop_of

PLAN = PlanSettings(buyers=301, seed=5, units={"phone": 1000}, duplicates=0.3, retries=0)
TOKENS = [f"token-{number}" for number in range(PLAN.buyers)]


def settings(url: str, **changes: float) -> CrowdSettings:
    return CrowdSettings(url=url, sale_id="demo", connections_max=8, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("processes", [1, 2, 3])
async def test_every_click_is_made_once_with_its_own_buyer_by_so_many_processes(
    processes: int,
) -> None:
    expected = {click.key.decode(): {f"Bearer {TOKENS[click.buyer]}"} for click in draw_plan(PLAN)}
    async with shop_of(reserve_all) as (shop, url):
        crowd = Generators(settings(url), draw_plan(PLAN), TOKENS, processes)
        report = await crowd.run()

    tally = report.tally
    assert report.clicks == crowd.clicks_total == shop.asked.total() == tally.settled
    assert tally.outcomes["accepted"] == len(tally.acknowledged) == len(expected)
    assert tally.outcomes["replayed"] == report.clicks - len(expected)
    assert shop.tokens == expected
    assert len(tally.latencies) == len(tally.exchanges) == report.clicks
    assert tally.broken == []
    assert report.cpu_seconds > 0
    assert report.accepted_per_second is not None
    assert report.accepted_per_second > 0
    assert shop.connections == 8 // processes * processes


def test_clicks_of_one_buyer_stay_together_and_in_order() -> None:
    parts = split(settings("http://x"), draw_plan(PLAN), TOKENS, 4)

    owners: dict[bytes, int] = {}
    for number, part in enumerate(parts):
        assert [click.at_s for click in part.clicks] == sorted(c.at_s for c in part.clicks)
        for click in part.clicks:
            assert owners.setdefault(click.key, number) == number
            assert int(part.tokens[click.buyer].removeprefix("token-")) % 4 == number


async def test_engine_that_is_not_there_is_said_by_every_number_of_processes() -> None:
    with pytest.raises(CrowdFailed, match=r"is the engine running\?"):
        await Generators(settings("http://127.0.0.1:1"), draw_plan(PLAN), TOKENS, 2).run()


async def test_process_that_dies_ends_the_crowd_with_a_sentence() -> None:
    def kill_the_asker(key: str, times: int) -> Answer | None:
        for process in multiprocessing.active_children():
            process.kill()
        return None

    async with shop_of(kill_the_asker) as (_, url):
        crowd = Generators(settings(url), draw_plan(PLAN), TOKENS, 2)
        with pytest.raises(CrowdFailed, match="ended by itself"):
            await asyncio.wait_for(crowd.run(), 30)
