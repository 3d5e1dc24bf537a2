"""What a route may refuse with, as OpenAPI responses: one for each status, shared by all routes."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from api.answers import PROBLEM_JSON
from api.openapi.schemas import PREFIX, Schema
from api.problems import Code, problem
from api.routing import Route
from api.spec import ALWAYS, Access

RESPONSES: Final = "#/components/responses/"

SAFE: Final = frozenset({"GET", "HEAD"})  # Methods that change nothing.
_OF_ACCESS: Final = (Code.UNAUTHENTICATED, Code.FORBIDDEN)
_RETRY_AFTER: Final = {
    "description": "Seconds to wait before asking again.",
    "required": True,
    "schema": {"type": "integer", "minimum": 1},
}
_AUTHENTICATE: Final = {
    "description": "How to say who calls (RFC 9110 §11.6.1).",
    "required": True,
    "schema": {"type": "string"},
}


def codes_of(route: Route) -> tuple[Code, ...]:
    """Every code that a call of the route may be refused with, but for bugs: 500."""
    codes = set(ALWAYS)
    if route.spec is not None:
        codes |= set(route.spec.codes)
        if route.spec.body is not None:
            codes.add(Code.BODY_TOO_LARGE)
    if route.access is not Access.PUBLIC:
        codes |= set(_OF_ACCESS)
        if route.method not in SAFE:
            codes.add(Code.CSRF_REQUIRED)
    if "{" in route.path:
        codes.add(Code.NOT_FOUND)
    if "{sale}" in route.path:
        codes.add(Code.UNKNOWN_SALE)
    return tuple(code for code in Code if code in codes)


class Refusals:
    """The responses that routes refer to; `components` has those that were asked for."""

    def __init__(self) -> None:
        self.components: dict[str, Schema] = {}

    def of(self, route: Route) -> dict[str, Schema]:
        """By status, a reference each."""
        by_status: defaultdict[int, list[Code]] = defaultdict(list)
        for code in codes_of(route):
            by_status[problem(code).status].append(code)
        return {str(status): self._shared(status, by_status[status]) for status in by_status}

    def _shared(self, status: int, codes: list[Code]) -> Schema:
        name = "-".join((str(status), *codes))
        self.components.setdefault(name, _response(status, codes))
        return {"$ref": RESPONSES + name}


def _response(status: int, codes: list[Code]) -> Schema:
    bodies = {code.value: msgspec.json.decode(problem(code).body) for code in codes}
    response: Schema = {
        "description": "; ".join(f"`{code}`: {body['title']}" for code, body in bodies.items()),
        "content": {
            PROBLEM_JSON: {
                "schema": _schema(status, bodies),
                "examples": {code: {"value": body} for code, body in bodies.items()},
            }
        },
    }
    if headers := _headers(status, codes):
        response["headers"] = headers
    return response


def _schema(status: int, codes: Iterable[str]) -> Schema:
    own = {"status": {"const": status}, "code": {"enum": list(codes)}}
    return {"allOf": [{"$ref": f"{PREFIX}Problem"}, {"properties": own}]}


def _headers(status: int, codes: list[Code]) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if all("Retry-After" in dict(problem(code).headers) for code in codes):
        headers["Retry-After"] = _RETRY_AFTER
    if status == 401:
        headers["WWW-Authenticate"] = _AUTHENTICATE
    return headers
