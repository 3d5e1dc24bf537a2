"""Reads what a visitor typed: words, "phrases", and -words that must not be there.

Pure, and total: there is no text that it refuses. What Postgres stems is left as text.
"""

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from api.search.lexemes import all_of, any_of
from api.search.words import cut_coarse, fold, han_runs, other_words, pairs_of

TERMS_MAX: Final = 12  # Nobody means more; each is a list of the index to be read.
RUN_LENGTH_MAX: Final = 24  # Of one Han run, for the same reason.

_TERM: Final = re.compile(
    r'(?P<minus>(?:(?<=\s)|^)-)?(?:["“”](?P<phrase>[^"“”]*)["“”]|(?P<word>[^\s"“”]+))'
)


class Wish(msgspec.Struct, frozen=True):
    """A query as Postgres takes it: `han` and `any_han` are of `tsquery`, the others for
    `websearch_to_tsquery`. `any_…` is the same with any of its words, by which matches are ranked."""

    han: str = ""
    other: str = ""
    any_han: str = ""
    any_other: str = ""
    words: tuple[str, ...] = ()  # those that are wished for, as a typing error may be in them

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in it that could be looked for."""
        return not self.han and not self.other

    @property
    def is_ranking(self) -> bool:
        """Whether something is wished for, and not only something else not."""
        return bool(self.any_han or self.any_other)


def read_wish(text: str) -> Wish:
    """What is looked for. Anything but letters, digits, quotes and a leading minus is passed over."""
    han: list[str] = []
    other: list[str] = []
    wanted_han: list[str] = []
    wanted_other: list[str] = []
    for term in list(_TERM.finditer(fold(text)))[:TERMS_MAX]:
        phrase, minus = term["phrase"] is not None, term["minus"] is not None
        body = term["phrase"] if phrase else term["word"]
        runs, words = [run[:RUN_LENGTH_MAX] for run in han_runs(body)], other_words(body)
        han.extend(_han_clauses(runs, minus=minus, phrase=phrase))
        other.extend(_other_terms(words, minus=minus, phrase=phrase))
        if not minus:
            wanted_han.extend(word for run in runs for word in cut_coarse(run))
            wanted_other.extend(words)
    return Wish(
        " & ".join(han),
        " ".join(other),
        any_of(wanted_han),
        " or ".join(wanted_other),
        tuple(dict.fromkeys([*wanted_han, *wanted_other])),
    )


def _han_clauses(runs: Iterable[str], *, minus: bool, phrase: bool) -> Iterable[str]:
    for run in runs:
        words = cut_coarse(run)
        if not words and len(run) == 1:
            continue  # A particle by itself is everywhere.
        clause = _neighbours(run) if phrase or not words else _in_any_cut(run, words)
        yield f"!({clause})" if minus else f"({clause})"


def _in_any_cut(run: str, words: list[str]) -> str:
    """The run's words; or, where a document's words were cut otherwise, its pairs of characters."""
    by_words, by_neighbours = all_of(dict.fromkeys(words)), _neighbours(run)
    return by_words if by_words == by_neighbours else f"{by_words} | {by_neighbours}"


def _neighbours(run: str) -> str:
    return all_of(dict.fromkeys(pairs_of(run))) if len(run) > 1 else all_of([run])


def _other_terms(words: list[str], *, minus: bool, phrase: bool) -> Iterable[str]:
    """As `websearch_to_tsquery` reads them; its OR is a word like others here."""
    sign = "-" if minus else ""
    if phrase or minus:
        return [f'{sign}"{" ".join(words)}"'] if words else []
    return [f'"{word}"' if word == "or" else word for word in words]
