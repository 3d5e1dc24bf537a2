"""Query strings are typed and bounded, and every complaint names its parameter."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request

from api.problems import Refusal
from api.queries import read_query


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    q: Annotated[str, msgspec.Meta(max_length=5)] = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=200)] = 50
    in_stock: bool = False
    tag: Annotated[list[str], msgspec.Meta(max_length=2)] = []
    brand: list[str] | None = None
    after: str | None = None
    since: datetime | None = None
    least: float | None = None
    years: list[int] = []


def read(query: str) -> Asked:
    return read_query(make_mocked_request("GET", f"/x?{query}"), Asked)


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("", Asked()),
        ("q=%E6%89%8B%E6%9C%BA&limit=7", Asked(q="手机", limit=7)),
        ("in_stock=true", Asked(in_stock=True)),
        ("tag=a", Asked(tag=["a"])),
        ("tag=a&tag=b", Asked(tag=["a", "b"])),
        ("brand=a&brand=b", Asked(brand=["a", "b"])),
        ("after=", Asked(after="")),
        ("after=null", Asked(after="null")),
        ("since=2026-11-11T00:00:00Z", Asked(since=datetime(2026, 11, 11, tzinfo=UTC))),
        ("least=-1.5", Asked(least=-1.5)),
        ("years=1&years=-2", Asked(years=[1, -2])),
    ],
)
def test_parameters_become_fields(query: str, asked: Asked) -> None:
    assert read(query) == asked


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=much", "limit"),
        ("limit=null", "limit"),
        ("limit=" + "9" * 40, "limit"),
        ("least=1e400", "least"),
        ("least=NaN", "least"),
        ("since=0", "since"),
        ("since=null", "since"),
        ("in_stock=1", "in_stock"),
        ("limit=1&limit=2", "limit"),
        ("in_stock=perhaps", "in_stock"),
        ("q=123456", "q"),
        ("colour=red", "colour"),
        ("tag=a&tag=b&tag=c", "tag"),
        ("q=%00", ""),
    ],
)
def test_a_complaint_names_its_parameter(query: str, field: str) -> None:
    with pytest.raises(Refusal) as caught:
        read(query)
    body: dict[str, Any] = json.loads(caught.value.answer.body)
    assert body["code"] == "invalid_request"
    assert [error["field"] for error in body.get("errors", [{"field": ""}])] == [field]
