"""Reads request bodies: bounded, JSON, typed, every complaint with the name of its field."""

import re
from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec
from aiohttp import web

from api.problems import Code, FieldError, Refusal, invalid
from engine.admission.limit import AdmissionLimit, Priority

JSON_TYPE: Final = "application/json"

Body = TypeVar("Body")

_PLACE = re.compile(r" - at (?:`key` in )?`(?:key in )?\$\.?(?P<path>[^`]*)`$")
_NAMED_FIELD = re.compile(r"(?:missing required|contains unknown) field `(?P<name>[^`]*)`")
# After an odd number of backslashes it is text about an escape, not one.
_ESCAPED_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_LENGTH = re.compile(r"[0-9]{1,12}")


def arrived_body(request: web.BaseRequest, bytes_max: int) -> bytes | None:
    """The body if it came with the headers, as small ones do, and is within the bound."""
    content = request.content
    if not content.is_eof() or content.total_bytes > bytes_max:
        return None
    return content.read_nowait()


async def read_body(request: web.BaseRequest, bytes_max: int) -> bytes | None:
    """The whole body, or None as soon as it proves larger than `bytes_max`."""
    content = request.content
    declared = request.headers.get("Content-Length", "0")
    if not _LENGTH.fullmatch(declared) or int(declared) > bytes_max:
        return None
    chunks = bytearray()
    while chunk := await content.readany():
        chunks += chunk
        if len(chunks) > bytes_max:
            return None
    return bytes(chunks)


def is_json(content_type: str | None) -> bool:
    """Whether a Content-Type header says JSON, with whatever parameters."""
    if content_type == JSON_TYPE:
        return True
    return content_type is not None and content_type.partition(";")[0].strip().lower() == JSON_TYPE


class Place:
    """A request's place among those in work."""

    __slots__ = ("entered", "measured", "priority")

    def __init__(self, priority: Priority, entered: float = 0.0) -> None:
        self.priority = priority
        self.entered = entered
        self.measured = True  # What it takes says how busy this process is.


PLACE: Final = web.RequestKey("place", Place)


class BodyReader:
    """Reads bodies. Raises Refusal, and Overloaded: a body still on its way takes no place among
    the requests that are worked on, so clients that dawdle shed nobody."""

    def __init__(self, bytes_max: int, limit: AdmissionLimit) -> None:
        self._bytes_max = bytes_max
        self._limit = limit

    async def raw(self, request: web.BaseRequest, bytes_max: int | None = None) -> bytes:
        """The bytes as they came."""
        limit = bytes_max or self._bytes_max
        body = arrived_body(request, limit)
        if body is None:
            place = request[PLACE]
            place.measured = False  # By how fast its client sends.
            with self._limit.stepped_out(place.priority):
                body = await read_body(request, limit)
        if body is None:
            raise Refusal(Code.BODY_TOO_LARGE, f"At most {limit} bytes.")
        return body

    async def json(self, request: web.BaseRequest, decoder: msgspec.json.Decoder[Body]) -> Body:
        """The body as the decoder's type."""
        body = await self.raw(request)
        require_json(request.headers)
        return decode(body, decoder)

    async def optional_json(
        self, request: web.BaseRequest, decoder: msgspec.json.Decoder[Body], default: Body
    ) -> Body:
        """As `json`; `default` if there is no body at all."""
        body = await self.raw(request)
        if not body:
            return default
        require_json(request.headers)
        return decode(body, decoder)

    async def none(self, request: web.BaseRequest) -> None:
        """For calls that take no body: an empty one or `{}` will do, anything else is a Refusal."""
        await self.optional_json(request, _no_decoder, NoBody())


class NoBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing to say."""


_no_decoder: Final = msgspec.json.Decoder(NoBody)


def require_json(headers: Mapping[str, str]) -> None:
    if not is_json(headers.get("Content-Type")):
        raise Refusal(Code.INVALID_REQUEST, "Content-Type must be application/json.")


def decode(body: bytes, decoder: msgspec.json.Decoder[Body]) -> Body:
    """The value, or Refusal with the field that is wrong."""
    try:
        value = decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Refusal.of(invalid([field_error(str(error))])) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(Code.INVALID_REQUEST, f"The body is not JSON: {error}") from None
    refuse_nul(body)
    return value


def refuse_nul(body: bytes) -> None:
    """Refuses JSON with a NUL in some text: no text of ours has one, and Postgres stores none."""
    if b"\\u0000" in body and _ESCAPED_NUL.search(body):
        raise Refusal(Code.INVALID_REQUEST, "The body holds a NUL character.")


def field_error(message: str) -> FieldError:
    """msgspec's complaint, as in "Expected `int`, got `str` - at `$.items[0].quantity`"."""
    place = _PLACE.search(message)
    path = place["path"] if place else ""
    text = message[: place.start()] if place else message
    if named := _NAMED_FIELD.search(text):
        path = f"{path}.{named['name']}" if path else named["name"]
    return FieldError(path, text)
