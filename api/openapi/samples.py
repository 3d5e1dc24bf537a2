"""Sample values of schemas, for examples that work when they are copied. Pure and always the same."""

import re
from collections.abc import Mapping
from itertools import product
from typing import Any, Final

from api.openapi.schemas import Schema, resolved

DEPTH_MAX: Final = 8  # Of samples in samples: a tree of categories ends somewhere.

# By the name of the field: what a reader recognizes.
_BY_NAME: Final[dict[str, Any]] = {
    "sku": "phone-black",
    "sale_id": "double-11",
    "sale": "double-11",
    "email": "ada@example.com",
    "password": "correct horse battery",
    "name": "Ada Lovelace",
    "phone": "+86 138 0000 0000",
    "country": "CN",
    "region": "上海市",
    "city": "上海市",
    "street": "人民广场 1",
    "postal_code": "200003",
    "currency": "CNY",
    "amount_minor": 129900,
    "language": "en",
    "verdict": "deny",
    "subject": "user:usr_8fk2",
    "opens_at": "2026-11-11T00:00:00+08:00",
    "closes_at": "2026-11-11T23:59:59+08:00",
    "expires_at": "2027-01-01T00:00:00Z",
    "url": "https://example.com/picture.jpg",
    "provider": "sandbox",
    "quantity": 1,
    "units": 100,
    "per_user_max": 2,
    "reservation_seconds": 900,
    "rating": 5,
    "order": "double-11.Zk3vQ0yJc1aX8bTn5LwE",
    "reservation": "double-11.Zk3vQ0yJc1aX8bTn5LwE",
    "order_id": "double-11.Zk3vQ0yJc1aX8bTn5LwE",
    "payment": "pay_7Hq2",
    "product": "phone",
    "Idempotency-Key": "7d0c1c1e-one-click",
    "q": "手机",
    "role": "buyer",
    "status": "paid",
    "state": "open",
    "token": "eyJhbGciOiJIUzI1NiJ9…",
    "token_type": "Bearer",
    "user": "usr_8fk2Qm7x",
    "text": "Rings well, and stays quiet.",
    "next": "WzEyM10=",
    "rate": "7.12",
    "day": "2026-11-11",
    "goods": "Phone, black",
    "image": "https://images.example/phone.jpg",
    "revision": "1",
    "base": "USD",
    "quote": "CNY",
    "type": "order.paid",
}
# Objects whose fields depend on each other.
_WHOLE: Final[dict[str, Any]] = {
    "terms": {
        "kind": "percent",
        "name": {"en": "Spring", "zh-CN": "春季优惠"},
        "currencies": {"CNY": {"discount_max_minor": 5000}},
        "basis_points": 1000,
    },
}
_GOODS: Final = {"sku", "product_id", "skus", "image", "images"}
_OF_GOODS: Final = {"name": "goods"}  # Whose name is another's than a buyer's.
_BY_FORMAT: Final = {
    "date-time": "2026-11-11T00:00:00Z",
    "date": "2026-11-11",
    "time": "00:00:00Z",
    "uuid": "3f0c0a52-5a4e-4c8e-9a57-0c5f1c5f6b1e",
    "duration": "PT1H",
}
_WORDS: Final = (
    "sample",
    "example-1",
    "EN",
    "CNY",
    "a",
    "1",
    "000000",
    "ada@example.com",
    "+8613800000000",
)


class Samples:
    """Makes samples of one document's schemas."""

    def __init__(self, components: Mapping[str, Schema], *, whole: bool = False) -> None:
        """`whole`: with what may be left out, as an answer shows it."""
        self._components = components
        self._whole = whole

    def of(self, schema: Mapping[str, Any], name: str = "", depth: int = 0) -> Any:
        """A value that the schema takes; of an object, what it requires and what readers know."""
        schema = resolved(schema, self._components)
        if schema.get("examples"):
            return schema["examples"][0]
        if name in _WHOLE:
            return _WHOLE[name]
        if "enum" in schema:
            known = _BY_NAME.get(name)
            return known if known in schema["enum"] else schema["enum"][0]
        if "const" in schema:
            return schema["const"]
        if choices := schema.get("anyOf") or schema.get("oneOf"):
            return self.of(_first_that_says_something(choices), name, depth)
        return self._of_type(schema, name, depth)

    def _of_type(self, schema: Mapping[str, Any], name: str, depth: int) -> Any:
        match schema.get("type"):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._list(schema, name, depth)
            case "string":
                return _text(schema, name)
            case "integer" | "number":
                return _number(schema, name)
            case "boolean":
                return schema.get("default", True)
        return None

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        fields, required = schema.get("properties", {}), set(schema.get("required", ()))
        if depth >= DEPTH_MAX:
            return {}
        if not fields and isinstance(values := schema.get("additionalProperties"), dict):
            return self._mapping(schema, values, depth)
        shown = set(fields) if self._whole else required or set(list(fields)[:1])
        known = _OF_GOODS if _GOODS & fields.keys() else {}
        return {
            name: self.of(fields[name], known.get(name, name), depth + 1)
            for name in fields
            if name in shown
        }

    def _mapping(
        self, schema: Mapping[str, Any], values: Mapping[str, Any], depth: int
    ) -> dict[str, Any]:
        if not schema.get("minProperties") and depth:
            return {}
        key = _text(resolved(schema.get("propertyNames", {}), self._components), "language")
        return {key: self.of(values, "", depth + 1)}

    def _list(self, schema: Mapping[str, Any], name: str, depth: int) -> list[Any]:
        if "prefixItems" in schema:
            return [self.of(each, name, depth + 1) for each in schema["prefixItems"]]
        items = schema.get("items")
        if not isinstance(items, dict) or depth >= DEPTH_MAX:
            return []
        singular = name.removesuffix("s")
        return [self.of(items, singular, depth + 1)] * max(1, schema.get("minItems", 1))


def _first_that_says_something(choices: list[Schema]) -> Schema:
    return next((choice for choice in choices if choice.get("type") != "null"), choices[0])


def _text(schema: Mapping[str, Any], name: str) -> str:
    known = _BY_NAME.get(name)
    if isinstance(known, str) and _fits(schema, known):
        return known
    if schema.get("format") in _BY_FORMAT:
        return _BY_FORMAT[schema["format"]]
    for word, times in product((*_likely(name), *_WORDS), (1, 2, 4, 20)):
        if _fits(schema, word * times):
            return word * times
    return str(schema.get("default") or "…")


def _likely(name: str) -> tuple[str, ...]:
    """What a field of this name looks like."""
    if name.endswith(("_at", "_until", "_time")):
        return (_BY_FORMAT["date-time"],)
    if name.endswith("_id"):
        return (f"{name[:3]}_8fk2Qm7x", name)
    return (name,)


def _fits(schema: Mapping[str, Any], text: str) -> bool:
    least, most = schema.get("minLength", 0), schema.get("maxLength", len(text))
    pattern = schema.get("pattern", "")
    return bool(text) and least <= len(text) <= most and bool(re.search(pattern, text))


def _number(schema: Mapping[str, Any], name: str) -> Any:
    least = schema.get(
        "minimum", schema.get("exclusiveMinimum", 0) + ("exclusiveMinimum" in schema)
    )
    most = schema.get("maximum", schema.get("exclusiveMaximum"))
    known = _BY_NAME.get(name, schema.get("default"))
    if isinstance(known, int | float) and known >= least and (most is None or known <= most):
        return known
    return max(least, 1) if most is None or most >= 1 else least
