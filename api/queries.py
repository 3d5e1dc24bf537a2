"""Reads query strings: typed, bounded, every complaint with the name of its parameter."""

from typing import Final, TypeVar

import msgspec
from aiohttp import web

from api.bodies import field_error
from api.problems import Code, FieldError, Refusal, invalid

Query = TypeVar("Query")

_LISTS: Final = (msgspec.inspect.ListType, msgspec.inspect.VarTupleType)


def read_query(request: web.BaseRequest, kind: type[Query]) -> Query:
    """The parameters as a Struct; a field of a list type takes a parameter that is repeated.

    Raises Refusal for what is unknown, repeated where one is meant, or out of bounds. Give the
    Struct `forbid_unknown_fields=True`, and its fields bounds.
    """
    many = {field.encode_name for field in msgspec.structs.fields(kind) if _is_list(field.type)}  # type: ignore[arg-type]
    values: dict[str, object] = {}
    for name in request.query:
        texts = request.query.getall(name)
        if name not in many and len(texts) > 1:
            raise Refusal.of(invalid([FieldError(name, "may be given once")]))
        values[name] = texts if name in many else texts[0]
    if any("\x00" in text for text in request.query.values()):
        raise Refusal(Code.INVALID_REQUEST, "A parameter holds a NUL character.")
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise Refusal.of(invalid([field_error(str(error))])) from None


def _is_list(kind: object) -> bool:
    info = msgspec.inspect.type_info(kind)
    kinds = info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)
    return any(isinstance(each, _LISTS) for each in kinds)
