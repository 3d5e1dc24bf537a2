"""Problems keep their promises: a meaning per code, a code per outcome, Retry-After where due."""

import json

import msgspec
import pytest

from api.bodies import field_error
from api.problems import Code, problem, problem_of
from api.reservations.decision import OUTCOME_CODES
from engine.errors import (
    Conflict,
    DoorbusterError,
    Invalid,
    InvalidDocument,
    Overloaded,
    RedisUnavailable,
    StaleEpoch,
    UnknownReservation,
    UnknownSale,
)
from engine.model import Item, Outcome


@pytest.mark.parametrize("code", Code)
def test_every_code_makes_a_problem_and_those_worth_repeating_say_when(code: Code) -> None:
    answer = problem(code)
    body = json.loads(answer.body)
    assert body["code"] == code.value
    assert body["status"] == answer.status
    if answer.status in {425, 429, 503}:
        assert "Retry-After" in dict(answer.headers)


@pytest.mark.parametrize(("asked", "said"), [(-5, "1"), (0.2, "1"), (1.2, "2"), (1e9, "3600")])
def test_retry_after_is_whole_seconds_within_bounds(asked: float, said: str) -> None:
    answer = problem(Code.NOT_STARTED, retry_after_s=asked)
    assert dict(answer.headers)["Retry-After"] == said


def test_every_refusal_of_the_engine_has_a_code() -> None:
    assert set(OUTCOME_CODES) == set(Outcome) - {Outcome.RESERVED, Outcome.DUPLICATE}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (UnknownSale("x"), 404, "unknown_sale"),
        (UnknownReservation("x"), 404, "not_found"),
        (StaleEpoch("x"), 503, "unavailable"),
        (Overloaded("x"), 503, "overloaded"),
        (RedisUnavailable("secret host"), 503, "unavailable"),
        (Conflict("not_cancellable", "x"), 409, "not_cancellable"),
        (Conflict("idempotency_mismatch", "x"), 422, "idempotency_mismatch"),
        (Conflict("a_word_of_tomorrow", "x"), 409, "conflict"),
        (Invalid("units", "too many"), 400, "invalid_request"),
        (InvalidDocument([Invalid("items[3].sku", "bad")]), 400, "invalid_request"),
    ],
)
def test_failures_of_the_engine_become_problems(
    error: DoorbusterError, status: int, code: str
) -> None:
    answer = problem_of(error)
    assert answer is not None
    assert (answer.status, answer.label) == (status, code)
    assert b"secret host" not in answer.body


def test_a_failure_nobody_should_meet_has_no_problem() -> None:
    assert problem_of(DoorbusterError("?")) is None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'[{"sku":"a","quantity":"1"}]', "[0].quantity"),
        (b'[{"sku":"a"}]', "[0].quantity"),
        (b'[{"sku":"a","quantity":1,"colour":2}]', "[0].colour"),
        (b"7", ""),
    ],
)
def test_the_field_that_is_wrong_is_named(body: bytes, field: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(body, type=list[Item])
    assert field_error(str(caught.value)).field == field
