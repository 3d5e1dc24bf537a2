"""What wrk prints is read, and what it sends does not slow it down."""

import json
import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import contenders, trials
from benchmarks.cores import Cores
from benchmarks.trials import Bench, Trial, first_request
from benchmarks.wrk import Requests, WrkFailed, lua_table, milliseconds, parse_wrk

QUIET = """Running 3s test @ http://127.0.0.1:40123
  1 threads and 256 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.10ms  636.00us  14.03ms   90.12%
    Req/Sec    87.61k     2.01k   90.12k    73.33%
  Latency Distribution
     50%  636.00us
     75%    2.31ms
     90%    2.80ms
     99%    1.52s
  262863 requests in 3.00s, 69.71MB read
Requests/sec:  87621.04
Transfer/sec:     23.24MB
"""
TROUBLED = QUIET.replace(
    "Requests/sec",
    "  Socket errors: connect 1, read 20, write 0, timeout 300\n"
    "  Non-2xx or 3xx responses: 262000\nRequests/sec",
)


def test_a_quiet_run_is_read_to_the_last_number() -> None:
    said = parse_wrk(QUIET)

    assert (said.requests, said.seconds, said.requests_per_second) == (262_863, 3.0, 87_621.04)
    assert (said.p50_ms, said.p99_ms) == (0.636, 1520.0)
    assert (said.refused, said.broken, said.timeouts) == (0, 0, 0)


def test_refusals_and_broken_connections_are_counted() -> None:
    said = parse_wrk(TROUBLED)

    assert (said.refused, said.broken, said.timeouts) == (262_000, 21, 300)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("636.00us", 0.636),
        ("2.10ms", 2.1),
        ("1.52s", 1520.0),
        ("1.50m", 90_000.0),
        ("2.00h", 7.2e6),
    ],
)
def test_every_unit_of_time_that_wrk_prints_is_read(text: str, expected: float) -> None:
    assert milliseconds(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text", ["no report", "unable to connect to 127.0.0.1:1", "2 requests in 1.00s"]
)
def test_what_is_no_report_is_told_word_for_word(text: str) -> None:
    with pytest.raises(WrkFailed, match=text):
        parse_wrk(text)


def test_a_time_in_an_unknown_unit_is_no_number() -> None:
    with pytest.raises(WrkFailed, match="3 fortnights"):
        milliseconds("3 fortnights")


def test_quotes_and_line_ends_reach_lua_as_numbers(tmp_path: Path) -> None:
    text = lua_table(Requests(tmp_path, ("a", "b"), 'a"\\', "\r\n", "{}"))

    assert 'head = "a\\034\\092"' in text
    assert 'middle = "\\013\\010"' in text
    assert 'keys = { "a", "b" }' in text
    assert "\n" not in text


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(trials, "BUYERS", 2000)
    monkeypatch.setattr(trials, "FEW_BUYERS", 100)
    bench = Bench(tmp_path, "postgresql://nowhere", Cores(0, 0, 0))
    bench.prepare()
    return bench


def looks_of_luajit(text: bytes) -> tuple[bytes, ...]:
    """The bytes by which LuaJIT tells long strings apart when it hashes them."""
    middle, quarter = len(text) // 2 - 2, len(text) // 4 - 1
    return text[:4], text[-4:], text[middle : middle + 4], text[quarter : quarter + 4]


@pytest.mark.parametrize("contender", [contenders.GATE, contenders.GO], ids=lambda it: it.name)
def test_requests_differ_where_luajit_looks(bench: Bench, contender: contenders.Contender) -> None:
    requests = bench.requests(
        Trial("t", "t", contender, trials.RESERVE), "sale-01", 40123, trials.KEYS
    )
    buyers = requests.buyers.read_text().splitlines()

    looks = Counter(
        looks_of_luajit(
            f"{requests.head}{buyer}{requests.middle}{trials.KEYS[0]}{requests.tail}".encode()
        )
        for buyer in buyers
    )

    assert len(buyers) == 2000
    assert max(looks.values()) <= 10, "wrk would take hours to build these"


def test_a_request_is_whole_http(bench: Bench) -> None:
    trial = Trial("t", "t", contenders.GATE, trials.RESERVE)
    head, _, body = (
        first_request(bench.requests(trial, "sale-01", 40123, trials.KEYS), trials.KEYS[1])
        .decode()
        .partition("\r\n\r\n")
    )

    lines = head.split("\r\n")
    assert lines[0] == "POST /v1/sales/sale-01/reservations HTTP/1.1"
    assert f"Content-Length: {len(body)}" in lines
    assert f"Idempotency-Key: {trials.KEYS[1]}" in lines
    assert json.loads(body) == {"items": [{"sku": "phone-black", "quantity": 1}]}


def test_a_forged_token_differs_from_the_genuine_one_in_its_signature_alone(bench: Bench) -> None:
    genuine = (bench.folder / "few_tokens").read_text().split()
    forged = (bench.folder / "forged").read_text().split()

    assert len(genuine) == len(forged) == 100
    for one, other in zip(genuine, forged, strict=True):
        assert one.rpartition(".")[0] == other.rpartition(".")[0]
        assert one != other


def test_without_apt_get_the_setup_names_the_packages(tmp_path: Path) -> None:
    script = Path(contenders.__file__).parents[1] / "scripts" / "bench-peers-setup"

    done = subprocess.run(
        ["/bin/sh", str(script)],
        env=os.environ | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "no apt-get here" in done.stderr
    assert "libnginx-mod-http-lua" in done.stderr
