"""Says problems in the language of whoever asked. Codes, statuses and fields stay as they are.

What the compiled gate answers does not come by here: it is written beforehand, in English.
"""

import re
from functools import cache, lru_cache
from typing import Final

import msgspec
from aiohttp import web
from multidict import istr

from api.answers import Answer
from api.language import language_of
from api.problems import FieldError, Problem, detail_of
from api.problems_zh import FORMS, KINDS, SENTENCES, TITLES

CHINESE: Final = "zh-CN"
KNOWN_MAX: Final = 1024  # Problems that were translated already: most are alike.
_HEADERS: Final = (
    (istr("Content-Language"), CHINESE),
    (istr("Vary"), "Accept-Language"),
)
_MORE: Final = "还有 {count} 处"
_decode: Final = msgspec.json.Decoder(Problem).decode


def localized(answer: Answer, request: web.BaseRequest) -> Answer:
    """The answer; a problem in Chinese for those who like that best."""
    if answer.status < 400 or answer.label not in TITLES:
        return answer
    return in_chinese(answer) if language_of(request) == CHINESE else answer


@lru_cache(maxsize=KNOWN_MAX)
def in_chinese(answer: Answer) -> Answer:
    """A problem, which `answer` is, with title, fixed sentences and complaints in Chinese."""
    problem = _decode(answer.body)
    title = TITLES[problem.code]
    errors = tuple(FieldError(e.field, sentence(e.problem)) for e in problem.errors)
    said = msgspec.structs.replace(
        problem,
        title=title,
        errors=errors,
        detail=detail_of(errors, _MORE) if errors else _detail(problem, title),
    )
    body = msgspec.json.encode(said)
    return msgspec.structs.replace(answer, body=body, headers=(*answer.headers, *_HEADERS))


def sentence(text: str) -> str:
    """One sentence or complaint in Chinese; as it is if there is no Chinese for it."""
    known = SENTENCES.get(text)
    if known is not None:
        return known
    for form, words in _forms():
        if found := form.fullmatch(text):
            return words.format_map(_in_words(found.groupdict()))
    return text


@cache
def _forms() -> tuple[tuple[re.Pattern[str], str], ...]:
    """Compiled when they are first needed: fronts start without."""
    return tuple((re.compile(form), words) for form, words in FORMS)


def _detail(problem: Problem, title: str) -> str:
    return f"{title}。" if problem.detail == f"{problem.title}." else sentence(problem.detail)


def _in_words(values: dict[str, str | None]) -> dict[str, str]:
    """The values, types among them in Chinese: `int | null` is 整数或空值."""
    words = {name: value or "" for name, value in values.items()}
    for name in words.keys() & {"kind", "got"}:
        words[name] = "或".join(KINDS.get(kind, kind) for kind in words[name].split(" | "))
    return words
