"""The flash crowd against a small HTTP server that misbehaves on purpose."""

import asyncio
import json
import math
import pickle
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from loadtest.crowd import Crowd, CrowdFailed, CrowdSettings
from loadtest.latencies import Latencies
from loadtest.plan import Click, PlanSettings, draw_plan
from loadtest.tally import CrowdReport

UNITS = {"phone-black": 3000, "phone-white": 1000}
Answer = tuple[int, dict[str, str], dict[str, str]]  # status, headers, body
# The server's part: (key, how often it was asked with it) → an answer, or None to hang up.
Behaviour = Callable[[str, int], Answer | None]


class Shop:
    """Answers as `behave` says and remembers what it was asked."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.asked: Counter[str] = Counter()
        self.tokens: dict[str, set[str]] = {}
        self.in_flight = self.in_flight_max = self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await self._answer(head.decode(), reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(
        self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        headers = dict(line.split(": ", 1) for line in head.strip().split("\r\n")[1:])
        json.loads(await reader.readexactly(int(headers["Content-Length"])))
        key = headers["Idempotency-Key"]
        self.asked[key] = times = self.asked[key] + 1
        self.tokens.setdefault(key, set()).add(headers["Authorization"])
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight, self.in_flight_max)
        await asyncio.sleep(0)
        answer = self.behave(key, times)
        self.in_flight -= 1
        if answer is None:
            raise ConnectionError
        status, extra, body = answer
        text = json.dumps(body)
        lines = [f"HTTP/1.1 {status} Because", f"Content-Length: {len(text)}"]
        lines += [f"{name}: {value}" for name, value in extra.items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n" + text).encode())


@asynccontextmanager
async def shop_of(behave: Behaviour) -> AsyncIterator[tuple[Shop, str]]:
    shop = Shop(behave)
    server = await asyncio.start_server(shop.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield shop, f"http://127.0.0.1:{port}"
    server.close()


def reserve_all(key: str, times: int) -> Answer:
    return (201 if times == 1 else 200), {}, {"reservation_id": f"demo.{key[:20]}"}


async def rush(
    url: str, plan: PlanSettings, clicks: list[Click] | None = None, **settings: float
) -> CrowdReport:
    clicks = draw_plan(plan) if clicks is None else clicks
    tokens = [f"token-{number}" for number in range(plan.buyers)]
    crowd_settings = {"url": url, "sale_id": "demo", "connections_max": 8, **settings}
    return await Crowd(CrowdSettings(**crowd_settings), clicks, tokens).run()  # type: ignore[arg-type]


def test_same_seed_draws_the_same_plan_and_another_seed_another() -> None:
    plan = PlanSettings(buyers=500, seed=7, units=UNITS)

    assert draw_plan(plan) == draw_plan(plan)
    assert draw_plan(plan) != draw_plan(PlanSettings(buyers=500, seed=8, units=UNITS))


def test_plan_spreads_demand_in_proportion_to_units_and_keeps_the_rate() -> None:
    clicks = draw_plan(
        PlanSettings(buyers=4000, seed=1, units=UNITS, rate=1000, retries=0, greedy=0)
    )

    black = sum(b"phone-black" in click.body for click in clicks)
    white = sum(b"phone-white" in click.body for click in clicks)
    assert 2.5 < black / white < 3.5
    assert clicks[-1].at_s == pytest.approx(3.999)
    assert [click.at_s for click in clicks] == sorted(click.at_s for click in clicks)


def test_plan_repeats_keys_for_duplicates_and_retries_only() -> None:
    plan = PlanSettings(buyers=1000, seed=3, units=UNITS, duplicates=0.3, retries=0.2, greedy=0.1)

    by_key: dict[bytes, list[Click]] = {}
    for click in draw_plan(plan):
        by_key.setdefault(click.key, []).append(click)

    repeated = [clicks for clicks in by_key.values() if len(clicks) > 1]
    assert len(by_key) == pytest.approx(1100, abs=40)  # one key each, and the greedy
    assert len(repeated) == pytest.approx(440, abs=60)
    assert all(len({(c.buyer, c.body) for c in clicks}) == 1 for clicks in repeated)


async def test_every_click_gets_one_outcome_and_every_promise_is_kept_once() -> None:
    plan = PlanSettings(
        buyers=300, seed=5, units=UNITS, duplicates=0.2, retries=0.2, greedy=0, later_seconds=(0, 0)
    )
    async with shop_of(reserve_all) as (shop, url):
        report = await rush(url, plan)

    tally = report.tally
    assert tally.outcomes["accepted"] == len(tally.acknowledged) == 300
    assert tally.outcomes["replayed"] == report.clicks - 300 > 0
    assert tally.outcomes.total() == report.clicks == len(tally.latencies)
    assert len(tally.accepted_latencies) == 300
    assert tally.broken == []
    assert shop.asked.total() == tally.requests == tally.statuses.total()


async def test_connections_are_kept_from_one_click_to_the_next() -> None:
    plan = PlanSettings(buyers=200, seed=5, units=UNITS, retries=0, greedy=0)
    async with shop_of(reserve_all) as (shop, url):
        await rush(url, plan, connections_max=4)
    assert shop.asked.total() >= 200
    assert shop.connections == 4


async def test_no_more_than_the_allowed_connections_are_used() -> None:
    async with shop_of(reserve_all) as (shop, url):
        await rush(
            url,
            PlanSettings(buyers=200, seed=5, units=UNITS, retries=0, greedy=0),
            connections_max=4,
        )

    assert 1 < shop.in_flight_max <= 4


async def test_shed_buyer_comes_back_with_the_same_key_and_token() -> None:
    def shed_first(key: str, times: int) -> Answer:
        if times == 1:
            return 503, {"Retry-After": "0"}, {"code": "overloaded"}
        return reserve_all(key, times - 1)

    plan = PlanSettings(buyers=50, seed=5, units=UNITS, duplicates=0, retries=0, greedy=0)
    async with shop_of(shed_first) as (shop, url):
        report = await rush(url, plan)

    assert report.tally.outcomes == {"accepted": 50}
    assert set(shop.asked.values()) == {2}
    assert all(len(tokens) == 1 for tokens in shop.tokens.values())


async def test_buyer_gives_up_after_the_allowed_attempts() -> None:
    plan = PlanSettings(buyers=5, seed=5, units=UNITS, duplicates=0, retries=0, greedy=0)
    async with shop_of(lambda *_: (429, {"Retry-After": "0"}, {"code": "throttled"})) as (
        shop,
        url,
    ):
        report = await rush(url, plan, attempts_max=3)

    assert report.tally.outcomes == {"shed": 5}
    assert set(shop.asked.values()) == {3}


async def test_answer_lost_on_its_way_is_asked_for_again_and_counts_once() -> None:
    def hang_up_first(key: str, times: int) -> Answer | None:
        return None if times == 1 else reserve_all(key, times)

    plan = PlanSettings(buyers=40, seed=5, units=UNITS, duplicates=0, retries=0, greedy=0)
    async with shop_of(hang_up_first) as (_, url):
        report = await rush(url, plan)

    assert report.tally.outcomes == {"accepted": 40}
    assert report.tally.disconnects >= 40


async def test_connection_that_the_server_closes_after_an_answer_is_replaced() -> None:
    def once(key: str, times: int) -> Answer:
        return 409, {"Connection": "close"}, {"code": "sold_out"}

    plan = PlanSettings(buyers=40, seed=5, units=UNITS, duplicates=0, retries=0, greedy=0)
    async with shop_of(once) as (_, url):
        report = await rush(url, plan, connections_max=2)

    assert report.tally.outcomes == {"sold_out": 40}
    assert report.tally.requests == 40


async def test_two_reservations_for_one_key_are_called_a_broken_promise() -> None:
    def fickle(key: str, times: int) -> Answer:
        return 201, {}, {"reservation_id": f"demo.{times}"}

    clicks = [Click(0, 0, b"k" * 32, b"{}"), Click(0, 0, b"k" * 32, b"{}")]
    plan = PlanSettings(buyers=1, seed=5, units=UNITS)
    async with shop_of(fickle) as (_, url):
        report = await rush(url, plan, clicks)

    assert len(report.tally.broken) == 2  # 201 twice, and two ids


async def test_silent_server_is_given_up_within_the_bounds() -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(never, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    plan = PlanSettings(buyers=3, seed=5, units=UNITS, duplicates=0, retries=0, greedy=0)

    lost = await rush(url, plan, request_seconds_max=0.1, attempts_max=1)
    unfinished = await rush(url, plan, seconds_max=0.1)

    server.close()
    assert (lost.tally.outcomes, lost.tally.timeouts) == ({"lost": 3}, 3)
    assert unfinished.tally.outcomes == {"unfinished": 3}


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "https://127.0.0.1", "nonsense"])
async def test_engine_that_is_not_there_is_said_in_one_sentence(url: str) -> None:
    with pytest.raises(CrowdFailed, match=r"is the engine running\?|is no http:// address"):
        await rush(url, PlanSettings(buyers=1, seed=5, units=UNITS))


def test_percentiles_are_at_most_a_thousandth_too_long_and_never_too_short() -> None:
    latencies = Latencies()
    assert latencies.percentiles(50) == [0.0]
    for value in range(100, 0, -1):
        latencies.add(value / 1000)

    told = latencies.percentiles(50, 95, 99, 100)

    for seconds, recorded in zip(told, (0.05, 0.095, 0.099, 0.1), strict=True):
        assert recorded <= seconds <= recorded * 1.001
    assert told[-1] == 0.1


@given(
    st.lists(st.floats(min_value=1e-6, max_value=4000), min_size=1),
    st.lists(st.floats(min_value=0, max_value=1), min_size=1),
    st.sampled_from([0.1, 25, 50, 99, 99.9, 100]),
)
def test_two_histograms_merged_tell_what_one_of_everything_would(
    some: list[float], more: list[float], percent: float
) -> None:
    one, other, all_of_them = Latencies(), Latencies(), Latencies()
    for durations, histogram in ((some, one), (more, other), (some + more, all_of_them)):
        for seconds in durations:
            histogram.add(seconds)
    ordered = sorted(some + more)
    exact = ordered[math.ceil(len(ordered) * percent / 100) - 1]

    one.merge(pickle.loads(pickle.dumps(other)))

    [told] = one.percentiles(percent)
    assert [told] == all_of_them.percentiles(percent)
    assert exact <= told <= max(exact * 1.001, 1e-300)
    assert len(one) == len(ordered)


def test_a_million_latencies_take_no_more_room_than_their_spread_needs() -> None:
    latencies = Latencies()
    for _ in range(10):
        for number in range(100_000):
            latencies.add(0.001 + number / 1e6)
        latencies.fold()

    assert len(latencies) == 1_000_000
    assert len(pickle.dumps(latencies)) < 100_000


def test_crowd_goes_home_in_time_from_a_server_that_talks_nonsense() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}and more\r\n\r\n")
            await writer.drain()
            await reader.read()
        writer.close()

    async def go() -> CrowdReport:
        server = await asyncio.start_server(babble, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            # Time is up while lost connections are being opened again.
            return await rush(
                url,
                PlanSettings(buyers=2000, seed=5, units=UNITS),
                connections_max=64,
                seconds_max=0.3,
            )
        finally:
            server.close()

    report = uvloop.run(asyncio.wait_for(go(), 20))

    assert report.tally.outcomes["accepted"] == 0
    assert report.tally.outcomes.total() == report.clicks
    assert report.tally.disconnects > 64
