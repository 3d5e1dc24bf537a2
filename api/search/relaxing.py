"""Leaves words out of a query that nothing has all of, until something has the rest.

What a thing is stays longest: what it is said to be like goes before, and of the alike the first.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from api.search.query import read_wish
from api.search.words import cut_coarse, fold, han_runs, other_words
from engine.store.database import Connection

LEFT_OUT_MAX: Final = 3  # Words: with more gone it is another query.
WORDS_MAX: Final = 8  # Of a longer query nothing is left out: each word would be tried.

_PART: Final = re.compile(r'(?:(?<=\s)|^)-(?:["“”][^"“”]*["“”]|\S+)|["“”][^"“”]*["“”]|[^\s"“”]+')
_FOUND: Final = """
    SELECT EXISTS (SELECT FROM product_search
                   WHERE words @@ (websearch_to_tsquery('english', other) && han::tsquery)) AS found
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS asked (other, han, place)
    ORDER BY place"""
_WEIGHTS: Final = """
    SELECT word, max(weight) AS weight FROM search_words WHERE word = ANY ($1::text[]) GROUP BY word"""


class Relaxed(NamedTuple):
    """What is searched instead, and the words that are not in it."""

    text: str
    left_out: list[str]


async def relax(connection: Connection, text: str) -> Relaxed | None:
    """The query with few words left out that finds something; None if there is none, or if all of
    its words are somewhere and only the filters leave nothing of it."""
    parts = list(parts_of(fold(text)))
    kept = [part for part in parts if part.startswith("-")]
    words = [part for part in dict.fromkeys(parts) if not part.startswith("-")]
    if not 1 < len(words) <= WORDS_MAX or (await _found(connection, [words], kept))[0]:
        return None
    words = await _least_first(connection, words)
    left_out: list[str] = []
    while len(words) > 1 and len(left_out) < LEFT_OUT_MAX:
        without = [words[:at] + words[at + 1 :] for at in range(len(words))]
        found = await _found(connection, without, kept)
        at = found.index(True) if True in found else await _unknown(connection, words)
        left_out.append(words[at])
        words = without[at]
        if found[at]:
            return Relaxed(" ".join([*words, *kept]), left_out)
    return None


def parts_of(folded: str) -> Iterator[str]:
    """What can be left out by itself: a word of either script, a phrase, a -word."""
    for part in _PART.findall(folded):
        if part[0] in '-"“”':
            yield part
            continue
        for run in han_runs(part):
            yield from cut_coarse(run)
        yield from other_words(part)


async def _least_first(connection: Connection, words: list[str]) -> list[str]:
    """By what they are in names: nothing, any word, a brand, the thing itself."""
    rows = await connection.fetch(_WEIGHTS, words)
    weights = {row["word"]: row["weight"] for row in rows}
    return sorted(words, key=lambda word: weights.get(word, 0))


async def _unknown(connection: Connection, words: list[str]) -> int:
    """The first that is nowhere, else the first."""
    found = await _found(connection, [[word] for word in words], [])
    return found.index(False) if False in found else 0


async def _found(
    connection: Connection, queries: Sequence[list[str]], kept: list[str]
) -> list[bool]:
    """Of each whether anything matches it."""
    wishes = [read_wish(" ".join([*words, *kept])) for words in queries]
    rows = await connection.fetch(
        _FOUND, [wish.other for wish in wishes], [wish.han for wish in wishes]
    )
    return [row["found"] for row in rows]
