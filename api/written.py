"""Writes the hot route's answers as bytes, in one piece. Knows no route and decides nothing.

aiohttp builds the headers of each answer anew, checks and serializes them; here those that never
change are bytes already. ext/straight.pyx writes the same answers in a third of the time.
"""

from functools import lru_cache
from http import HTTPStatus
from typing import Final

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time

from api.answers import Answer, Headers

HEADS_MAX: Final = 128  # Kinds of answers: a status with its constant headers.


def is_writable(request: web.BaseRequest) -> bool:
    """Whether the plain form fits: HTTP/1.1, and the connection stays open."""
    return request.version == HttpVersion11 and request.keep_alive


class WrittenAnswer(web.StreamResponse):
    """An answer that aiohttp sends without looking into it."""

    def __init__(self, answer: Answer, request_id: str) -> None:
        super().__init__(status=answer.status)
        self._answer = answer
        self._request_id = request_id

    @property
    def keep_alive(self) -> bool:
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Writes everything. Raises ConnectionResetError if the client left."""
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("The client left.")
        transport.write(as_bytes(self._answer, self._request_id))
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to write."""


def as_bytes(answer: Answer, request_id: str, *, close: bool = False) -> bytes:
    """An HTTP/1.1 response (RFC 9112). `close` says that it is the last of its connection."""
    location = f"Location: {answer.location}\r\n" if answer.location else ""
    ending = "Connection: close\r\n" if close else ""
    own = (
        f"{location}X-Request-Id: {request_id}\r\nContent-Length: {len(answer.body)}\r\n"
        f"Date: {http_date()}\r\n{ending}\r\n"
    )
    return head_of(answer.status, answer.headers) + own.encode() + answer.body


def http_date() -> str:
    """Now, as the Date header says it (RFC 9110 §5.6.7)."""
    return rfc822_formatted_time()


@lru_cache(maxsize=HEADS_MAX)
def head_of(status: int, headers: Headers) -> bytes:
    """The status line and the headers that are the same for many answers."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += (f"{name}: {value}" for name, value in headers)
    return ("\r\n".join(lines) + "\r\n").encode()
