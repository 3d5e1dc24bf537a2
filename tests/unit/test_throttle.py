"""The throttles let in what they promise, in bounded memory, in one process and in several."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.admission import Throttle
from engine.admission.throttle import Throttles, open_table
from engine.clock import ManualClock
from engine.config import Settings
from ext.throttle import ClientTable, keyed_hash

WAYS = 8  # A table of so many clients is one set.
HEADER_BYTES = 4096

ASK_AS_SOON_AS_TOLD = """
import sys
from engine.admission.throttle import Throttle, open_table
from engine.clock import ManualClock

table = open_table(64, sys.argv[1])
assert table.shared
throttle = Throttle(ManualClock(), per_second=1, burst=int(sys.argv[2]), table=table)
print("ready", flush=True)
sys.stdin.readline()
print(sum(throttle.admit(f"u{n % 2}") == 0.0 for n in range(int(sys.argv[3]))))
"""


def test_a_burst_is_admitted_and_the_next_is_told_how_long_to_wait() -> None:
    throttle = Throttle(ManualClock(), per_second=10, burst=5)
    assert [throttle.admit("u1") for _ in range(5)] == [0.0] * 5
    assert throttle.admit("u1") == 0.1


def test_waiting_as_told_is_enough_and_less_is_not() -> None:
    clock = ManualClock()
    throttle = Throttle(clock, per_second=10, burst=2)
    throttle.admit("u1"), throttle.admit("u1")
    clock.advance(seconds=throttle.admit("u1") - 0.001)
    assert throttle.admit("u1") == 0.001
    clock.advance(seconds=0.001)
    assert throttle.admit("u1") == 0.0


def test_clients_do_not_throttle_each_other_whatever_their_names() -> None:
    throttle = Throttle(ManualClock(), per_second=1, burst=1)
    for name in ("u1", "u2", "", "é", "慢", "\ud800", "a\0b", "a", "u" * 10_000):
        assert throttle.admit(name) == 0.0
        assert throttle.admit(name) == 1.0


@given(
    st.lists(st.integers(0, 700), min_size=1, max_size=80),
    st.integers(1, 8).map(lambda rate: rate * 2),
    st.integers(1, 5),
)
def test_it_admits_exactly_what_a_bucket_of_tokens_would(
    pauses_ms: list[int], per_second: int, burst: int
) -> None:
    clock = ManualClock()
    throttle = Throttle(clock, per_second=per_second, burst=burst)
    interval = round(1e9 / per_second)
    missing = 0  # from the bucket, in ns
    for pause_ms in pauses_ms:
        clock.advance(seconds=pause_ms / 1000)
        missing = max(missing - pause_ms * 1_000_000, 0)
        wait = max(missing + interval - burst * interval, 0)
        assert throttle.admit("u1") == wait / 1e9
        missing += 0 if wait else interval


def test_a_clock_that_steps_back_costs_a_client_no_more_than_its_burst() -> None:
    clock = ManualClock()
    throttle = Throttle(clock, per_second=1, burst=3)
    throttle.admit("u1")
    clock.advance(seconds=-3600)
    assert throttle.admit("u1") == 1.0
    clock.advance(seconds=1)
    assert throttle.admit("u1") == 0.0


def test_a_million_visitors_leave_the_heaviest_remembered() -> None:
    table = ClientTable(1000)
    throttle = Throttle(ManualClock(), per_second=1, burst=50, table=table)
    for _ in range(50):
        assert throttle.admit("heavy") == 0.0
    for number in range(20_000):
        throttle.admit(f"light-{number}")
    assert throttle.admit("heavy") == 1.0
    assert 1000 <= len(table) <= 1024


def test_where_a_set_is_full_the_one_soonest_forgotten_anyway_goes() -> None:
    clock = ManualClock()
    table = ClientTable(WAYS)
    throttle = Throttle(clock, per_second=1, burst=2, table=table)
    for number in range(WAYS):
        throttle.admit(f"u{number}")
        clock.advance(seconds=0.01)
    throttle.admit("newcomer")
    assert throttle.state("u0") == (2, 0.0)
    assert [throttle.state(f"u{number}")[0] for number in range(1, WAYS)] == [1] * (WAYS - 1)
    assert throttle.state("newcomer") == (1, 1.0)
    assert len(table) == WAYS


def test_those_from_before_a_machine_started_anew_keep_nobody_out() -> None:
    clock = ManualClock()
    table = ClientTable(WAYS)
    throttle = Throttle(clock, per_second=1, burst=2, table=table)
    for number in range(WAYS):
        throttle.admit(f"old-{number}")
    clock.advance(seconds=-10 * 86_400)
    for number in range(WAYS):
        throttle.admit(f"new-{number}")
    assert [throttle.state(f"new-{number}")[0] for number in range(WAYS)] == [1] * WAYS


def test_throttles_of_one_table_are_told_apart_by_their_kinds() -> None:
    clock, table = ManualClock(), ClientTable(1000)
    users, addresses = (
        Throttle(clock, per_second=1, burst=1, kind=kind, table=table)
        for kind in ("user", "address")
    )
    assert users.admit("x") == addresses.admit("x") == 0.0
    assert users.admit("x") == addresses.admit("x") == 1.0


@pytest.mark.parametrize(("per_second", "burst"), [(0, 1), (-1, 1), (1, 0.5), (float("nan"), 1)])
def test_a_rate_at_which_nobody_could_pass_is_refused(per_second: float, burst: float) -> None:
    with pytest.raises(ValueError, match="nobody could pass"):
        Throttle(ManualClock(), per_second=per_second, burst=burst)


def test_a_client_is_told_its_policy_and_where_it_stands() -> None:
    clock = ManualClock()
    throttle = Throttle(clock, per_second=50, burst=200, kind="user")
    assert throttle.policy == '"user";q=200;w=4'
    assert throttle.standing("u1") == '"user";r=200;t=0'
    for _ in range(60):
        throttle.admit("u1")
    assert throttle.standing("u1") == '"user";r=140;t=2'


def test_each_machine_grants_its_share_of_every_rate() -> None:
    throttles = Throttles.of(
        Settings(throttle_burst=200, account_burst=2, machines=4), ManualClock()
    )
    assert throttles.user.policy == '"user";q=50;w=4'
    assert sum(throttles.user.admit("u1") == 0.0 for _ in range(200)) == 50
    assert throttles.user.admit("u1") == 4 / 50
    assert [throttles.account.admit("a@b") == 0.0 for _ in range(2)] == [True, False]
    assert throttles.address.admit("u1") == throttles.anonymous.admit("u1") == 0.0


def test_processes_that_share_a_file_admit_together_exactly_the_burst(tmp_path: Path) -> None:
    """Four on however few cores, for long enough to be interrupted in the middle of anything."""
    burst, asked = 500_000, 1_000_000
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONHASHSEED", raising=False)  # Each hashes words in a way of its own.
        fronts = [ask_in_a_process(tmp_path / "clients", burst, asked) for _ in range(4)]
    for front in fronts:
        assert front.stdin is not None
        front.stdin.write("go\n")
        front.stdin.flush()
    admitted = [int(front.communicate(timeout=60)[0]) for front in fronts]
    assert sum(admitted) == 2 * burst  # Two clients.
    assert os.listdir(tmp_path) == ["clients"]


def ask_in_a_process(path: Path, burst: int, asked: int) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", ASK_AS_SOON_AS_TOLD, str(path), str(burst), str(asked)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_front_that_starts_again_finds_what_was_charged(tmp_path: Path) -> None:
    path = str(tmp_path / "clients")
    clock = ManualClock()
    Throttle(clock, per_second=1, burst=1, table=ClientTable(100, path)).admit("u1")
    assert Throttle(clock, per_second=1, burst=1, table=ClientTable(100, path)).admit("u1") == 1.0


def test_a_set_that_a_killed_process_left_locked_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "clients"
    table = ClientTable(WAYS, str(path))
    throttle = Throttle(ManualClock(), per_second=1, burst=1, table=table)
    with path.open("r+b") as file:
        file.seek(HEADER_BYTES)
        file.write(b"\x01")
    assert throttle.admit("u1") == 0.0
    assert throttle.admit("u1") == 1.0
    assert len(table) == 1


def spoil(path: Path) -> None:
    ClientTable(100, str(path))
    with path.open("r+b") as file:
        file.seek(8)
        file.write(b"\xff")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: ClientTable(5000, str(path)), "has .* bytes"),
        (lambda path: path.write_text("{}"), "has 2 bytes"),
        (spoil, "another version"),
        (lambda path: path.symlink_to("elsewhere"), "symbolic links"),
        (lambda path: path.mkdir(), "directory"),
    ],
    ids=["of another size", "of another program", "of another version", "a link", "a folder"],
)
def test_a_file_that_is_not_fit_is_left_alone(
    tmp_path: Path, make: object, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "clients"
    assert callable(make)
    make(path)
    before = path.read_bytes() if path.is_file() else None
    table = open_table(100, str(path))
    assert not table.shared
    assert Throttle(ManualClock(), per_second=1, burst=1, table=table).admit("u1") == 0.0
    assert (path.read_bytes() if path.is_file() else None) == before
    [record] = caplog.records
    assert "by this process alone" in record.message
    with pytest.raises((OSError, ValueError), match=f"(?i){reason}"):
        ClientTable(100, str(path))


def test_a_folder_that_is_not_there_is_said_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert not open_table(100, str(tmp_path / "no" / "clients")).shared
    assert len(caplog.records) == 1


@pytest.mark.parametrize("clients", [0, -1, 1 << 40])
def test_a_table_has_a_bound(clients: int) -> None:
    with pytest.raises(ValueError, match="no table has room"):
        ClientTable(clients)


def test_the_hash_is_the_one_that_the_interpreter_uses() -> None:
    """SipHash-1-3; an interpreter without a seed has the key 0."""
    assert sys.hash_info.algorithm == "siphash13"
    texts = [bytes(range(1, 1 + length)) for length in range(1, 40)]
    hashed = subprocess.run(
        [sys.executable, "-c", f"print([hash(text) % 2**64 for text in {texts}])"],
        env={"PYTHONHASHSEED": "0"},
        capture_output=True,
        check=True,
        text=True,
    )
    assert str([keyed_hash(text, 0, 0) for text in texts]) == hashed.stdout.strip()
    assert keyed_hash(b"x", 1, 0) != keyed_hash(b"x", 0, 1) != keyed_hash(b"x", 0, 0)
