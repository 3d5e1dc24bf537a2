"""The OpenAPI 3.1 document of the whole contract, made from the routes and their specs alone."""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Final

from api.openapi.operations import gives, operation, path_of, tag_of, takes
from api.openapi.refusals import Refusals
from api.openapi.schemas import Schema, Schemas
from api.openapi.words import ABOUT, TAGS, TITLE
from api.problems import Problem
from api.routing import Route
from api.users.browser import CSRF_HEADER, SESSION_COOKIE

OPENAPI: Final = "3.1.0"

_REQUEST_ID: Final = {
    "description": "Names this request in the log: the caller's own `X-Request-Id`, or a fresh one.",
    "required": True,
    "schema": {"type": "string"},
}
SECURITY: Final[dict[str, Schema]] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "An access token: `Authorization: Bearer <JWT>`, HS256, claims `sub`, `role`, `exp`.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": SESSION_COOKIE,
        "description": "What a browser has after logging in.",
    },
    "csrf": {
        "type": "apiKey",
        "in": "header",
        "name": str(CSRF_HEADER),
        "description": "Beside the cookie, wherever something is changed.",
    },
}


def build_document(routes: Sequence[Route], *, version: str, server: str) -> dict[str, Any]:
    """The document. A route without a spec is not in it; a test refuses such routes."""
    told = [route for route in routes if route.spec is not None]
    specs = [route.spec for route in told if route.spec is not None]
    schemas = Schemas(
        chain.from_iterable(map(takes, specs)),
        chain([Problem], chain.from_iterable(map(gives, specs))),
    )
    refusals = Refusals()
    paths = _paths(routes, schemas, refusals)
    return {
        "openapi": OPENAPI,
        "info": {"title": TITLE, "version": version, "description": ABOUT},
        "servers": [{"url": server}],
        "tags": _tags({tag_of(route) for route in told}),
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": dict(sorted(refusals.components.items())),
            "headers": {"X-Request-Id": _REQUEST_ID},
            "securitySchemes": SECURITY,
        },
    }


def _paths(
    routes: Iterable[Route], schemas: Schemas, refusals: Refusals
) -> dict[str, dict[str, Schema]]:
    paths: dict[str, dict[str, Schema]] = {}
    for route in routes:
        if route.spec is not None:
            calls = paths.setdefault(path_of(route), {})
            calls[route.method.lower()] = operation(route, schemas, refusals)
    return paths


def _tags(used: set[str]) -> list[dict[str, str]]:
    """In the order in which a newcomer meets them; those not known yet come last."""
    known = [{"name": name, "description": about} for name, about in TAGS.items() if name in used]
    return known + [{"name": name} for name in sorted(used - TAGS.keys())]
