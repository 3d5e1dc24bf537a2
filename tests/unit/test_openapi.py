"""The document tells the whole contract: every route, every type, every code; and its examples work."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any

import jsonschema_rs
import msgspec
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from api.answers import Answer
from api.app import ROUTES
from api.docs.calls import CallWriter
from api.docs.page import Page
from api.openapi.document import build_document
from api.openapi.handlers import Contract
from api.openapi.operations import is_json, is_text, operation_id, path_of, tag_of
from api.openapi.refusals import codes_of
from api.openapi.samples import Samples
from api.openapi.schemas import Schemas, ecma, resolved
from api.openapi.words import TAGS
from api.problems import Code
from api.queue.handlers import Entrance
from api.routing import Route
from api.spec import Access, Param, Spec


class _Nothing:
    async def close(self) -> None:
        """Nothing is open."""


def all_routes() -> tuple[Route, ...]:
    nothing: Any = _Nothing()
    routes = (*ROUTES, *Entrance(nothing, nothing, nothing, nothing).routes)
    return (*routes, *Contract(routes, None).routes)


ROUTES_ALL = all_routes()


@cache
def document() -> dict[str, Any]:
    return build_document(ROUTES_ALL, version="1", server="/")


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, calls in document()["paths"].items():
        for method, operation in calls.items():
            yield method, path, operation


def name_of(route: Route) -> str:
    return f"{route.method} {route.path}"


def test_every_route_has_a_spec() -> None:
    assert [name_of(route) for route in ROUTES_ALL if route.spec is None] == []


@pytest.mark.parametrize("route", [r for r in ROUTES_ALL if r.spec is not None], ids=name_of)
def test_a_spec_is_complete(route: Route) -> None:
    spec = route.spec
    assert spec is not None
    assert tag_of(route) in TAGS, f"{tag_of(route)} has no description in api/openapi/words.py"
    assert spec.summary
    assert not spec.summary.endswith(".")
    assert spec.answers
    assert all(status < 400 for status in spec.answers)
    for kind in spec.answers.values():
        assert is_text(kind) or _is_struct(kind), f"{kind} is no Struct"
    assert set(spec.codes) <= set(Code)
    assert set(spec.tells) <= set(spec.answers)
    for kind in (spec.query, spec.body if is_json(spec.body_media) else None):
        assert kind is None or _is_struct(kind), f"{kind} is no Struct"


def _is_struct(kind: object) -> bool:
    return isinstance(msgspec.inspect.type_info(kind), msgspec.inspect.StructType)


def test_every_path_and_every_operation_id_is_there_once() -> None:
    assert len(set(map(name_of, ROUTES_ALL))) == len(ROUTES_ALL)
    told = Counter(operation["operationId"] for _, _, operation in operations())
    assert {name: count for name, count in told.items() if count > 1} == {}
    assert {(method.upper(), path) for method, path, _ in operations()} == {
        (route.method, path_of(route)) for route in ROUTES_ALL if route.spec is not None
    }


def test_operation_ids_come_from_method_and_path() -> None:
    async def nobody(*_: object) -> Answer:
        raise AssertionError

    assert operation_id(Route("GET", "/v1/sales/{sale}", nobody)) == "getSalesBySale"
    assert operation_id(Route("POST", "/v1/admin/access-rules", nobody)) == "postAdminAccessRules"
    assert operation_id(Route("GET", "/openapi.json", nobody)) == "getOpenapiJson"


def test_the_document_is_one_of_openapi_3_1() -> None:
    text = json.loads(json.dumps(document()))
    OPENAPI_31_VALIDATOR.validate(text)
    assert text["openapi"] == "3.1.0"
    assert list(text["info"]) == ["title", "version", "description"]
    for _, _, operation in operations():
        assert {"operationId", "tags", "summary", "responses", "security"} <= operation.keys()
    for name in _keys(text["components"]):
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name), name


def _keys(components: dict[str, dict[str, Any]]) -> Iterator[str]:
    for kind in components.values():
        yield from kind


def test_every_schema_is_a_json_schema_of_2020_12() -> None:
    defined = document()["components"]["schemas"]
    for name, schema in defined.items():
        jsonschema_rs.meta.validate({**schema, "$schema": _DIALECT}), name
    for _, path, operation in operations():
        for parameter in operation["parameters"]:
            jsonschema_rs.meta.validate({**parameter["schema"], "$schema": _DIALECT}), path


_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def test_every_reference_leads_somewhere() -> None:
    for reference in _references(document()):
        place: Any = document()
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def test_components_are_named_by_one_word_each() -> None:
    """Two Structs of one name in one folder have no names that last."""
    assert [name for name in document()["components"]["schemas"] if "." in name] == []


def test_patterns_are_those_of_every_language() -> None:
    assert ecma(r"^(?P<a>x)\Z") == "^(?<a>x)$"
    for pattern in _patterns(document()):
        assert not re.search(r"\\Z|\\A|\(\?P", pattern), pattern


def _patterns(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("pattern"), str):
            yield node["pattern"]
        for value in node.values():
            yield from _patterns(value)
    elif isinstance(node, list):
        for value in node:
            yield from _patterns(value)


@pytest.mark.parametrize("route", ROUTES_ALL, ids=name_of)
def test_every_code_is_told_under_its_status(route: Route) -> None:
    if route.spec is None:
        return
    responses = document()["paths"][path_of(route)][route.method.lower()]["responses"]
    told = set()
    for response in responses.values():
        if "$ref" in response:
            shared = document()["components"]["responses"][response["$ref"].split("/")[-1]]
            told |= set(shared["content"]["application/problem+json"]["examples"])
    assert told == {code.value for code in codes_of(route)}


def test_who_may_call_is_told_by_security() -> None:
    async def nobody(*_: object) -> Answer:
        raise AssertionError

    def security(access: Access, method: str = "GET") -> Any:
        spec = Spec("Sales", "x", {204: None})
        route = Route(method, "/x", nobody, access=access, spec=spec)
        return build_document([route], version="1", server="/")["paths"]["/x"][method.lower()][
            "security"
        ]

    signed_in = [{"bearer": []}, {"session": []}]
    assert security(Access.PUBLIC) == []
    assert security(Access.VISITOR) == [{}, *signed_in]
    assert security(Access.CALLER) == security(Access.OPERATOR) == signed_in
    assert security(Access.CALLER, "POST")[1] == {"session": [], "csrf": []}


def test_no_type_has_a_pattern_beside_a_list_or_an_object() -> None:
    """msgspec 0.22 frees the pattern of such a union twice when the process ends, and it crashes."""
    kinds = [kind for kind in _structs_of(msgspec.Struct) if kind.__module__.startswith("api.")]
    assert kinds
    for kind in kinds:
        for info in _infos(msgspec.inspect.type_info(kind)):
            if isinstance(info, msgspec.inspect.UnionType):
                patterns = [each for each in info.types if getattr(each, "pattern", None)]
                whole = [each for each in info.types if isinstance(each, _HELD)]
                assert not (patterns and whole), kind


_HELD = (
    msgspec.inspect.DictType,
    msgspec.inspect.ListType,
    msgspec.inspect.VarTupleType,
    msgspec.inspect.TupleType,
    msgspec.inspect.SetType,
)


def _structs_of(kind: type) -> Iterator[type]:
    for each in kind.__subclasses__():
        yield each
        yield from _structs_of(each)


def _infos(info: Any, inside: tuple[type, ...] = ()) -> Iterator[Any]:
    yield info
    if isinstance(info, msgspec.inspect.StructType):
        if info.cls in inside:
            return
        inside = (*inside, info.cls)
    for name in info.__struct_fields__:
        value = getattr(info, name)
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, msgspec.inspect.Type):
                yield from _infos(each, inside)
            elif isinstance(each, msgspec.inspect.Field):
                yield from _infos(each.type, inside)


class _Pair(msgspec.Struct):
    pair: tuple[int, str] | None = None


def test_a_tuple_is_told_as_json_schema_2020_12_does() -> None:
    schema = Schemas([], [_Pair]).components["_Pair"]["properties"]["pair"]["anyOf"][0]
    assert schema["prefixItems"] == [{"type": "integer"}, {"type": "string"}]
    assert schema["items"] is False
    assert not jsonschema_rs.is_valid({**schema, "$schema": _DIALECT}, [1, "a", 2])


class _Small(msgspec.Struct, forbid_unknown_fields=True):
    count: Annotated[int, msgspec.Meta(ge=2)]
    words: list[str] = []


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    tag: list[str] = []
    limit: Annotated[int, msgspec.Meta(ge=1, le=9)] = 3
    after: str | None = None


def test_bodies_parameters_headers_and_answers_are_told() -> None:
    async def nobody(*_: object) -> Answer:
        raise AssertionError

    spec = Spec(
        tag="Sales",
        summary="x",
        body=_Small,
        body_required=False,
        query=_Asked,
        headers=(Param("X-One", "It is one.", required=True),),
        answers={200: _Small, 204: None, 303: "text/csv, text/plain"},
        tells={204: (Param("Location", "There."),)},
    )
    route = Route("POST", "/v1/x/{sku}", nobody, access=Access.PUBLIC, spec=spec)
    made = build_document([route], version="1", server="https://shop.example")
    operation = made["paths"]["/v1/x/{sku}"]["post"]
    shown = {(each["in"], each["name"]): each for each in operation["parameters"]}
    assert shown["path", "sku"]["required"]
    assert shown["query", "limit"]["schema"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 9,
        "default": 3,
    }
    assert shown["query", "after"]["schema"]["type"] == "string"
    assert shown["header", "X-One"]["required"]
    assert not operation["requestBody"]["required"]
    assert operation["responses"]["204"]["headers"]["Location"]["description"] == "There."
    assert list(operation["responses"]["303"]["content"]) == ["text/csv", "text/plain"]
    assert made["servers"] == [{"url": "https://shop.example"}]


def test_an_answer_has_all_its_fields() -> None:
    """Also those with a default, which a body may leave out."""

    async def nobody(*_: object) -> Answer:
        raise AssertionError

    def required(spec: Spec) -> set[str]:
        route = Route("POST", "/x", nobody, access=Access.PUBLIC, spec=spec)
        made = build_document([route], version="1", server="/")
        return set(made["components"]["schemas"]["_Small"]["required"])

    assert required(Spec("Sales", "x", {200: _Small})) == {"count", "words"}
    assert required(Spec("Sales", "x", {200: _Small}, body=_Small)) == {"count"}


@pytest.mark.parametrize(
    "route",
    [r for r in ROUTES_ALL if r.spec and r.spec.body and is_json(r.spec.body_media)],
    ids=name_of,
)
def test_the_examples_body_is_one_that_the_route_takes(route: Route) -> None:
    assert route.spec is not None
    schemas = document()["components"]["schemas"]
    operation = document()["paths"][path_of(route)][route.method.lower()]
    content = next(iter(operation["requestBody"]["content"].values()))
    sample = Samples(schemas).of(content["schema"])
    msgspec.convert(sample, route.spec.body)


def test_an_examples_parameters_fit_their_schemas() -> None:
    writer = CallWriter(document())
    for _, path, operation in operations():
        for parameter in operation["parameters"]:
            pattern = parameter["schema"].get("pattern", "")
            assert re.search(pattern, writer.parameter(parameter)), (path, parameter)


def test_the_page_shows_every_call_and_needs_nothing_from_elsewhere() -> None:
    page = Page(document())
    text = page.whole.decode()
    for method, path, operation in operations():
        assert f'id="{operation["operationId"]}"' in text, (method, path)
    loads = re.findall(r"""<(?:script|link|img|iframe)[^>]*(?:src|href)=["']([^"']*)""", text)
    assert loads == ["data:,"]
    assert "@import" not in text
    assert "url(" not in text


def test_the_page_narrows_to_what_is_searched_for() -> None:
    page = Page(document())
    found = page.found("RESERVE units").decode()
    assert 'id="postSalesBySaleReservations"' in found
    assert 'id="getHealthz"' not in found
    assert "&lt;b&gt;" in page.found("<b>").decode()
    assert resolved({"$ref": "#/components/schemas/Money"}, document()["components"]["schemas"])
