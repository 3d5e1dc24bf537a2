"""Serves the contract: the OpenAPI document and the page made from it.

Each is made once per process, when it is first asked for: a front that nobody asks pays nothing.
"""

import asyncio
import gzip
import hashlib
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from aiohttp import web
from multidict import istr

from api.answers import CONTENT_TYPE, JSON, SECURITY_HEADERS, Answer, Headers
from api.front import Front
from api.openapi.document import build_document
from api.openapi.words import SEARCH_CHARACTERS_MAX
from api.routing import Route
from api.spec import Access, Param, Spec

SERVER_DEFAULT: Final = "/"  # Wherever the document came from.
HTML: Final = "text/html; charset=utf-8"

_CACHE: Final = (istr("Cache-Control"), "no-cache")  # Kept, and asked for again by its tag.
_VARY: Final = (istr("Vary"), "Accept-Encoding")
_GZIP: Final = (istr("Content-Encoding"), "gzip")
_POLICY: Final = "Content-Security-Policy"

_TAGGED: Final = Param("If-None-Match", "The `ETag` of the copy that is at hand.")
_TELLS: Final = (Param("ETag", "Names this version.", required=True),)
_DOCUMENT: Final = Spec(
    tag="Operations",
    summary="This contract, for programs",
    description="OpenAPI 3.1, made from the routes and their types.",
    headers=(_TAGGED,),
    answers={200: JSON, 304: None},
    tells={200: _TELLS, 304: _TELLS},
)


class PageQuery(msgspec.Struct, frozen=True):
    """What the page may be asked with."""

    q: Annotated[str, msgspec.Meta(description="Only calls that have all of these words.")] = ""


_PAGE: Final = Spec(
    tag="Operations",
    summary="This contract, for people",
    query=PageQuery,
    headers=(_TAGGED,),
    answers={200: "text/html", 304: None},
    tells={200: _TELLS, 304: _TELLS},
)


class Copy(NamedTuple):
    """What is served, plain and compressed, with the tag of its version."""

    body: bytes
    compressed: bytes | None
    etag: str
    headers: Headers

    @classmethod
    def of(
        cls, body: bytes, media: str, policy: str | None = None, *, compress: bool = True
    ) -> "Copy":
        headers: Headers = (*_with_policy(policy), (CONTENT_TYPE, media), _CACHE, _VARY)
        etag = f'W/"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
        return cls(body, gzip.compress(body, mtime=0) if compress else None, etag, headers)

    def answer(self, request: web.BaseRequest) -> Answer:
        """200, or 304 for whoever has this very version (RFC 9110 §13.1.2)."""
        headers = (*self.headers, (istr("ETag"), self.etag))
        if _has(request.headers.get("If-None-Match", ""), self.etag):
            return Answer(304, b"", headers)
        wanted = request.headers.get("Accept-Encoding", "").lower()
        if self.compressed is not None and "gzip" in wanted:
            return Answer(200, self.compressed, (*headers, _GZIP))
        return Answer(200, self.body, headers)


class Contract:
    """One process's copies of the document and of the page."""

    def __init__(self, routes: Sequence[Route], server: str | None) -> None:
        self.all_routes = (*routes, *self.routes)
        self._server = server or SERVER_DEFAULT
        self._making = asyncio.Lock()
        self._made: dict[str, Any] = {}

    @property
    def routes(self) -> tuple[Route, ...]:
        return (
            Route(
                "GET", "/openapi.json", self._show_document, access=Access.PUBLIC, spec=_DOCUMENT
            ),
            Route("GET", "/docs", self._show_page, access=Access.PUBLIC, spec=_PAGE),
        )

    def document(self) -> dict[str, Any]:
        return build_document(self.all_routes, version=version("doorbuster"), server=self._server)

    async def _show_document(self, _: Front, request: web.Request) -> Answer:
        copy: Copy = await self._once("document", self._write_document)
        return copy.answer(request)

    async def _show_page(self, _: Front, request: web.Request) -> Answer:
        from api.docs.page import Page  # noqa: PLC0415  # Templates cost a front 50 ms to import.

        page: Page = await self._once("page", lambda: Page(self.document()))
        wanted = request.query.get("q", "")[:SEARCH_CHARACTERS_MAX].strip()
        if wanted:
            # Anyone may search: 25 ms of compressing would be theirs to spend.
            found = Copy.of(page.found(wanted), HTML, page.policy, compress=False)
            return found.answer(request)
        copy: Copy = await self._once("copy", lambda: Copy.of(page.whole, HTML, page.policy))
        return copy.answer(request)

    def _write_document(self) -> Copy:
        return Copy.of(msgspec.json.encode(self.document()), JSON)

    async def _once(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` makes, which is not made twice. Takes a moment: others are served meanwhile."""
        if name not in self._made:
            async with self._making:
                if name not in self._made:
                    self._made[name] = await asyncio.to_thread(make)
        return self._made[name]


def _has(if_none_match: str, etag: str) -> bool:
    tags = (tag.strip() for tag in if_none_match.split(","))
    return any(tag in {"*", etag, etag.removeprefix("W/")} for tag in tags)


def _with_policy(policy: str | None) -> Headers:
    """The headers of every answer; a page says what its browser may do with it."""
    if policy is None:
        return SECURITY_HEADERS
    return tuple((name, policy if name == _POLICY else text) for name, text in SECURITY_HEADERS)
