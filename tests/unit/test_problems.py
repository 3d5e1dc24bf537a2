"""Problems keep their promises: a meaning per code, a code per outcome, Retry-After where due."""

import json
import re
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request

from api.bodies import field_error
from api.localized import in_chinese, localized, sentence
from api.problems import Code, FieldError, invalid, problem, problem_of
from api.problems_zh import FORMS, KINDS, SENTENCES, TITLES
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


def test_every_code_has_a_chinese_title() -> None:
    assert set(TITLES) == {code.value for code in Code}


@pytest.mark.parametrize("code", Code)
def test_a_problem_in_chinese_keeps_everything_that_programs_read(code: Code) -> None:
    english = problem(code, request_id="r-1")
    chinese = in_chinese(english)
    before, after = json.loads(english.body), json.loads(chinese.body)
    assert {**after, "title": "", "detail": ""} == {**before, "title": "", "detail": ""}
    assert after["title"] == TITLES[code]
    assert after["detail"] == f"{TITLES[code]}。"
    headers = dict(chinese.headers)
    assert headers["Content-Language"] == "zh-CN"
    assert headers["Vary"] == "Accept-Language"
    assert {name: headers[name] for name in dict(english.headers)} == dict(english.headers)


@pytest.mark.parametrize(
    ("header", "title"),
    [("zh-CN,zh;q=0.9", "已售罄"), ("en,zh;q=0.5", "Sold out"), (None, "Sold out")],
)
def test_a_problem_is_said_in_the_language_asked_for(header: str | None, title: str) -> None:
    headers = {} if header is None else {"Accept-Language": header}
    request = make_mocked_request("GET", "/", headers=headers)
    assert json.loads(localized(problem(Code.SOLD_OUT), request).body)["title"] == title


def test_a_detail_is_chinese_where_it_is_a_sentence_of_ours() -> None:
    def said(detail: str) -> Any:
        return json.loads(in_chinese(problem(Code.CONFLICT, detail)).body)["detail"]

    assert said("The order is changing; ask again.") == "订单正在变动，请重试。"
    assert said("The order is paid.") == "订单状态为 paid。"
    assert said("Nobody translated this.") == "Nobody translated this."


class Small(msgspec.Struct, forbid_unknown_fields=True):
    whole: Annotated[int, msgspec.Meta(ge=1, le=9)] = 1
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=3, pattern="^a")] = "a"
    many: Annotated[list[int], msgspec.Meta(min_length=1, max_length=2)] = msgspec.field(
        default_factory=lambda: [1]
    )
    time: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    word: Literal["a", "b"] = "a"
    pair: tuple[int, int] = (1, 2)
    tens: Annotated[int, msgspec.Meta(multiple_of=10)] = 10


@pytest.mark.parametrize(
    "body",
    [
        '{"whole": "1"}',
        '{"whole": 0}',
        '{"whole": 10}',
        '{"text": ""}',
        '{"text": "aaaa"}',
        '{"text": "b"}',
        '{"many": []}',
        '{"many": [1, 2, 3]}',
        '{"time": "today"}',
        '{"time": "2026-01-01T00:00:00"}',
        '{"time": 1.5}',
        '{"word": "c"}',
        '{"pair": [1]}',
        '{"tens": 3}',
        '{"colour": 1}',
        "[]",
    ],
)
def test_every_complaint_of_msgspec_is_said_in_chinese(body: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(body, type=Small)
    complaint = field_error(str(caught.value))
    said = json.loads(in_chinese(invalid([complaint])).body)
    assert said["errors"][0]["field"] == complaint.field
    assert not set("abcdefghijklmnopqrstuvwxyz") & set(
        said["errors"][0]["problem"].replace("RFC", "").replace("colour", "").replace("'c'", "")
    ), said


def test_of_many_complaints_the_first_are_in_the_detail() -> None:
    errors = [FieldError(f"items[{n}].sku", "is missing") for n in range(5)]
    assert json.loads(invalid(errors).body)["detail"].endswith("; and 2 more")
    said = json.loads(in_chinese(invalid(errors)).body)
    assert said["detail"] == "items[0].sku: 缺失; items[1].sku: 缺失; items[2].sku: 缺失; 还有 2 处"


def test_every_form_can_be_filled_in() -> None:
    for form, words in FORMS:
        names = dict.fromkeys(re.compile(form).groupindex, "x")
        assert words.format_map(names)
    assert "" not in {*SENTENCES.values(), *KINDS.values()}
    assert sentence("Expected `int | null`, got `str`") == "应为整数或空值，实际是文本"
