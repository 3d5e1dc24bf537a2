"""Schemas as rows of a table: the fields of a body or an answer, with types and bounds in words."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from api.openapi.schemas import PREFIX, Schema, resolved

DEPTH_MAX: Final = 5  # Of fields in fields on the page; programs read the document.
CHOICES_MAX: Final = 30  # Words of an enumeration that are spelled out.

_TYPES: Final = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "object": "object",
    "array": "list",
    "null": "null",
}
_FORMATS: Final = {"date-time": "time (RFC 3339)", "date": "date", "uuid": "UUID"}


class Field(NamedTuple):
    """One row. `depth` is how far it stands in; `path` is its whole name."""

    name: str
    path: str
    depth: int
    kind: str
    bounds: str
    pattern: str
    required: bool
    about: str


def fields_of(schema: Schema, components: Mapping[str, Schema]) -> list[Field]:
    """The fields of an object, or of a list's objects; none of what is neither."""
    return list(_rows(schema, components, "", 0, ()))


def kind_of(schema: Mapping[str, Any], components: Mapping[str, Schema]) -> str:
    """The type in words, as in `list of text, or null`."""
    schema = resolved(schema, components)
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        words = dict.fromkeys(kind_of(choice, components) for choice in choices)
        return " or ".join(words)
    if "const" in schema or "enum" in schema:
        return "one of"
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    kind = schema.get("type")
    if kind == "array" and isinstance(schema.get("items"), dict):
        return f"list of {kind_of(schema['items'], components)}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {kind_of(schema['additionalProperties'], components)} by name"
    return _TYPES.get(kind, "anything") if isinstance(kind, str) else "anything"


def bounds_of(schema: Mapping[str, Any], components: Mapping[str, Schema]) -> str:
    """What the value may be, in words."""
    return "; ".join(dict.fromkeys(_bounds(schema, components)))


def pattern_of(schema: Mapping[str, Any], components: Mapping[str, Schema]) -> str:
    """The pattern of a text, if it has one."""
    for each in _alternatives(schema, components):
        if "pattern" in each:
            return str(each["pattern"])
    return ""


def _rows(
    schema: Schema,
    components: Mapping[str, Schema],
    prefix: str,
    depth: int,
    inside: tuple[str, ...],
) -> Iterator[Field]:
    for reference, each in _objects(schema, components):
        if reference in inside or depth >= DEPTH_MAX:
            continue
        required = each.get("required", ())
        for name, field in each.get("properties", {}).items():
            path = f"{prefix}.{name}" if prefix else name
            yield _row(name, path, depth, field, components, required=name in required)
            below = (*inside, reference) if reference else inside
            listed = "[]" if _is_list(field, components) else ""
            yield from _rows(field, components, path + listed, depth + 1, below)


def _row(
    name: str,
    path: str,
    depth: int,
    schema: Schema,
    components: Mapping[str, Schema],
    *,
    required: bool,
) -> Field:
    about = schema.get("description", "") or ""
    return Field(
        name=name,
        path=path,
        depth=depth,
        kind=kind_of(schema, components),
        bounds=bounds_of(schema, components),
        pattern=pattern_of(schema, components),
        required=required,
        about=about,
    )


def _objects(
    schema: Mapping[str, Any], components: Mapping[str, Schema]
) -> Iterator[tuple[str, Schema]]:
    """The objects that a schema is, or lists, with their names."""
    reference = str(schema.get("$ref", "")).removeprefix(PREFIX)
    schema = resolved(schema, components)
    for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        yield from _objects(choice, components)
    if isinstance(items := schema.get("items"), dict):
        yield from _objects(items, components)
    if isinstance(values := schema.get("additionalProperties"), dict):
        yield from _objects(values, components)
    if "properties" in schema:
        yield reference, dict(schema)


def _is_list(schema: Mapping[str, Any], components: Mapping[str, Schema]) -> bool:
    return any(each.get("type") == "array" for each in _alternatives(schema, components))


def _alternatives(
    schema: Mapping[str, Any], components: Mapping[str, Schema]
) -> Iterator[Mapping[str, Any]]:
    schema = resolved(schema, components)
    choices = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    for choice in choices:
        yield from _alternatives(choice, components)
    if not choices:
        yield schema


def _bounds(schema: Mapping[str, Any], components: Mapping[str, Schema]) -> Iterator[str]:
    for each in _alternatives(schema, components):
        if "const" in each:
            yield str(each["const"])
        if "enum" in each:
            yield ", ".join(str(word) for word in each["enum"][:CHOICES_MAX])
        yield from _between(each, "minimum", "maximum", "")
        yield from _between(each, "minLength", "maxLength", " characters")
        yield from _between(each, "minItems", "maxItems", " entries")
        yield from _between(each, "minProperties", "maxProperties", " names")
        if each.get("type") == "array" and isinstance(each.get("items"), dict):
            yield from (f"each {text}" for text in _bounds(each["items"], components))
    if schema.get("default") not in (None, "", [], {}):
        yield f"default {_json_word(schema['default'])}"


def _between(schema: Mapping[str, Any], least: str, most: str, unit: str) -> Iterator[str]:
    low, high = schema.get(least), schema.get(most)
    if low is not None and high is not None:
        yield f"{low:,} to {high:,}{unit}" if low != high else f"{low:,}{unit}"
    elif low is not None:
        yield f"at least {low:,}{unit}"
    elif high is not None:
        yield f"at most {high:,}{unit}"


def _json_word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
