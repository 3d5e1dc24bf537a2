"""Proofs of work: whose, for how long, and that nothing else is taken for one."""

import base64
import json
from typing import Any

import pytest
from altcha import v1 as altcha
from hypothesis import given
from hypothesis import strategies as st

from api.queue.challenges import (
    CHALLENGE_SECONDS,
    DIFFICULTY_ASKED,
    ChallengeBody,
    Challenges,
    ProofFault,
)
from engine.admission.room.store import Proof
from engine.clock import ManualClock

SECRET = "s" * 32


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def challenges(clock: ManualClock) -> Challenges:
    return Challenges(SECRET, clock)


def make(challenges: Challenges, user: str = "u1", sale: str = "demo", **options: Any) -> Any:
    asked = {"difficulty": 50, "counts_from_ms": 0} | options
    return challenges.make(sale, user, **asked)


def solve(made: ChallengeBody, **changes: Any) -> str:
    """An answer as a widget writes it; `changes` forge it."""
    found = altcha.solve_challenge(made.challenge, made.salt, "SHA-256", made.maxnumber)
    assert found is not None
    answer = {
        "algorithm": made.algorithm,
        "challenge": made.challenge,
        "number": found.number,
        "salt": made.salt,
        "signature": made.signature,
        "took": 12,
    }
    return written(answer | changes)


def written(answer: object) -> str:
    return base64.b64encode(json.dumps(answer).encode()).decode()


def test_an_answer_counts_for_its_buyer_and_sale_alone(challenges: Challenges) -> None:
    proof = solve(made := make(challenges))
    assert challenges.verify(proof, "demo", "u1") == Proof(
        made.challenge, 1_700_000_000_000 + CHALLENGE_SECONDS * 1000
    )
    assert challenges.verify(proof, "demo", "u2") is ProofFault.FOREIGN
    assert challenges.verify(proof, "other", "u1") is ProofFault.FOREIGN


def test_every_process_with_the_secret_agrees_and_no_other(clock: ManualClock) -> None:
    proof = solve(make(Challenges(SECRET, clock)))
    assert isinstance(Challenges(SECRET, clock).verify(proof, "demo", "u1"), Proof)
    assert Challenges("t" * 32, clock).verify(proof, "demo", "u1") is ProofFault.FORGED


def test_an_answer_ends_with_its_challenge(challenges: Challenges, clock: ManualClock) -> None:
    proof = solve(make(challenges))
    clock.advance(seconds=CHALLENGE_SECONDS - 1)
    assert isinstance(challenges.verify(proof, "demo", "u1"), Proof)
    clock.advance(seconds=1)
    assert challenges.verify(proof, "demo", "u1") is ProofFault.EXPIRED


def test_what_is_solved_before_tickets_are_given_counts_then(
    challenges: Challenges, clock: ManualClock
) -> None:
    opens_at_ms = clock.now_ms() + 600_000
    proof = solve(make(challenges, counts_from_ms=opens_at_ms))
    clock.advance(seconds=600 + CHALLENGE_SECONDS - 1)
    assert isinstance(challenges.verify(proof, "demo", "u1"), Proof)


@pytest.mark.parametrize(
    "forge",
    [
        lambda a: a | {"number": a["number"] + 1},
        lambda a: a | {"signature": "0" * 64},
        lambda a: a | {"challenge": "0" * 64},
        lambda a: a | {"salt": a["salt"].replace("user=u1", "user=u2")},
        lambda a: a | {"salt": a["salt"].replace("expires=1", "expires=9")},
        # Whoever moves the border between salt and number must not move what was signed.
        lambda a: a | {"salt": a["salt"].rstrip("&"), "number": a["number"] + 10**12},
        lambda a: a | {"salt": a["salt"] + str(a["number"])[0], "number": 1},
    ],
)
def test_a_forged_answer_does_not_count(challenges: Challenges, forge: Any) -> None:
    answer = json.loads(base64.b64decode(solve(make(challenges))))
    found = challenges.verify(written(forge(answer)), "demo", "u1")
    assert found is ProofFault.FORGED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no base64!",
        "aGVsbG8=",
        written([]),
        written({}),
        written({"algorithm": "SHA-1"}),
        written("[" * 10_000),
        base64.b64encode(b"[" * 100_000).decode(),
    ],
)
def test_what_is_no_answer_is_told_so(challenges: Challenges, text: str) -> None:
    assert challenges.verify(text, "demo", "u1") is ProofFault.MALFORMED


@pytest.mark.parametrize("changes", [{"algorithm": "SHA-1"}, {"number": "7"}, {"number": -1}])
def test_fields_of_another_kind_are_no_answer(challenges: Challenges, changes: Any) -> None:
    proof = solve(make(challenges), **changes)
    assert challenges.verify(proof, "demo", "u1") is ProofFault.MALFORMED


def test_an_answer_has_one_name_however_it_is_written(challenges: Challenges) -> None:
    made = make(challenges)
    names = {
        found.mark
        for proof in (solve(made), solve(made, took=99), solve(made, salt=made.salt.rstrip("&")))
        if isinstance(found := challenges.verify(proof, "demo", "u1"), Proof)
    }
    assert names == {made.challenge}


def test_difficulty_is_what_the_sale_says_or_what_the_risk_service_costs(
    challenges: Challenges,
) -> None:
    assert make(challenges, difficulty=7000).maxnumber == 7000
    asked = make(challenges, difficulty=0)
    assert (asked.maxnumber, asked.required) == (DIFFICULTY_ASKED, False)


@given(user=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40))
def test_any_user_id_is_bound_as_it_is(user: str) -> None:
    challenges = Challenges(SECRET, ManualClock())
    proof = solve(make(challenges, user, difficulty=3))
    assert isinstance(challenges.verify(proof, "demo", user), Proof)
    assert challenges.verify(proof, "demo", user + "&") is ProofFault.FOREIGN
