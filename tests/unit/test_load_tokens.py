"""Tokens made by the million are the tokens made one at a time."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cli.minting import mint
from api.tokens import Identity, Role, Tokens
from engine.clock import ManualClock, SystemClock
from tests.support.program import environ, run

SECRET = "the-secret-of-this-test-32-characters"
user_ids = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128)


@given(st.lists(user_ids, max_size=5), st.sampled_from(Role), st.integers(1, 10**6))
def test_minted_token_is_the_issued_one_byte_by_byte(
    users: list[str], role: Role, seconds: int
) -> None:
    clock = ManualClock()
    tokens = Tokens(SECRET, clock)

    minted = list(mint(SECRET, clock, users, role, seconds))

    assert minted == [tokens.issue(user, role, seconds) for user in users]


def test_minted_token_takes_the_fast_lane_and_the_slow_one() -> None:
    [token] = mint(SECRET, SystemClock(), ["buyer-7"])
    tokens = Tokens(SECRET, SystemClock())

    assert tokens.read_fast(token.encode()) == Identity("buyer-7", Role.BUYER)
    assert tokens.read_slow(token) == Identity("buyer-7", Role.BUYER)


@pytest.mark.parametrize("count", [1, 999, 1000, 2001])
def test_command_prints_a_line_for_each_buyer_and_no_buyer_twice(
    tmp_path: Path, count: int
) -> None:
    env = environ(tmp_path, secret=SECRET)
    done = run(f"token --count {count} --prefix load", env)

    assert done.returncode == 0, done.stderr
    tokens = Tokens(SECRET, SystemClock())
    readers = [tokens.read(line) for line in done.stdout.splitlines()]
    assert readers == [Identity(f"load-{number}", Role.BUYER) for number in range(count)]


@pytest.mark.parametrize("prefix", ["with space", "ü", "x" * 127])
def test_prefix_that_makes_no_user_id_is_refused_before_anything_is_printed(
    tmp_path: Path,
    prefix: str,
) -> None:
    done = run(f"token --count 10 --prefix '{prefix}'", environ(tmp_path, secret=SECRET))

    assert (done.returncode, done.stdout) == (1, "")
    assert "user: must be 1 to 128" in done.stderr
