"""Chooses the language of an answer, and of what has names in several. Translates nothing itself."""

from collections.abc import Mapping
from typing import Final

from aiohttp import web
from babel import Locale, negotiate_locale

LANGUAGES: Final = ("en", "zh-CN")  # The first is for those who ask for neither.
_LENGTH_MAX: Final = 200  # Browsers send some ten tags; nobody reads more.


def language_of(request: web.BaseRequest) -> str:
    """The one of LANGUAGES that `Accept-Language` likes best (RFC 9110 §12.5.4)."""
    return negotiated(request.headers.get("Accept-Language", ""))


def negotiated(header: str) -> str:
    """As `language_of`, by the header's text; what cannot be read asks for nothing."""
    wished = sorted(map(_wish, header[:_LENGTH_MAX].split(",")), key=lambda wish: -wish[0])
    tags = [tag for quality, tag in wished if quality > 0 and tag]
    return negotiate_locale([_known(tag) for tag in tags], LANGUAGES, sep="-") or LANGUAGES[0]


def pick(names: Mapping[str, str], language: str) -> str:
    """The name in that language, else in the first of LANGUAGES that there is, else any."""
    for wanted in (language, *LANGUAGES):
        if wanted in names:
            return names[wanted]
    return next(iter(names.values()), "")


def locale_of(language: str) -> Locale:
    """How babel calls it."""
    return Locale.parse(language, sep="-")


def _wish(text: str) -> tuple[float, str]:
    tag, _, parameter = text.strip().partition(";")
    name, _, value = parameter.strip().partition("=")
    try:
        quality = float(value) if name.strip() == "q" else 1.0
    except ValueError:
        quality = 0.0
    return quality, tag.strip()


def _known(tag: str) -> str:
    """Chinese of whatever script and place is answered in the Chinese there is."""
    return "zh-CN" if tag.lower().split("-")[0] == "zh" else tag
