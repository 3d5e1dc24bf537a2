"""One route as an OpenAPI operation: its parameters, body, answers, refusals, and who may call it."""

import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec

from api.answers import JSON
from api.openapi.refusals import SAFE, Refusals
from api.openapi.schemas import Schema, Schemas, struct_fields
from api.openapi.words import FIELDS, PATH_PARTS, WHO
from api.paths import part_pattern
from api.routing import Route
from api.spec import Access, Param, Spec

PART: Final = re.compile(r"\{(?P<name>\w+)(?::[^{}]*)?\}")
ADMIN: Final = "/v1/admin/"
_OWN: Final = "Admin: "
_REQUEST_ID: Final = {"$ref": "#/components/headers/X-Request-Id"}


def operation_id(route: Route) -> str:
    """`getSalesBySale` of GET /v1/sales/{sale}: it lasts as long as the call."""
    words = []
    for part in route.path.removeprefix("/v1").strip("/").split("/"):
        name = PART.fullmatch(part)
        text = f"by-{name['name']}" if name else part
        words += re.split(r"[^A-Za-z0-9]+", text)
    return route.method.lower() + "".join(word[:1].upper() + word[1:] for word in words)


def tag_of(route: Route) -> str:
    """What it stands under. What is for the shop's own people stands together."""
    assert route.spec is not None, route.path
    tag = route.spec.tag
    if not route.path.startswith(ADMIN):
        return tag[:1].upper() + tag[1:]
    return tag if tag.startswith(_OWN) else f"{_OWN}{tag[:1].lower()}{tag[1:]}"


def path_of(route: Route) -> str:
    """The path as OpenAPI writes it: parts have names, and nothing else."""
    return PART.sub(lambda part: f"{{{part['name']}}}", route.path)


def takes(spec: Spec) -> Iterator[Any]:
    """The types that a call brings."""
    if spec.body is not None and is_json(spec.body_media):
        yield spec.body
    if spec.query is not None:
        yield from (field.type for field in struct_fields(spec.query))
    yield from (param.type for param in spec.headers)


def gives(spec: Spec) -> Iterator[Any]:
    """The types that a call is answered with."""
    yield from (kind for kind in spec.answers.values() if not is_text(kind))
    yield from (param.type for params in spec.tells.values() for param in params)


def is_text(kind: Any) -> bool:
    """Whether an answer of the spec is no JSON: nothing at all, or text of that media type."""
    return kind is None or isinstance(kind, str)


def is_json(media: str) -> bool:
    """Whether our types describe what comes as this media type."""
    return media == JSON or media.endswith("+json")


def operation(route: Route, schemas: Schemas, refusals: Refusals) -> Schema:
    """The route, which has a spec, as OpenAPI tells it."""
    spec = route.spec
    assert spec is not None, route.path
    found: Schema = {
        "operationId": operation_id(route),
        "tags": [tag_of(route)],
        "summary": spec.summary,
        "description": "\n\n".join(filter(None, (spec.description, WHO[route.access]))),
        "parameters": [*_path_parts(route), *_query(spec, schemas), *_headers(spec, schemas)],
        "responses": {**_answers(spec, schemas), **refusals.of(route)},
        "security": _security(route),
        "x-access": route.access.value,
    }
    if spec.body is not None:
        found["requestBody"] = {
            "required": spec.body_required,
            "content": {
                media: {"schema": schemas.of(spec.body) if is_json(media) else _text(media)}
                for media in spec.body_media.split(", ")
            },
        }
    return found


def _path_parts(route: Route) -> Iterator[Schema]:
    for part in PART.finditer(route.path):
        name = part["name"]
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "description": PATH_PARTS.get(name, f"The {name}'s id."),
            "schema": {"type": "string", "pattern": f"^(?:{part_pattern(name)})$"},
        }


def _query(spec: Spec, schemas: Schemas) -> Iterator[Schema]:
    for field in struct_fields(spec.query) if spec.query is not None else ():
        schema = _without_null(schemas.of(field.type))
        if isinstance(field.default, str | int | float) and not isinstance(field.default, bool):
            schema = {**schema, "default": msgspec.to_builtins(field.default)}
        name = field.encode_name
        about = schema.pop("description", FIELDS.get(name, ""))
        parameter = {"name": name, "in": "query", "required": field.required, "schema": schema}
        yield {**parameter, "description": about} if about else parameter


def _without_null(schema: Schema) -> Schema:
    """A parameter that is not there is null; no text is."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    if not choices or len(choices) == len(schema["anyOf"]):
        return schema
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return {**rest, **choices[0]} if len(choices) == 1 else {**rest, "anyOf": choices}


def _headers(spec: Spec, schemas: Schemas) -> Iterator[Schema]:
    for param in spec.headers:
        yield {
            "name": param.name,
            "in": "header",
            "required": param.required,
            "description": param.description,
            "schema": schemas.of(param.type),
        }


def _text(media: str) -> Schema:
    """What no type of ours describes: a file, or JSON of whatever kind."""
    return {"type": "object" if media == JSON else "string"}


def _answers(spec: Spec, schemas: Schemas) -> Mapping[str, Schema]:
    return {
        str(status): _answer(status, kind, spec.tells.get(status, ()), schemas)
        for status, kind in spec.answers.items()
    }


def _answer(status: int, kind: Any, tells: tuple[Param, ...], schemas: Schemas) -> Schema:
    answer: Schema = {"description": HTTPStatus(status).phrase, "headers": _told(tells, schemas)}
    if isinstance(kind, str):
        answer["content"] = {media: {"schema": _text(media)} for media in kind.split(", ")}
    elif kind is not None:
        answer["content"] = {JSON: {"schema": schemas.of(kind)}}
    return answer


def _told(tells: tuple[Param, ...], schemas: Schemas) -> Schema:
    told = {
        param.name: {
            "description": param.description,
            "required": param.required,
            "schema": schemas.of(param.type),
        }
        for param in tells
    }
    return {**told, "X-Request-Id": _REQUEST_ID}


def _security(route: Route) -> list[dict[str, list[str]]]:
    """A token, or what a browser has: its cookie, with the CSRF header where something changes."""
    if route.access is Access.PUBLIC:
        return []
    browser: dict[str, list[str]] = {"session": []}
    if route.method not in SAFE:
        browser["csrf"] = []
    known: list[dict[str, list[str]]] = [{"bearer": []}, browser]
    return [{}, *known] if route.access is Access.VISITOR else known
