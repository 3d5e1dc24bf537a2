"""Figures, ratios and the table of a benchmark run; what is skipped says so in a sentence."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import contenders, run, side_by_side
from benchmarks.cores import share_out
from benchmarks.environment import noise_warning
from benchmarks.figures import Figure, as_table, at_least, at_most, figures_of, number_text
from benchmarks.run import GroupFailed, GroupSkipped, Run, kernel_figures, notes_of
from benchmarks.side_by_side import (
    NothingToMeasure,
    combine,
    in_order,
    make_figures,
    make_loads,
    make_servers,
)
from benchmarks.trials import RESERVE, SOLD_OUT, Count, Measurement, others_share
from benchmarks.wrk import WrkResult


def measured(trial: str, **values: float) -> Measurement:
    plain: dict[str, Any] = {
        "requests": 1000,
        "requests_per_second": 1000.0,
        "front_us": 10.0,
        "redis_us": 3.0,
        "front_busy": 1.0,
        "redis_calls": 10,
        "p50_ms": 1.0,
        "p99_ms": 2.0,
        "timeouts": 0,
        "others_share": 0.0,
    }
    return Measurement(trial=trial, **(plain | values))


def found(**front_us: float) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "title": name,
            "front_us": us,
            "redis_us": 3.0,
            "requests_per_second": 1e6 / us,
            "p99_ms": 2.0,
        }
        for name, us in front_us.items()
    }


def by_name(figures: list[Figure]) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures}


def printed(thing: object, width: int = 100) -> str:
    console = Console(width=width, record=True, file=StringIO())
    console.print(thing)
    return console.export_text()


def test_a_limit_itself_is_within_the_limit() -> None:
    assert at_most("a", 14, "µs", 14).ok
    assert not at_most("a", 14.01, "µs", 14).ok
    assert at_least("a", 2.5, "×", 2.5).ok
    assert not at_least("a", 2.49, "×", 2.5).ok


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0312, "0.03"), (14.25, "14.25"), (123.45, "123.5"), (15896.2, "15,896"), (7, "7")],
)
def test_numbers_are_as_long_as_they_are_worth(value: float, text: str) -> None:
    assert number_text(value) == text


def test_of_two_rounds_the_lower_cpu_counts_and_the_faster_rate() -> None:
    slow = measured("gate", requests_per_second=900.0, front_us=9.0, redis_us=4.0, p99_ms=9.0)
    fast = measured("gate", requests_per_second=1100.0, front_us=11.0, redis_us=2.0, p99_ms=3.0)

    best = combine([slow, fast])

    assert (best.front_us, best.redis_us) == (9.0, 2.0)
    assert (best.requests_per_second, best.p99_ms) == (1100.0, 3.0)


def test_peers_are_held_against_the_gate_and_the_gate_against_nginx() -> None:
    figures = by_name(
        make_figures(found(gate=12, nginx_static=8, go=30, nginx_lua=20, naive=97), "gate")
    )

    assert figures["gate : nginx, static 201"].value == pytest.approx(1.5)
    assert figures["gate : nginx, static 201"].ok
    assert figures["go : gate"].value == pytest.approx(2.5)
    assert figures["go : gate"].ok
    assert figures["nginx_lua : gate"].ok is False
    assert figures["naive : gate"].ok


def test_without_a_gate_the_route_is_held_against_the_peers() -> None:
    figures = by_name(make_figures(found(route=45, nginx_static=8), "route"))

    assert figures["route : nginx, static 201"].ok is False
    assert not [name for name in figures if name == "route : route"]


def test_a_run_that_measured_nothing_of_ours_has_no_figures() -> None:
    assert make_figures(found(go=30), "gate") == []


def test_strict_is_held_against_balanced() -> None:
    figures = by_name(make_figures(found(gate=10, balanced=8), "gate"))

    assert figures["strict : balanced, rate"].value == pytest.approx(0.8)
    assert figures["strict : balanced, rate"].ok


def test_what_a_target_compares_is_measured_close_together() -> None:
    names = [trial.name for trial in in_order(make_servers(), make_loads())]

    assert names[:3] == ["gate", "balanced", "nginx_static"]
    assert len(names) == len(set(names)) == len(make_servers()) + len(make_loads())


def answers(requests: int, refused: int) -> WrkResult:
    return WrkResult(requests, 1.0, float(requests), 1.0, 2.0, refused, 0, 0)


NOTHING = Count(0.0, 0.0, 0, 0)


@pytest.mark.parametrize(
    ("refused", "reserved", "wrong"),
    [
        (0, 1000, None),
        (0, 1256, None),  # As many as connections may have been in flight at the end.
        (0, 1257, "1257 reservations"),
        (0, 999, "999 reservations"),  # One answer was no new reservation.
        (3, 997, "3 of 1000 were refused"),
    ],
)
def test_every_answer_must_be_a_reservation_in_redis(
    refused: int, reserved: int, wrong: str | None
) -> None:
    said = RESERVE.check(answers(1000, refused), NOTHING, Count(1.0, 1.0, reserved, 10))

    assert said is None if wrong is None else wrong in str(said)


def test_a_sold_out_sale_must_refuse_everybody() -> None:
    assert SOLD_OUT.check(answers(1000, 1000), NOTHING, NOTHING) is None
    assert SOLD_OUT.check(answers(1000, 999), NOTHING, Count(0.0, 0.0, 1, 1)) is not None


def test_what_neither_server_nor_generator_spent_was_others() -> None:
    before = Count(1.0, 1.0, 0, 0, generator_s=1.0, machine_s=10.0, at_s=100.0)
    after = Count(3.0, 1.5, 0, 0, generator_s=2.5, machine_s=16.0, at_s=104.0)

    assert others_share(before, after, cores=2) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("available", "cores"),
    [([0], (0, 0, 0)), ([0, 1], (0, 1, 1)), ([2, 5, 7], (2, 5, 7)), (range(8), (0, 1, 2))],
)
def test_the_server_shares_its_core_only_where_there_is_one(
    available: list[int], cores: tuple[int, ...]
) -> None:
    assert share_out(available) == cores


def test_a_busy_machine_is_told_of() -> None:
    assert noise_warning(1.0, 2) is None
    assert "1.01 on 2 cores" in str(noise_warning(1.01, 2))


def test_kernels_are_held_against_their_plain_form() -> None:
    group = {"group": "split", "extra_info": {"lines": 1000}}
    fast = group | {"name": "test_split[compiled]", "stats": {"median": 0.0001}}
    plain = group | {"name": "test_split[plain]", "stats": {"median": 0.0003}}
    other = {"group": "b", "extra_info": {}, "name": "test_b", "stats": {"median": 1e-6}}

    figures = by_name(kernel_figures([fast, plain, other]))

    assert figures["split[compiled]"].value == pytest.approx(100)
    assert figures["split[compiled]"].ok
    assert figures["split[compiled]"].ratio == "plain: 3.0 ×"
    assert figures["split[plain]"].ok is None
    assert figures["b"].value == pytest.approx(1000)


def test_figures_survive_being_kept() -> None:
    figure = at_most("front", 12.0, "µs", 14, "1.5 × nginx")

    assert figures_of({"figures": [figure.as_dict() | {"added_later": 1}]}) == [figure]


def test_skipped_and_failed_parts_have_a_line_each() -> None:
    notes = notes_of("side_by_side", {"skipped": {"go": "no Go"}, "failed": {"gate": "a\nboom"}})

    assert notes == ["side_by_side: go was skipped: no Go.", "side_by_side: gate FAILED: boom"]


@pytest.mark.parametrize("width", [80, 100])
def test_the_table_says_group_value_target_and_verdict(width: int) -> None:
    rows = [("redis", at_most("reserve.lua, server time, batch 128", 3.2, "µs / reservation", 4))]

    text = printed(as_table(rows, "2 cores"), width)

    for word in ("redis", "batch 128", "3.20", "µs / reservation", "≤ 4", "ok"):
        assert word in text


def run_in(folder: Path) -> Run:
    return Run(folder, Console(file=StringIO()))


def test_a_failed_group_prints_its_output_and_the_next_one_runs(tmp_path: Path) -> None:
    def fails(folder: Path, say: run.Say) -> run.Result:
        raise GroupFailed("pytest ended with 1\nassert 3 == 4")

    def works(folder: Path, say: run.Say) -> run.Result:
        return run.with_figures([at_most("a", 1, "µs", 2)])

    console = Console(record=True, file=StringIO())
    this = Run(tmp_path, console)
    this.do("redis", fails)
    this.do("drain", works)

    assert this.failed
    assert "assert 3 == 4" in console.export_text()
    assert [group for group, _ in this.figures] == ["drain"]
    assert this.notes == ["redis: all of it FAILED: assert 3 == 4"]
    assert (tmp_path / "drain.json").exists()


def test_ctrl_c_leaves_what_a_group_had_kept(tmp_path: Path) -> None:
    def is_interrupted(folder: Path, say: run.Say) -> run.Result:
        kept = run.with_figures([at_most("a", 1, "µs", 2)])
        (folder / "side_by_side.json").write_text(json.dumps(kept))
        raise KeyboardInterrupt

    this = run_in(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        this.do("side_by_side", is_interrupted)

    assert [(group, figure.name) for group, figure in this.figures] == [("side_by_side", "a")]


def test_a_group_that_cannot_run_here_is_no_failure(tmp_path: Path) -> None:
    def skips(folder: Path, say: run.Say) -> run.Result:
        raise GroupSkipped("wrk is not here; `make bench-peers-setup` installs it")

    this = run_in(tmp_path)
    result = this.do("side_by_side", skips)

    assert not this.failed
    assert result["skipped"] == "Wrk is not here; `make bench-peers-setup` installs it."


def test_without_wrk_the_side_by_side_names_the_setup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")

    with pytest.raises(NothingToMeasure, match="make bench-peers-setup"):
        side_by_side.measure(Path("/nonexistent"))


@pytest.mark.parametrize("name", ["NGINX_STATIC", "NGINX_LUA", "GO"])
def test_a_peer_that_is_not_installed_names_the_setup(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(contenders, "SYSTEM_PATH", ())

    sentence = getattr(contenders, name).missing()

    assert "is not here; `make bench-peers-setup` installs it" in sentence
