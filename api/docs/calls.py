"""One operation of the document as the page shows it, with an example to copy."""

import json
import shlex
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from api.answers import JSON, PROBLEM_JSON
from api.docs.fields import Field, bounds_of, fields_of, kind_of, pattern_of
from api.openapi.operations import is_json
from api.openapi.refusals import RESPONSES
from api.openapi.samples import Samples
from api.openapi.schemas import Schema
from api.spec import Access

WHO: Final = {
    Access.PUBLIC: "anyone",
    Access.VISITOR: "anyone, or signed in",
    Access.SELF: "signed in",
    Access.CALLER: "signed in",
    Access.SUPPORT: "support",
    Access.OPERATOR: "operators",
}
_TOKENS: Final = {Access.SUPPORT: "$SUPPORT", Access.OPERATOR: "$OPERATOR"}


class Said(NamedTuple):
    """A parameter or header as a row."""

    name: str
    place: str
    kind: str
    bounds: str
    pattern: str
    required: bool
    about: str


class Reply(NamedTuple):
    """One good answer."""

    status: str
    media: str
    told: list[Said]
    fields: list[Field]
    kind: str


class Refused(NamedTuple):
    """One code that a call may be refused with."""

    status: str
    code: str
    title: str


class Call(NamedTuple):
    """What the page shows of one operation."""

    anchor: str
    method: str
    path: str
    tag: str
    summary: str
    about: list[str]
    who: str
    access: str
    said: list[Said]
    body_media: str
    body_required: bool
    body_kind: str
    body: list[Field]
    replies: list[Reply]
    refusals: list[Refused]
    curl: str
    sample: str
    sample_lines: int
    words: str


class CallWriter:
    """Reads operations of one document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._components: Mapping[str, Schema] = document["components"]["schemas"]
        self._responses: Mapping[str, Schema] = document["components"]["responses"]
        self._samples = Samples(self._components)
        self._answers = Samples(self._components, whole=True)

    def call(self, method: str, path: str, operation: Mapping[str, Any]) -> Call:
        media, body = self._body(operation)
        access = Access(operation["x-access"])
        sample = self._sample(operation)
        return Call(
            anchor=operation["operationId"],
            method=method.upper(),
            path=path,
            tag=operation["tags"][0],
            summary=operation["summary"],
            about=[text for text in operation["description"].split("\n\n") if text],
            who=WHO[access],
            access=access.value,
            said=[self._said(each, each["in"]) for each in operation["parameters"]],
            body_media=media,
            body_required=operation.get("requestBody", {}).get("required", False),
            body_kind=kind_of(body, self._components) if body is not None else "",
            body=fields_of(body, self._components) if body is not None else [],
            replies=self._replies(operation),
            refusals=self._refusals(operation),
            curl=self.curl(method, path, operation),
            sample=sample,
            sample_lines=sample.count("\n") + 1,
            words=f"{method} {path} {operation['summary']} {operation['tags'][0]}".lower(),
        )

    def curl(self, method: str, path: str, operation: Mapping[str, Any]) -> str:
        """A command that is the call; `$URL` and the token are the reader's."""
        lines = [f"curl {self._target(method, path, operation)}"]
        access = Access(operation["x-access"])
        if access not in {Access.PUBLIC, Access.VISITOR}:
            lines.append(f'-H "Authorization: Bearer {_TOKENS.get(access, "$TOKEN")}"')
        lines += [f"-H {quoted}" for quoted in self._headers(operation)]
        media, body = self._body(operation)
        if body is not None:
            lines.append(f"-H {shlex.quote(f'Content-Type: {media}')}")
            lines.append(f"-d {shlex.quote(self.body_text(media, body))}")
        return " \\\n  ".join(lines)

    def body_text(self, media: str, schema: Schema) -> str:
        """A body that the call takes."""
        if not is_json(media):
            return "@file"
        sample = self._samples.of(schema)
        short = json.dumps(sample, ensure_ascii=False)
        return short if len(short) < 72 else json.dumps(sample, ensure_ascii=False, indent=2)

    def parameter(self, parameter: Mapping[str, Any]) -> str:
        """A value of a parameter."""
        value = self._samples.of(parameter["schema"], parameter["name"])
        return str(value[0] if isinstance(value, list) else value)

    def _sample(self, operation: Mapping[str, Any]) -> str:
        """What a good answer looks like, unless it is no JSON or says nothing."""
        for response in operation["responses"].values():
            content = response.get("content", {}).get(JSON)
            if content is not None:
                value = self._answers.of(content["schema"])
                return json.dumps(value, ensure_ascii=False, indent=2) if value else ""
        return ""

    def _target(self, method: str, path: str, operation: Mapping[str, Any]) -> str:
        asked = []
        for each in operation["parameters"]:
            if each["in"] == "path":
                path = path.replace(f"{{{each['name']}}}", self.parameter(each))
            if each["in"] == "query" and each["required"]:
                said = f"{each['name']}={self.parameter(each)}"
                asked.append(f"--data-urlencode {shlex.quote(said)}")
        verb = "" if method.upper() == "GET" else f"-X {method.upper()} "
        words = f'{verb}"$URL{path}"'
        return " \\\n  ".join([f"-G {words}", *asked]) if asked else words

    def _headers(self, operation: Mapping[str, Any]) -> list[str]:
        needed = (p for p in operation["parameters"] if p["in"] == "header" and p["required"])
        return [shlex.quote(f"{each['name']}: {self.parameter(each)}") for each in needed]

    def _body(self, operation: Mapping[str, Any]) -> tuple[str, Schema | None]:
        if "requestBody" not in operation:
            return "", None
        media, content = next(iter(operation["requestBody"]["content"].items()))
        return media, content["schema"]

    def _said(self, parameter: Mapping[str, Any], place: str) -> Said:
        schema = parameter.get("schema", {})
        return Said(
            name=parameter["name"],
            place=place,
            kind=kind_of(schema, self._components),
            bounds=bounds_of(schema, self._components),
            pattern=pattern_of(schema, self._components),
            required=parameter["required"],
            about=parameter.get("description", ""),
        )

    def _replies(self, operation: Mapping[str, Any]) -> list[Reply]:
        responses = operation["responses"].items()
        return [self._reply(status, each) for status, each in responses if not _is_refusal(each)]

    def _reply(self, status: str, response: Schema) -> Reply:
        contents: dict[str, Schema] = response.get("content", {})
        media = next(iter(contents), "")
        schema: Schema = contents[media]["schema"] if media else {}
        told = [
            self._said({"name": name, **header}, "header")
            for name, header in response["headers"].items()
            if "$ref" not in header
        ]
        fields = fields_of(schema, self._components)
        return Reply(status, media, told, fields, kind_of(schema, self._components))

    def _refusals(self, operation: Mapping[str, Any]) -> list[Refused]:
        found = []
        for status, each in operation["responses"].items():
            if _is_refusal(each):
                response = self._responses[each["$ref"].removeprefix(RESPONSES)]
                examples = response["content"][PROBLEM_JSON]["examples"]
                found += [
                    Refused(status, code, example["value"]["title"])
                    for code, example in examples.items()
                ]
        return sorted(found)


def _is_refusal(response: Schema) -> bool:
    return "$ref" in response
