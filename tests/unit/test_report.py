"""The report: one page with everything in it, findings computed from the run, nothing left unsaid."""

import json
import re
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from api.cli import bench
from benchmarks.report import ReportFailed, Run, find_runs, read_run, runs, write_report
from benchmarks.report.compare import changes
from benchmarks.report.drawing import spread
from benchmarks.report.page import pair_halves, render, sections_of
from benchmarks.report.section import Missing, Section
from benchmarks.report.summary import remarks, verdict
from benchmarks.report.words import number, rate, short
from tests.support.bench_run import figure, groups, hold, store

LOADING_TAGS = {"link", "img", "iframe", "object", "embed", "base", "source", "video", "audio"}
LOADING_ATTRIBUTES = {"src", "srcset", "data", "action", "background", "poster"}
COLOR = re.compile(r"\$[a-z][a-z0-9-]*(@[0-9.]+)?")


class Page(HTMLParser):
    """What a browser would find on the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.charts: list[str] = []
        self.text = ""
        self.specs: dict[str, Any] = {}
        self.styles = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self._inside = named.get("id") or tag if tag in {"script", "style"} else ""
        if tag in LOADING_TAGS or LOADING_ATTRIBUTES & set(named):
            self.loads.append(tag)
        if (named.get("href") or "#")[0] != "#":
            self.loads.append(str(named["href"]))
        if key := named.get("data-chart"):
            self.charts.append(key)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        match self._inside:
            case "charts":
                self.specs = json.loads(data)
            case "style":
                self.styles += data
            case "":
                self.text += data.replace("\N{NO-BREAK SPACE}", " ")


def make_run(**changed: Any) -> Run:
    """The whole run, with some groups replaced; None takes one away."""
    found = groups() | changed
    return Run("20261121T120000Z", Path(), {name: g for name, g in found.items() if g is not None})


def page_of(run: Run, against: Run | None = None) -> Page:
    return Page(render(run, against, "// plotly"))


def section(run: Run, key: str) -> Section:
    [found] = [
        each for each in sections_of(run, None) if isinstance(each, Section) and each.key == key
    ]
    return found


def test_page_is_one_file_that_loads_nothing(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "report.html"
    write_report(make_run(), None, out)

    text = out.read_text("utf-8")
    page = Page(text)
    assert page.loads == []
    assert "@import" not in page.styles
    assert "url(" not in page.styles
    assert "Plotly" in text
    assert len(text) > 1_000_000  # The script is inside.


def test_page_has_every_chart_wide_and_narrow() -> None:
    page = page_of(make_run(), make_run())
    assert page.charts == [
        "sweep-0",
        "cpu-0",
        "overload-0",
        "limit-0",
        "fault-0",
        "room-0",
        "room-1",
        "side-by-side-0",
        "side-by-side-1",
        "scaling-0",
        "durability-0",
        "redis-0",
        "memory-0",
        "kernels-0",
    ]
    assert set(page.specs) == set(page.charts)
    assert all(spec["wide"]["data"] and spec["narrow"]["data"] for spec in page.specs.values())


def test_every_chart_is_a_figure_plotly_accepts_in_colours_the_page_defines() -> None:
    page = page_of(make_run())
    for spec in page.specs.values():
        for drawn in spec.values():
            text = json.dumps(drawn)
            for name in {found[0] for found in COLOR.finditer(text)}:
                # Once for light, once for dark.
                variable = f"--{name[1:].partition('@')[0]}:"
                assert page.styles.count(variable) == 2, name
            painted = json.loads(COLOR.sub("#112233", text))
            go.Figure(painted)  # Raises where an attribute is none of plotly's.


def test_every_section_names_a_finding_and_its_durability() -> None:
    for each in sections_of(make_run(), make_run()):
        if isinstance(each, Section):
            assert each.finding.endswith("."), each.key
            assert each.shows.endswith("."), each.key
            assert each.mode, each.key


def test_verdict_stands_first_and_names_rate_latency_mode_and_proof() -> None:
    page = page_of(make_run())
    said = verdict(make_run())
    assert said in page.text
    assert page.text.index(said) < page.text.index("Throughput and latency")
    for words in ("27,000 reservations a second", "4.60 ms", "strict", "34 steps"):
        assert words in said


def test_broken_invariant_outranks_every_figure() -> None:
    overload = groups()["overload"]
    overload["steps"][2]["invariants"] = hold(broken=True)
    run = make_run(overload=overload)

    assert "broken" in verdict(run)
    assert "27,000" not in verdict(run)
    [(sentence, bad), *_] = remarks(run)
    assert bad
    assert "no oversell — 3 too many" in sentence
    assert "BROKEN in 1 of 34 steps: overload (3× offered)" in section(run, "invariants").finding


def test_missing_groups_are_said_and_leave_the_rest_alone() -> None:
    for name in ("sweep", "overload", "scaling", "durability", "memory", "kernels", "redis"):
        page = page_of(make_run(**{name: None}))
        assert not [chart for chart in page.charts if chart.startswith(name)]
        assert "not measured in this run." in page.text
        assert page.charts


def test_group_that_was_skipped_says_why() -> None:
    run = make_run(side_by_side={"skipped": "wrk is not installed."})
    page = page_of(run)
    assert "Side by side. wrk is not installed." in page.text
    assert "side-by-side-0" not in page.charts


def test_group_that_failed_is_said_first() -> None:
    text = "Traceback (most recent call last):\n  …\nAssertionError: 7 of 9 stored"
    run = make_run(drain={"failed": {"drain": text}})
    assert remarks(run)[0] == ("Drain failed: AssertionError: 7 of 9 stored", True)
    assert "Draining into Postgres. It failed: AssertionError: 7 of 9 stored" in page_of(run).text


def test_admission_says_what_was_promised_and_what_came() -> None:
    run = make_run()

    said = section(run, "room").finding
    assert "All 1,000 units were sold 118 s after the opening" in said
    assert "nobody present was passed over" in said
    assert "within 11 % of what was promised" in said
    assert "With a draw" in " ".join(section(run, "room").notes)
    assert "keeps 97 % of its best goodput" in section(run, "limit").finding
    assert "p99 of 44 ms" in section(run, "limit").finding
    fault = section(run, "fault").finding
    assert "slows by itself from 12,000 to 3,900/s" in fault
    assert "is back 1.20 s after the fault's end" in fault
    assert "81,000 wait" in fault
    assert "room, a poll: 812 ns" in section(run, "admission-costs").finding


def test_day_that_passed_people_over_says_so() -> None:
    admission = groups()["admission"]
    admission["simulation"]["counts"]["passed_over"] = 3
    said = section(make_run(admission=admission), "room").finding
    assert "3 present were passed over" in said


def test_parts_of_admission_that_failed_leave_the_others_alone() -> None:
    admission = groups()["admission"] | {"simulation": None, "failed": {"simulation": "a\nBad: x"}}
    page = page_of(make_run(admission=admission))
    assert "room-0" not in page.charts
    assert "limit-0" in page.charts
    assert "It failed: Bad: x" in page.text


def test_run_of_one_group_is_still_a_page() -> None:
    run = Run("r", Path(), {"memory": groups()["memory"]})
    page = page_of(run)
    assert page.charts == ["memory-0"]
    assert "throughput was not swept" in page.text


def test_run_without_a_knee_says_so() -> None:
    sweep = groups()["sweep"] | {"knee": None}
    run = make_run(sweep=sweep)
    assert "none of the loads with p99 below 5 ms" in verdict(run)
    assert "No step kept p99 within 5 ms" in section(run, "sweep").finding
    page_of(run)


def test_busy_machine_and_a_late_generator_are_said() -> None:
    sweep = groups()["sweep"]
    sweep["steps"][1]["others_share"] = 0.52
    sweep["steps"][1]["generator"] |= {"was_limit": True, "lag_p99_ms": 7.5}
    run = make_run(sweep=sweep)

    assert any("up to 52 %" in sentence for sentence, _ in remarks(run))
    assert any(
        "1 of 12 steps" in note and "7.50 ms" in note for note in section(run, "sweep").notes
    )


def test_section_measured_on_a_busy_machine_says_so() -> None:
    quiet, busy = groups()["scaling"], groups()["scaling"]
    busy["steps"][0]["others_share"] = 0.4
    assert not any("Other programs" in n for n in section(make_run(scaling=quiet), "scaling").notes)
    assert any("up to 40 %" in n for n in section(make_run(scaling=busy), "scaling").notes)


def test_half_section_without_a_neighbour_takes_the_whole_width() -> None:
    parts = [each for each in sections_of(make_run(redis=None), None) if isinstance(each, Section)]
    widths = [each.half for each in pair_halves(parts)]
    assert sum(widths) % 2 == 0
    assert sum(each.half for each in parts) - sum(widths) == 1


def test_missed_target_is_named() -> None:
    drain = {"figures": [figure("orders stored", 61_000, "orders/s", "≥ 80,000", ok=False)]}
    run = make_run(drain=drain)
    assert any("2 of 3 targets" in said and "orders stored" in said for said, _ in remarks(run))
    assert "missed" in section(run, "drain").finding


def test_finding_is_computed_from_the_figures() -> None:
    durability = groups()["durability"]
    durability["modes"][0]["saturated"]["accepted_per_s"] = 16_500
    said = section(make_run(durability=durability), "durability").finding
    assert "16,500/s" in said
    assert "keeps only 50 % of balanced" in said


def test_strict_that_costs_nothing_is_not_said_to_gain() -> None:
    durability = groups()["durability"]
    durability["modes"][0]["saturated"]["accepted_per_s"] = 50_000
    said = section(make_run(durability=durability), "durability").finding
    assert "told from noise" in said
    assert "%" not in said


def test_fit_that_cannot_be_is_said_to_be_none() -> None:
    scaling = groups()["scaling"]
    scaling["usl"]["sigma"] = 3.84
    said = section(make_run(scaling=scaling), "scaling").finding
    assert "does not describe this" in said


def test_fit_above_all_points_is_still_drawn() -> None:
    scaling = groups()["scaling"]
    scaling["usl"]["lambda_"] = 500_000.0
    assert "scaling-0" in page_of(make_run(scaling=scaling)).charts


def test_ratios_are_held_against_our_gate() -> None:
    said = section(make_run(), "side-by-side").finding
    assert said.startswith("Our gate takes 13.4 µs")
    assert "Go: gin + redigo (2.5×)" in said


def test_change_below_ten_percent_is_noise() -> None:
    memory = groups()["memory"]
    now = make_run(memory=memory | {"redis_bytes_per_reservation": 90.0})
    [change] = [c for c in changes(now, make_run()) if c.now.name == "Redis, stored"]
    assert change.is_noise
    assert change.is_better is None


@pytest.mark.parametrize(("value", "better"), [(60.0, True), (120.0, False)])
def test_change_above_ten_percent_is_better_or_worse(value: float, better: bool) -> None:
    memory = groups()["memory"] | {"redis_bytes_per_reservation": value}
    now = make_run(memory=memory)
    [change] = [c for c in changes(now, make_run()) if not c.is_noise]
    assert change.is_better is better
    assert ("1 got worse" in page_of(now, make_run()).text) is not better


def test_more_throughput_is_better() -> None:
    durability = groups()["durability"]
    durability["modes"][0]["saturated"]["accepted_per_s"] = 60_000
    now = make_run(durability=durability)
    [change] = [c for c in changes(now, make_run()) if not c.is_noise]
    assert change.is_better


def test_run_that_shares_no_figure_is_not_compared() -> None:
    against = Run("older", Path(), {"environment": {}})
    [compared] = [
        each
        for each in sections_of(make_run(), against)
        if isinstance(each, Missing) and "earlier run" in each.title
    ]
    assert "none of the same figures" in compared.why


def test_text_of_a_run_cannot_become_markup() -> None:
    evil = "</script><script>alert(1)</script>"
    servers = {"gate": {"title": evil, "front_us": 12.0}, "go": {"title": "Go", "front_us": 30.0}}
    drain = {"figures": [figure(evil, 1.0, "orders/s")]}
    run = Run(evil, Path(), groups() | {"drain": drain, "side_by_side": {"servers": servers}})

    text = render(run, None, "// plotly")

    assert evil not in text
    assert "alert(1)" in text
    assert evil in json.dumps(Page(text).specs["side-by-side-0"])


@given(st.lists(st.floats(0, 500), min_size=1, max_size=8), st.floats(1, 40))
def test_labels_are_moved_apart_and_keep_their_order(positions: list[float], gap: float) -> None:
    moved = spread(positions, gap)
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    apart = [moved[b] - moved[a] for a, b in pairwise(order)]
    assert all(distance >= gap - 1e-6 for distance in apart)


def test_labels_that_have_room_stay_where_they_are() -> None:
    assert spread([10.0, 50.0, 90.0], 16) == [10.0, 50.0, 90.0]
    assert spread([50.0, 50.0], 16) == [42.0, 58.0]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (number(12345.6), "12,346"),
        (number(4.6), "4.60"),
        (number(None), "–"),
        (number(0.0123), "0.012"),
        (rate(12_345), "12,300"),
        (rate(999), "999"),
        (rate(0), "0"),
        (short(34_500), "34.5k"),
    ],
)
def test_numbers_keep_three_digits(words: str, text: str) -> None:
    assert words == text


# The command.


def invoke(*words: str) -> Any:
    return CliRunner().invoke(bench.app, ["report", *words])


def test_command_writes_the_newest_run_against_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "RESULTS", tmp_path)
    for stamp in ("20261101T000000Z", "20261121T000000Z", "20261111T000000Z"):
        store(tmp_path / stamp, groups())
    (tmp_path / "loose.json").write_text("{}")
    (tmp_path / "empty").mkdir()

    done = invoke()

    assert done.exit_code == 0, done.output
    page = Page((tmp_path / "20261121T000000Z" / "report.html").read_text("utf-8"))
    assert "Run 20261121T000000Z" in page.text
    assert "Every figure that run 20261111T000000Z has too" in page.text
    assert len(find_runs()) == 3


def test_command_takes_folders_and_a_file(tmp_path: Path) -> None:
    run, earlier = store(tmp_path / "b", groups()), store(tmp_path / "c", groups())
    out = tmp_path / "page.html"
    done = invoke("--run", str(run), "--against", str(earlier), "--out", str(out))
    assert done.exit_code == 0, done.output
    assert str(out) in done.output
    assert "Every figure that run c has too" in Page(out.read_text("utf-8")).text


def test_command_without_a_run_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "RESULTS", tmp_path)
    done = invoke()
    assert isinstance(done.exception, bench.NoReport)
    assert "run make bench first" in str(done.exception)


def test_command_without_plotly_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    done = invoke("--run", str(store(tmp_path / "b", groups())))
    assert isinstance(done.exception, bench.NoReport)
    assert "pip install 'doorbuster[bench]'" in str(done.exception)


def test_folder_that_is_no_run_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ReportFailed, match="There is no folder"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(ReportFailed, match="run make bench first"):
        read_run(tmp_path)


@pytest.mark.parametrize("content", ["{", "[1]", ""])
def test_file_that_is_no_json_object_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(ReportFailed, match=r"sweep\.json"):
        read_run(tmp_path)
