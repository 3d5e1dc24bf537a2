"""Cuts text into words: Chinese by a dictionary and into pairs of characters, the rest at its letters.

Documents and queries go through the same functions. Stemming is left to Postgres.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import rjieba

TEXT_LENGTH_MAX: Final = 4000  # Of one text: a description longer than that says nothing new.

_HAN: Final = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_RUN: Final = re.compile(rf"[{_HAN}]+|[^\W_{_HAN}]+")
_CLAUSE: Final = re.compile(r"[,;:/|()\[\]（），；：【】、·—–]| - ")
# After one of these it is said what the thing is for, not what it is.
_BEFORE: Final = frozenset({"for", "with", "in", "of", "and", "by", "on", "from", "to"})
# Words of which no search is made.
_PARTICLES: Final = frozenset("的了和与及或在是也为之而着")


class Runs(NamedTuple):
    """A text's unbroken runs, in lower case: of Han characters, and words of any other script."""

    han: list[str]
    other: list[str]


class Cut(NamedTuple):
    """A text's words by script; heads are those that say what the thing is."""

    han: list[str]
    other: list[str]
    han_heads: list[str]
    other_heads: list[str]


def fold(text: str) -> str:
    """One form for what reads the same: full-width letters, ligatures, capitals."""
    return unicodedata.normalize("NFKC", text[:TEXT_LENGTH_MAX]).lower()


def runs_of(text: str) -> Runs:
    """The runs of a text, in its order."""
    found: Runs = Runs([], [])
    for run in _RUN.findall(fold(text)):
        (found.han if is_han(run) else found.other).append(run)
    return found


def is_han(run: str) -> bool:
    return re.match(f"[{_HAN}]", run) is not None


def cut_coarse(run: str) -> list[str]:
    """A Han run as words, none inside another: what a query asks for."""
    return [word for word in rjieba.cut(run) if word not in _PARTICLES]


def cut_fine(run: str) -> list[str]:
    """A Han run as words and the words within them: what a document is found by."""
    return [word for word in rjieba.cut_for_search(run) if word not in _PARTICLES]


def pairs_of(run: str) -> Iterator[str]:
    """Each two neighbours of a Han run: they are there however the words are cut."""
    return map("".join, zip(run, run[1:], strict=False))


def gaps_of(word: str) -> list[str]:
    """A Han word with each of its characters left out: words alike but for one share such a gap."""
    return [f"{word[:at]}_{word[at + 1 :]}" for at in range(len(word))] if len(word) > 1 else []


def cut_text(text: str) -> Cut:
    """All words of a text that describes; heads are not looked for."""
    runs = runs_of(text)
    return Cut([word for run in runs.han for word in cut_fine(run)], runs.other, [], [])


def cut_name(name: str) -> Cut:
    """The words of a name. Its heads are the last word of each Han run, and of each clause else."""
    words = cut_text(name)
    for clause in _CLAUSE.split(fold(name)):
        runs = runs_of(clause)
        words.han_heads.extend(head for run in runs.han for head in _han_heads(run))
        words.other_heads.extend(_other_head(runs.other))
    return words


def _han_heads(run: str) -> Iterable[str]:
    """手机 of 小米手机; of 手机壳 its 壳, and all of it, being short."""
    last = cut_coarse(run)[-1:]
    return {*last, run} if len(run) <= 4 else last


def _other_head(words: list[str]) -> list[str]:
    """`case` of "leather case for phone 15"; what has digits in it is a model, not a thing."""
    ends = next((at for at, word in enumerate(words) if at and word in _BEFORE), len(words))
    named = [word for word in words[:ends] if word.isalpha()]
    return named[-1:]
