"""The served contract, as tests call it: every route with a path, a body and headers that fit."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from api.app import CONTRACT
from api.docs.calls import CallWriter
from api.openapi.operations import is_json, path_of
from api.openapi.samples import Samples
from api.routing import Route
from tests.support.front import Served


class Fitting(NamedTuple):
    """One call that a route would take from those who may make it."""

    route: Route
    path: str
    data: bytes | None
    headers: dict[str, str]

    @property
    def name(self) -> str:
        return f"{self.route.method} {self.route.path}"


def routes_of(served: Served) -> tuple[Route, ...]:
    return served.server.app[CONTRACT].all_routes


class FittingCalls:
    """Makes calls from the document, as the page's examples are made."""

    def __init__(self, served: Served) -> None:
        self._document = served.server.app[CONTRACT].document()
        self._writer = CallWriter(self._document)
        self._samples = Samples(self._document["components"]["schemas"])

    def of(self, route: Route, parts: Mapping[str, str] = {}) -> Fitting:
        """The call, with these parts in its path and a sample for each other."""
        if route.spec is None:  # Told nowhere: it is to be denied all the same.
            path = path_of(route)
            for name in _names(path):
                path = path.replace(f"{{{name}}}", parts.get(name, "sample"))
            return Fitting(route, path, None, {})
        path = path_of(route)
        operation = self._document["paths"][path][route.method.lower()]
        headers, asked = {}, []
        for each in operation["parameters"]:
            value = self._writer.parameter(each)
            if each["in"] == "path":
                path = path.replace(f"{{{each['name']}}}", parts.get(each["name"], value))
            elif each["required"] and each["in"] == "header":
                headers[each["name"]] = value
            elif each["required"]:
                asked.append(f"{each['name']}={value}")
        data = self._body(operation)
        if data is not None:
            headers["Content-Type"] = next(iter(operation["requestBody"]["content"]))
        return Fitting(route, path + "?" * bool(asked) + "&".join(asked), data, headers)

    def _body(self, operation: Mapping[str, Any]) -> bytes | None:
        if "requestBody" not in operation:
            return None
        media, content = next(iter(operation["requestBody"]["content"].items()))
        if not is_json(media):
            return b"sample"
        return json.dumps(self._samples.of(content["schema"])).encode()


def _names(path: str) -> list[str]:
    return [part[1:-1] for part in path.split("/") if part.startswith("{")]
