"""JSON Schemas of the types that routes take and give, named once and referred to everywhere.

msgspec writes them; here they get names that last, and patterns that are not Python's alone.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

Schema = dict[str, Any]

PREFIX: Final = "#/components/schemas/"
_REF_TEMPLATE: Final = PREFIX + "{name}"


class Schemas:
    """The schemas of `takes` (bodies, parameters) and `gives` (answers). Order does not matter."""

    def __init__(self, takes: Iterable[Any], gives: Iterable[Any]) -> None:
        taken, given = list(takes), list(gives)
        kinds = [*taken, *given]
        written, components = msgspec.json.schema_components(kinds, ref_template=_REF_TEMPLATE)
        _say_what_is_always_there(components, _structs(given) - _structs(taken))
        names = _short_names(components)
        self._of = [
            (kind, _tidy(schema, names)) for kind, schema in zip(kinds, written, strict=True)
        ]
        self.components: dict[str, Schema] = {
            names.get(name, name): _tidy(schema, names)
            for name, schema in sorted(components.items())
        }

    def of(self, kind: Any) -> Schema:
        """The schema of one of the types, mostly a reference."""
        return dict(next(schema for known, schema in self._of if known is kind or known == kind))


def resolved(schema: Mapping[str, Any], components: Mapping[str, Schema]) -> Mapping[str, Any]:
    """The schema itself, where it is a reference."""
    reference = schema.get("$ref")
    return schema if reference is None else components[reference.removeprefix(PREFIX)]


def struct_fields(kind: type) -> tuple[msgspec.structs.FieldInfo, ...]:
    """A Struct's fields, with their types."""
    return msgspec.structs.fields(kind)


def _structs(kinds: list[Any]) -> set[type]:
    """Every Struct that these types are or hold."""
    found: set[type] = set()
    waiting = list(msgspec.inspect.multi_type_info(kinds))
    while waiting:
        info = waiting.pop()
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls in found:
                continue
            found.add(info.cls)
            waiting += [field.type for field in info.fields]
        else:
            waiting += _parts(info)
    return found


def _parts(info: msgspec.inspect.Type) -> list[msgspec.inspect.Type]:
    parts: list[msgspec.inspect.Type] = []
    for name in info.__struct_fields__:
        value = getattr(info, name)
        values = value if isinstance(value, tuple) else (value,)
        parts += [each for each in values if isinstance(each, msgspec.inspect.Type)]
    return parts


def _say_what_is_always_there(components: dict[str, Schema], answers: set[type]) -> None:
    """A field with a default may be left out of a body; an answer has it all the same."""
    for kind in answers:
        config: Any = getattr(kind, "__struct_config__", None)
        schema = _component_of(kind, components)
        if schema is None or config.omit_defaults or "properties" not in schema:
            continue
        fields = struct_fields(kind)
        schema["required"] = [f.encode_name for f in fields if f.default is not msgspec.UNSET]


def _component_of(kind: type, components: dict[str, Schema]) -> Schema | None:
    whole = f"{kind.__module__}.{kind.__qualname__}"
    return components.get(whole) or components.get(kind.__name__)


def _short_names(components: Mapping[str, Schema]) -> dict[str, str]:
    """`api.queue.bodies.OpenBody` is `QueueOpenBody`: two modules have an OpenBody."""
    return {name: _short(name) for name in components if "." in name}


def _short(name: str) -> str:
    *modules, kind = name.split(".")
    folder = modules[1] if len(modules) > 1 else modules[0]
    return folder.title().replace("_", "") + kind


def _tidy(node: Any, names: Mapping[str, str]) -> Any:
    """The schema with the names that last, ECMA's patterns, and no choice of anything at all."""
    if isinstance(node, list):
        return [_tidy(each, names) for each in node]
    if not isinstance(node, dict):
        return node
    tidy = {key: _tidy(value, names) for key, value in node.items()}
    if isinstance(reference := tidy.get("$ref"), str):
        name = reference.removeprefix(PREFIX)
        tidy["$ref"] = PREFIX + names.get(name, name)
    if isinstance(pattern := tidy.get("pattern"), str):
        tidy["pattern"] = ecma(pattern)
    if isinstance(choices := tidy.get("anyOf"), list) and {} in choices:  # msgspec.Raw
        tidy["anyOf"] = [choice for choice in choices if choice != {}]
        if len(tidy["anyOf"]) == 1:
            tidy |= tidy.pop("anyOf")[0]
    return tidy


def ecma(pattern: str) -> str:
    """A pattern of Python's as JSON Schema writes it (ECMA-262)."""
    pattern = pattern.replace(r"\Z", "$").replace("(?P<", "(?<")
    return re.sub(r"\(\?P=(\w+)\)", r"\\k<\1>", pattern)
