"""Pages through lists by key: a page names where the next one begins."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated, Final, TypeVar

import msgspec
from aiohttp import web

from api.problems import Code, Refusal

PAGE_DEFAULT: Final = 50
PAGE_MAX: Final = 200
CURSOR_LENGTH_MAX: Final = 512

Key = TypeVar("Key")


class PageQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a list is asked with, as the contract tells it."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)] = PAGE_DEFAULT
    after: Annotated[str, msgspec.Meta(max_length=CURSOR_LENGTH_MAX)] | None = None


def page_size(request: web.Request) -> int:
    """`?limit=`, from 1 to PAGE_MAX. Raises Refusal."""
    text = request.query.get("limit", str(PAGE_DEFAULT))
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= PAGE_MAX):
        raise Refusal(Code.INVALID_REQUEST, f"limit must be a whole number from 1 to {PAGE_MAX}.")
    return int(text)


def cursor(request: web.Request, decoder: msgspec.json.Decoder[Key]) -> Key | None:
    """`?after=`: the key that an earlier page gave as `next`. Raises Refusal."""
    text = request.query.get("after")
    if text is None:
        return None
    try:
        if len(text) > CURSOR_LENGTH_MAX:
            raise ValueError("too long")
        return decoder.decode(urlsafe_b64decode(text.encode()))
    except (msgspec.DecodeError, ValueError):
        raise Refusal(
            Code.INVALID_REQUEST, "after must be the `next` of an earlier page."
        ) from None


def cursor_text(key: object) -> str:
    """The inverse of `cursor`."""
    return urlsafe_b64encode(msgspec.json.encode(key)).decode()
