"""What a call is answered with, before it becomes aiohttp's: status, headers, body.

Knows the headers that every answer carries. Knows no route.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import msgspec
from aiohttp import web
from multidict import istr

JSON: Final = "application/json"
PROBLEM_JSON: Final = "application/problem+json"

Headers = tuple[tuple[str, str], ...]

# Names are prepared once (istr): a header costs less than half that way.
# On every answer. The policy lets a browser do nothing with an API's answer but read it.
SECURITY_HEADERS: Final[Headers] = (
    (istr("Server"), "doorbuster"),
    (istr("X-Content-Type-Options"), "nosniff"),
    (istr("Content-Security-Policy"), "default-src 'none'; frame-ancestors 'none'"),
    (istr("Referrer-Policy"), "no-referrer"),
)
NO_STORE: Final = (istr("Cache-Control"), "no-store")
CONTENT_TYPE: Final = istr("Content-Type")
LOCATION: Final = istr("Location")
REQUEST_ID: Final = istr("X-Request-Id")


class Answer(msgspec.Struct, frozen=True, gc=False):
    """One answer. `label` is what it is counted under where the status says too little.

    `headers` are the same for many answers; a `location` is this one's own.
    """

    status: int
    body: bytes
    headers: Headers
    label: str = ""
    location: str = ""

    def to_response(self, request_id: str) -> web.Response:
        headers = (*self.headers, (REQUEST_ID, request_id))
        if self.location:
            headers = (*headers, (LOCATION, self.location))
        return web.Response(status=self.status, body=self.body, headers=headers)


class StreamedAnswer(Answer, frozen=True, gc=False, kw_only=True):
    """An answer too large to be held at once: `pieces` are sent as they come, after `body`.

    What fails on the way cuts the connection, so that nobody takes a part for the whole.
    """

    pieces: AsyncIterator[bytes]

    def to_response(self, request_id: str) -> web.Response:
        headers = (*self.headers, (REQUEST_ID, request_id))
        return web.Response(status=self.status, body=self._all(), headers=headers)

    async def _all(self) -> AsyncIterator[bytes]:
        yield self.body
        async for piece in self.pieces:
            yield piece


PERSONAL: Final[Headers] = (*SECURITY_HEADERS, (CONTENT_TYPE, JSON), NO_STORE)


def personal(value: Any, status: int = 200, *more: tuple[str, str]) -> Answer:
    """A JSON answer meant for one caller: nobody on the way may keep it."""
    return Answer(status, msgspec.json.encode(value), (*PERSONAL, *more))


PUBLIC: Final[Headers] = (
    *SECURITY_HEADERS,
    (CONTENT_TYPE, JSON),
    (istr("Cache-Control"), "no-cache"),
)


def public(value: Any) -> Answer:
    """A JSON answer that is the same for everybody, and old in a moment."""
    return Answer(200, msgspec.json.encode(value), PUBLIC)


@lru_cache(maxsize=256)
def time_text(ms: int) -> str:
    """RFC 3339, UTC, with the milliseconds only where there are some."""
    seconds, rest = divmod(ms, 1000)
    text = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()
    return f"{text}.{rest:03d}Z" if rest else f"{text}Z"
