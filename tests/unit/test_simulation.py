"""The simulated day: it repeats itself, it drives the real room, and its record tells faults."""

import asyncio
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from benchmarks.admission.crowd import NEVER, TICKS_PER_SECOND, Crowd, CrowdPlan
from benchmarks.admission.fault import accepted_rates, judge
from benchmarks.admission.overload import summary
from benchmarks.admission.pipeline import Store, StorePlan
from benchmarks.admission.record import Record
from benchmarks.admission.shop import Said, ShopPlan
from benchmarks.admission.simulation import Plan, simulate
from benchmarks.admission.wire import SOCKET, SlowWire
from engine.servers import EmbeddedValkey

CROWD = CrowdPlan(
    visitors=1500,
    prequeue_seconds=20,
    early_seconds=8,
    late_seconds=15,
    think_seconds=(2.0, 0.3),
    pay_seconds=(1.0, 3.0),
    gives_up_none=(0.3, 0.2),  # There are few: somebody has to be left for what comes back.
)
SHOP = ShopPlan(units=60, pace_max=10, admission_seconds=10, reservation_seconds=8)
DAY = Plan(CROWD, SHOP, StorePlan(per_second=12, spell_after=3, spell_seconds=3), seed=7)


async def live(redis: Redis, valkey: EmbeddedValkey, plan: Plan = DAY) -> dict[str, Any]:
    await redis.flushall()
    return await simulate(plan, valkey.url)


async def test_seed_repeats_a_day_visitor_by_visitor(redis: Redis, valkey: EmbeddedValkey) -> None:
    first, second = await live(redis, valkey), await live(redis, valkey)
    for found in (first, second):
        del found["took"], found["figures"]
    assert first == second


@pytest.mark.parametrize("order", ["fifo", "draw"])
async def test_day_is_fair_sells_everything_and_leaves_nobody_waiting(
    redis: Redis, valkey: EmbeddedValkey, order: str
) -> None:
    plan = Plan(CROWD, ShopPlan(**{**as_dict(SHOP), "order": order}), DAY.store, seed=11)

    found = await live(redis, valkey, plan)

    counts = found["counts"]
    assert found["sold"] == sum(found["units"].values()) == 60
    assert counts["admitted"] >= 60 * 0.9
    assert counts.get("passed_over", 0) == counts["told_gone_too_early"] == 0
    assert counts["second_numbers"] == counts["out_of_order"] == 0
    assert "outcome TICKET_REQUIRED" not in counts
    assert counts["told_gone"] > 0
    assert found["gone_beyond_interval_s"] <= 0.2
    assert counts["redis_calls_in_polls"] == 0
    assert counts["polls_watched"] > 0
    assert found["eta"]["promises"] > 0
    assert found["issued"] == 1500


def as_dict(plan: ShopPlan) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in plan.__struct_fields__}


def said(eta_s: float | None = None, chance: float = 0.5, interval_s: float = 5) -> Said:
    span = None if eta_s is None else (eta_s * 0.8, eta_s * 1.2)
    return Said("waiting", interval_s, "ticket", eta_s, span, chance, "fair")


def test_somebody_who_waits_while_a_later_place_was_let_in_is_passed_over() -> None:
    record = Record(visitors=3)
    record.told_admitted(0, place=5, tick=10)
    record.told_to_wait(place=4)
    assert record.counts["passed_over"] == 0  # At the same moment another front may not know yet.

    record.told_admitted(1, place=6, tick=12)
    record.told_to_wait(place=6)
    assert record.counts["passed_over"] == 0
    record.told_to_wait(place=5)
    assert record.counts["passed_over"] == 1


def test_error_of_a_promise_is_relative_to_the_wait_but_not_below_a_poll_interval() -> None:
    record = Record(visitors=1)
    record.serving = array("I", [0] * 100 + [1] + [2] * 9)  # Place 1 is served at tick 100.
    record.promise(1, 0, said(eta_s=12))
    record.promise(1, 90, said(eta_s=3))
    record.promise(3, 0, said(eta_s=1))  # Place 3 never was.

    [long, soon] = record.kept()
    assert (long.actual_s, long.error) == (10.0, pytest.approx(0.2))
    assert (soon.actual_s, soon.error) == (1.0, pytest.approx(2 / 5))
    assert record.eta()["promises"] == 2
    assert record.eta()["inside_range"] == 0.5


def test_chances_are_held_against_who_was_served() -> None:
    record = Record(visitors=1)
    record.serving = array("I", [2])
    for place, chance in ((1, 0.95), (2, 0.91), (3, 0.93), (9, 0.05)):
        record.promise(place, 0, said(1, chance))
    assert record.chances() == [
        {"from": 0.0, "told": 1, "served": 0.0},
        {"from": 0.9, "told": 3, "served": pytest.approx(2 / 3)},
    ]


def test_wait_after_all_was_gone_counts_from_then_or_from_coming() -> None:
    record = Record(visitors=2)
    record.interval_s[0] = 3.0
    record.gone_at = 100
    record.told_gone(1, tick=500, here_since=500)
    assert (record.gone_wait_s, record.gone_beyond_s) == (0.0, 0.0)
    record.told_gone(0, tick=140, here_since=5)
    assert (record.gone_wait_s, record.gone_beyond_s) == (4.0, 1.0)
    record.gone_at = NEVER
    record.told_gone(0, tick=90, here_since=5)
    assert record.counts["told_gone_too_early"] == 1


def test_store_saves_up_nothing_while_it_is_idle_and_is_slower_in_the_spell() -> None:
    store = Store(StorePlan(per_second=10, spell_after=100, spell_seconds=1000), 0, seed=1)
    for tick in range(50):
        assert store.store(tick) == 0
    store.take(1000)
    before = sum(store.store(tick) for tick in range(50, 150))
    during = sum(store.store(tick) for tick in range(1000, 1100))
    assert 70 <= before <= 130
    assert 15 <= during <= 50
    assert store.backlog == 1000 - store.stored == 1000 - before - during


def test_crowd_comes_in_front_of_the_opening_and_with_it() -> None:
    plan = CrowdPlan(visitors=5000)
    crowd = Crowd(plan, seed=3)
    arrivals = crowd.arrivals()
    early = sum(at < plan.prequeue_seconds * TICKS_PER_SECOND for at in arrivals) / 5000
    assert min(arrivals) >= 0
    assert 0.27 < early < 0.33
    assert 0.18 < sum(crowd.is_bot) / 5000 < 0.22
    assert arrivals == Crowd(CrowdPlan(visitors=5000), seed=3).arrivals()


# The overload run's judgement, and its wire.


def step(times: float, round_: int, goodput: float, p99: float, mib: float) -> dict[str, Any]:
    return {
        "times": times,
        "round": round_,
        "goodput_per_s": goodput,
        "accepted_latency_ms": {"p99": p99},
        "front_rss_max_mib": mib,
    }


def test_summary_takes_medians_and_the_growth_from_round_to_round() -> None:
    steps = [step(1, 0, 100, 5, 60), step(10, 0, 80, 30, 70), step(1, 1, 110, 5, 71)]
    steps.append(step(10, 1, 84, 50, 73))
    found = summary(steps)
    assert found == {"peak_per_s": 105, "share": 0.781, "p99_ms": 40, "growth_mib": 3.0}


def samples(rates: list[float]) -> list[dict[str, float]]:
    """A sample each tenth of a second, so many accepted per second."""
    found, accepted = [], 0.0
    for number, rate in enumerate(rates):
        accepted += rate / 10
        found.append({"s": number / 10, "accepted": accepted, "behind": rate, "entries": 1})
    return found


def test_recovery_is_when_the_rate_is_back_after_the_fault() -> None:
    found = judge(samples([100] * 50 + [10] * 50 + [10] * 20 + [100] * 40), 5.0, 10.0)
    assert (found["usual_per_s"], found["slow_per_s"]) == (100, 10)
    assert found["recovery_s"] == pytest.approx(2.8, abs=0.2)  # Of a window of one second.
    assert found["behind_max"] == 100


def test_engine_that_stays_slow_has_not_recovered() -> None:
    assert judge(samples([100] * 50 + [10] * 100), 5.0, 10.0)["recovery_s"] is None


def test_rates_are_those_of_a_whole_window() -> None:
    rates = accepted_rates(samples([50] * 30))
    assert all(rate == pytest.approx(50) for _, rate in rates)
    assert rates[0][0] > 0.5


@asynccontextmanager
async def echo(folder: Path) -> AsyncIterator[str]:
    """Something on a socket like Postgres' that gives back what it gets."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    server = await asyncio.start_unix_server(serve, str(folder / SOCKET))
    try:
        yield f"postgresql://user@/name?host={folder}"
    finally:
        server.close()


async def test_slow_wire_keeps_every_byte_and_their_order(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").mkdir()
    async with echo(tmp_path / "far") as url:
        wire = SlowWire(tmp_path / "near")
        assert wire.url(url) == f"postgresql://user@/name?host={tmp_path / 'near'}".replace(
            "/near", "%2Fnear"
        ).replace(str(tmp_path), str(tmp_path).replace("/", "%2F"))
        async with wire.open():
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "near" / SOCKET))
            sent = b"".join(b"%07d" % number for number in range(2000))
            for at in range(0, len(sent), 1000):
                wire.delay_s = 0.0 if at > 7000 else 0.01
                writer.write(sent[at : at + 1000])
                await writer.drain()
            writer.write_eof()
            assert await reader.read(-1) == sent
            writer.close()


async def test_slow_wire_hangs_up_when_its_end_does(tmp_path: Path) -> None:
    wire = SlowWire(tmp_path)
    wire.url(f"postgresql://user@/name?host={tmp_path / 'nowhere'}")
    async with wire.open():
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / SOCKET))
        assert await reader.read(-1) == b""
        writer.close()
