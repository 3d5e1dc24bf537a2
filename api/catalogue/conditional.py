"""Answers that whoever has them already need not get again, and changes of a version one has seen."""

import hashlib
import re
from typing import Final

import msgspec
from aiohttp import web
from multidict import istr

from api.answers import PUBLIC, Answer
from api.problems import Code, Refusal
from api.spec import Param

ETAG: Final = istr("ETag")
CONTENT_LANGUAGE: Final = istr("Content-Language")
VARY: Final = (istr("Vary"), "Accept-Language")

ACCEPT_LANGUAGE: Final = Param("Accept-Language", "`en` or `zh-CN`; the names come in it.")
IF_NONE_MATCH: Final = Param("If-None-Match", "The `ETag` of the copy that is at hand.")
IF_MATCH: Final = Param(
    "If-Match", "The `ETag` of the version that is to be changed, or `*` for any."
)
IF_NONE_MATCH_CREATE: Final = Param("If-None-Match", "`*`: only if there is none yet.")

# What good answers tell.
TOLD_TAG: Final = Param("ETag", "Names this version, for `If-None-Match` or `If-Match`.")
TOLD_LANGUAGE: Final = Param("Content-Language", "The language of the names: `en` or `zh-CN`.")
TOLD: Final = {200: (TOLD_TAG, TOLD_LANGUAGE), 304: (TOLD_TAG,)}

_REVISION: Final = re.compile(r'"([0-9]{1,18})"')


def localized(request: web.BaseRequest, value: object, language: str) -> Answer:
    """The value as JSON in that language; 304 for whoever has it (RFC 9110 §13.1.2)."""
    body = msgspec.json.encode(value)
    tag = f'W/"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    headers = (*PUBLIC, (CONTENT_LANGUAGE, language), VARY, (ETAG, tag))
    if _names(request.headers.get("If-None-Match", ""), tag):
        return Answer(304, b"", headers)
    return Answer(200, body, headers)


def revision_tag(revision: int) -> str:
    """The strong tag of a version."""
    return f'"{revision}"'


def require_revision(request: web.BaseRequest, known: int | None, said: int | None) -> None:
    """Raises Refusal unless the version that is there, None for none, is what the caller expects.

    He says so in `If-Match`, or as `said` in the body; a first version needs no word.
    """
    if request.headers.get("If-None-Match", "").strip() == "*" and known is not None:
        raise Refusal(Code.CHANGED_MEANWHILE, "There is one already.")
    match = request.headers.get("If-Match")
    if known is None:
        if match is not None or said is not None:
            raise Refusal(Code.CHANGED_MEANWHILE, "There is none yet.")
        return
    if match is None and said is None:
        raise Refusal(Code.PRECONDITION_REQUIRED)
    if said is not None and said != known:
        raise Refusal(Code.CHANGED_MEANWHILE, f"It is at revision {known}.")
    if match is not None and match.strip() != "*" and known not in _revisions(match):
        raise Refusal(Code.CHANGED_MEANWHILE, f"It is at revision {known}.")


def _revisions(header: str) -> set[int]:
    return {int(text) for text in _REVISION.findall(header[:1000])}


def _names(header: str, tag: str) -> bool:
    """By the weak comparison."""
    return any(
        each.strip().removeprefix("W/") in {"*", tag.removeprefix("W/")}
        for each in header.split(",")
    )
