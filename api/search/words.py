"""Cuts text into words: Chinese by a dictionary and into pairs of characters, the rest at its letters.

Documents and queries go through the same functions. Stemming is left to Postgres.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple

import rjieba

TEXT_LENGTH_MAX: Final = 4000  # Of one text: a description longer than that says nothing new.
CUTS_MAX: Final = (
    8192  # Texts remembered: names of categories, brands, colours come again and again.
)
HEAD_LENGTH_MAX: Final = 4  # Characters of a Han run that is likely one thing.

_HAN: Final = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_HAN_RUN: Final = re.compile(f"[{_HAN}]+")
_OTHER_RUN: Final = re.compile(rf"[^\W_{_HAN}]+")
_CLAUSE: Final = re.compile(r"[,;:/|()\[\]（），；：【】、·—–]| - ")
# After one of these it is said what the thing is for, not what it is.
_BEFORE: Final = frozenset({"for", "with", "in", "of", "and", "by", "on", "from", "to"})
# Words of which no search is made.
_PARTICLES: Final = frozenset("的了和与及或在是也为之而着")


class Cut(NamedTuple):
    """A text's words by script; heads are those that say what the thing is."""

    han: tuple[str, ...]
    other: tuple[str, ...]
    han_heads: tuple[str, ...] = ()
    other_heads: tuple[str, ...] = ()


def fold(text: str) -> str:
    """One form for what reads the same: full-width letters, ligatures, capitals."""
    return unicodedata.normalize("NFKC", text[:TEXT_LENGTH_MAX]).lower()


def han_runs(folded: str) -> list[str]:
    """Unbroken runs of Han characters."""
    return _HAN_RUN.findall(folded)


def other_words(folded: str) -> list[str]:
    """Words of any other script: letters and digits."""
    return _OTHER_RUN.findall(folded)


def cut_coarse(run: str) -> list[str]:
    """A Han run as words, none inside another: what a query asks for."""
    return [word for word in rjieba.cut(run) if word not in _PARTICLES]


def cut_fine(run: str) -> list[str]:
    """A Han run as words and the words within them: what a document is found by."""
    return [word for word in rjieba.cut_for_search(run) if word not in _PARTICLES]


def pairs_of(run: str) -> Iterator[str]:
    """Each two neighbours of a Han run: they are there however the words are cut."""
    return map("".join, pairwise(run))


def gaps_of(word: str) -> list[str]:
    """A Han word with each of its characters left out: words alike but for one share such a gap."""
    return [f"{word[:at]}_{word[at + 1 :]}" for at in range(len(word))] if len(word) > 1 else []


@lru_cache(maxsize=CUTS_MAX)
def cut_text(text: str) -> Cut:
    """All words of a text that describes; heads are not looked for."""
    folded = fold(text)
    return Cut(
        tuple(word for run in han_runs(folded) for word in cut_fine(run)),
        tuple(other_words(folded)),
    )


@lru_cache(maxsize=CUTS_MAX)
def cut_name(name: str) -> Cut:
    """The words of a name. Its heads are the last word of each Han run, and of each clause else."""
    folded = fold(name)
    heads = [head for run in han_runs(folded) for head in _han_heads(run)]
    others = [head for part in _CLAUSE.split(folded) for head in _other_head(other_words(part))]
    return cut_text(name)._replace(han_heads=tuple(heads), other_heads=tuple(others))


def _han_heads(run: str) -> Iterable[str]:
    """手机 of 小米手机; of 手机壳 its 壳, and all of it, being short."""
    last = cut_coarse(run)[-1:]
    return {*last, run} if len(run) <= HEAD_LENGTH_MAX else last


def _other_head(words: list[str]) -> list[str]:
    """`case` of "leather case for phone 15"; what has digits in it is a model, not a thing."""
    ends = next((at for at, word in enumerate(words) if at and word in _BEFORE), len(words))
    named = [word for word in words[:ends] if word.isalpha()]
    return named[-1:]
