"""The shoppers' own solver against the library that makes and verifies proofs of work."""

import base64
import json

import pytest
from altcha import v1 as altcha

from loadtest.proof import BREATH_TRIES, solve

KEY = "some-key"


def challenge(number: int, max_number: int = 10_000) -> dict[str, object]:
    made = altcha.create_challenge(
        altcha.ChallengeOptions(number=number, max_number=max_number, hmac_key=KEY)
    )
    named = ("algorithm", "challenge", "salt", "signature")
    return {name: getattr(made, name) for name in named} | {"maxnumber": max_number}


@pytest.mark.parametrize("number", [0, 1, 4321, 10_000])
def test_answer_is_one_that_the_library_accepts(number: int) -> None:
    answer = solve(challenge(number))

    assert answer is not None
    assert json.loads(base64.b64decode(answer))["number"] == number
    assert altcha.verify_solution(answer, KEY)[0]


def test_challenge_that_no_number_solves_has_no_answer() -> None:
    assert solve(challenge(number=5000) | {"maxnumber": 4999}) is None


def test_algorithm_that_is_not_known_has_no_answer() -> None:
    assert solve(challenge(number=1) | {"algorithm": "SHA-512"}) is None


def test_others_may_run_while_it_tries() -> None:
    breaths: list[int] = []
    solve(challenge(number=3 * BREATH_TRIES), lambda: breaths.append(1))
    assert len(breaths) == 4
