"""Reads query strings: typed, bounded, every complaint with the name of its parameter."""

import re
from functools import cache
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from api.bodies import field_error
from api.problems import Code, FieldError, Refusal, invalid

Query = TypeVar("Query")

_LISTS: Final = (msgspec.inspect.ListType, msgspec.inspect.VarTupleType)
_WHOLE: Final = re.compile(r"-?[0-9]{1,18}")  # More digits are out of every bound.
_NUMBER: Final = re.compile(r"-?[0-9]{1,18}(?:\.[0-9]{1,18})?")
_WORDS: Final = {"true": True, "false": False}


def read_query(request: web.BaseRequest, kind: type[Query]) -> Query:
    """The parameters as a Struct; a field of a list type takes a parameter that is repeated.

    Raises Refusal for what is unknown, repeated where one is meant, or out of bounds. Give the
    Struct `forbid_unknown_fields=True`, and its fields bounds.
    """
    known: Any = kind
    fields = _fields(known)
    values: dict[str, object] = {}
    for name in request.query:
        texts = request.query.getall(name)
        field = fields.get(name)
        many = field is not None and isinstance(field, _LISTS)
        if not many and len(texts) > 1:
            raise Refusal.of(invalid([FieldError(name, "may be given once")]))
        values[name] = [_value(text, field) for text in texts] if many else _value(texts[0], field)
    if any("\x00" in text for text in request.query.values()):
        raise Refusal(Code.INVALID_REQUEST, "A parameter holds a NUL character.")
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise Refusal.of(invalid([field_error(str(error))])) from None


@cache  # As many as there are routes with a query.
def _fields(kind: Any) -> dict[str, msgspec.inspect.Type]:
    """By name; of an optional one, what it is when it is there."""
    return {
        field.encode_name: _present(msgspec.inspect.type_info(field.type))
        for field in msgspec.structs.fields(kind)
    }


def _present(info: msgspec.inspect.Type) -> msgspec.inspect.Type:
    if not isinstance(info, msgspec.inspect.UnionType):
        return info
    kinds = [each for each in info.types if not isinstance(each, msgspec.inspect.NoneType)]
    return kinds[0]


def _value(text: str, info: msgspec.inspect.Type | None) -> Any:
    """The text as its field's type writes it. What does not look like it stays text: a complaint."""
    if isinstance(info, _LISTS):
        info = info.item_type
    if isinstance(info, msgspec.inspect.BoolType):
        return _WORDS.get(text, text)
    if isinstance(info, msgspec.inspect.IntType) and _WHOLE.fullmatch(text):
        return int(text)
    if isinstance(info, msgspec.inspect.FloatType) and _NUMBER.fullmatch(text):
        return float(text)
    return text
