"""The tally of a locust run, and how its processes share a file of tokens."""

from collections import Counter
from itertools import islice
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.buyers import Buyers, NoTokens
from loadtest.ledger import Click, Ledger, Summary, as_text, total

CLICK = Click({"Authorization": "Bearer token"}, {"items": []})


def asked(*keys: str) -> Ledger:
    ledger = Ledger()
    for key in keys:
        ledger.click(key, CLICK)
    return ledger


def test_promise_is_open_until_its_order_is_seen() -> None:
    ledger = asked("k1", "k2")
    ledger.promise("k1", "demo.1")
    ledger.refuse("k2", "sold_out")

    before = ledger.summary(users=0)
    assert (before.acknowledged, before.open_orders, before.missing) == (1, 1, ["demo.1"])
    assert not before.holds
    assert not before.settled

    ledger.order("demo.1")

    after = ledger.summary(users=0)
    assert (after.ordered, after.open_orders, after.refused) == (1, 0, {"sold_out": 1})
    assert after.holds
    assert after.settled
    assert not ledger.summary(users=1).settled
    assert before.acknowledged == 1  # A summary told earlier does not change.


def test_click_without_an_answer_keeps_the_tally_open() -> None:
    summary = asked("k1").summary(users=0)
    assert summary.open_clicks == 1
    assert not summary.holds
    assert "NOT every promise" in as_text(summary)


def test_answer_told_twice_counts_once_and_another_id_is_a_contradiction() -> None:
    ledger = asked("k1")
    ledger.promise("k1", "demo.1")
    ledger.promise("k1", "demo.1")
    ledger.order("demo.1")
    ledger.order("demo.1")
    assert ledger.summary(0).holds
    assert (ledger.summary(0).acknowledged, ledger.summary(0).ordered) == (1, 1)

    ledger.promise("k1", "demo.2")

    assert not ledger.summary(0).holds
    assert "one key, two reservations: demo.1, demo.2" in as_text(ledger.summary(0))


def test_promise_that_the_engine_forgot_is_told() -> None:
    ledger = asked("k1")
    ledger.promise("k1", "demo.1")
    ledger.vanish("demo.1")
    assert "demo.1 was promised and is not known" in as_text(ledger.summary(0))


def test_run_without_a_promise_proves_nothing_and_says_so() -> None:
    assert "nothing is proved" in as_text(Summary())


@given(st.lists(st.sampled_from(["sold_out", "limit_reached", "promise", "open"]), max_size=30))
def test_processes_together_count_what_one_process_would(fates: list[str]) -> None:
    ledgers = [Ledger(), Ledger(), Ledger()]
    for number, fate in enumerate(fates):
        for ledger in (ledgers[number % 2], ledgers[2]):
            ledger.click(f"k{number}", CLICK)
            if fate == "promise":
                ledger.promise(f"k{number}", f"demo.{number}")
            elif fate != "open":
                ledger.refuse(f"k{number}", fate)

    # As locust carries them: packed, and unpacked by the master.
    told = [msgspec.convert(msgspec.to_builtins(x.summary(1)), Summary) for x in ledgers]
    together = total(told[:2])

    together.users = 1
    together.missing.sort()
    told[2].missing.sort()
    assert together == told[2]


def write_tokens(folder: Path, count: int) -> Path:
    path = folder / "tokens.txt"
    path.write_text("".join(f"token-{number}\n" for number in range(count)))
    return path


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_every_token_goes_to_exactly_one_process(tmp_path: Path, parts: int) -> None:
    path = write_tokens(tmp_path, 100)
    handed: Counter[str | None] = Counter()
    for part in range(parts):
        buyers = Buyers()
        buyers.open(path, part, parts)
        handed.update(buyers.next() for _ in range(len(range(part, 100, parts))))
        assert buyers.rounds == 0

    assert handed == Counter(f"token-{number}" for number in range(100))


def test_same_share_once_more_goes_on_and_the_file_begins_anew_at_its_end(tmp_path: Path) -> None:
    path = write_tokens(tmp_path, 4)
    buyers = Buyers()
    buyers.open(path, 1, 2)
    assert buyers.next() == "token-1"

    buyers.open(path, 1, 2)

    assert list(islice(iter(buyers.next, None), 3)) == ["token-3", "token-1", "token-3"]
    assert buyers.rounds == 1


def test_process_without_a_share_or_without_a_line_hands_out_nothing(tmp_path: Path) -> None:
    buyers = Buyers()
    assert buyers.next() is None
    buyers.open(write_tokens(tmp_path, 2), 2, 3)
    assert buyers.next() is None


@pytest.mark.parametrize("content", [None, ""])
def test_file_that_holds_no_tokens_says_what_to_do(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "tokens.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(NoTokens, match="doorbuster token --count 10000"):
        Buyers().open(path)
