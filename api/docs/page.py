"""Draws the page of the HTTP contract from its document: one file, no script or style from elsewhere.

Every call is drawn once; the page, and what a search finds, are put together from them.
"""

import hashlib
import re
from base64 import b64encode
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from api.docs.calls import Call, CallWriter

TOPICS: Final = (
    ("start", "First steps"),
    ("authentication", "Authentication"),
    ("idempotency", "Idempotency keys"),
    ("problems", "Problems"),
    ("money", "Money and time"),
    ("paging", "Pages of lists"),
    ("languages", "Languages"),
    ("rates", "Rate limits"),
    ("events", "Events"),
)
_CODE: Final = re.compile(r"`([^`]+)`")
_PART: Final = re.compile(r"\{\w+\}")


class Section(NamedTuple):
    """The calls of one tag."""

    name: str
    about: str
    calls: list[Call]


class Page:
    """The page of one document. `policy` lets a browser run what is on it and nothing else."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._info = document["info"]
        self._style, self._script = _text("style.css"), _text("script.js")
        self._environment = _environment()
        self._sections = _sections(document)
        self._drawn = {
            call.anchor: self._draw(call) for each in self._sections for call in each.calls
        }
        self._template = self._environment.get_template("page.html")
        self.policy = _policy(self._style, self._script)
        self.whole = self._put_together(self._sections, "")

    def found(self, wanted: str) -> bytes:
        """The page with the calls alone that have all of these words."""
        words = wanted.lower().split()
        sections = [
            section._replace(calls=[c for c in section.calls if all(w in c.words for w in words)])
            for section in self._sections
        ]
        return self._put_together([each for each in sections if each.calls], wanted)

    def _draw(self, call: Call) -> Markup:
        return Markup(self._environment.get_template("call.html").render(call=call))  # noqa: S704

    def _put_together(self, sections: list[Section], wanted: str) -> bytes:
        return self._template.render(
            info=self._info,
            style=Markup(self._style),  # noqa: S704  # Our own files.
            script=Markup(self._script),  # noqa: S704
            topics=TOPICS,
            sections=sections,
            drawn=self._drawn,
            wanted=wanted,
        ).encode()


def prose(text: str) -> Markup:
    """Text with what stands between backticks as code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704


def _marked_path(path: str) -> Markup:
    return Markup(_PART.sub(lambda part: f"<i>{part[0]}</i>", str(escape(path))))  # noqa: S704


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("api.docs", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = prose
    environment.filters["path"] = _marked_path
    return environment


def _sections(document: Mapping[str, Any]) -> list[Section]:
    sections = {
        tag["name"]: Section(tag["name"], tag.get("description", ""), [])
        for tag in document["tags"]
    }
    writer = CallWriter(document)
    for path, calls in document["paths"].items():
        for method, operation in calls.items():
            call = writer.call(method, path, operation)
            sections[call.tag].calls.append(call)
    return list(sections.values())


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _text(name: str) -> str:
    return files("api.docs").joinpath(name).read_text("utf-8")
