"""Finds what a query that nothing matches may have meant: its unknown words, as known ones.

Words of letters by their trigrams and the fewest typing errors; Han words by all characters but one.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from api.search.query import Wish, read_wish
from api.search.words import cut_coarse, fold, gaps_of, han_runs, other_words
from engine.store.database import Connection

PIECES_MAX: Final = 3  # Words put right in one query: with more it is a guess.
CANDIDATES_MAX: Final = 6  # Tried for each, with all of the query.
SIMILAR_MAX: Final = 40  # Looked at for each.
ERRORS_MAX: Final = 2
MATCHES_MAX: Final = 200  # Counted to tell the likely from the unlikely.
LENGTH_MIN: Final = 3  # Of a word of letters: shorter ones resemble everything.

_KNOWN: Final = "SELECT DISTINCT word FROM search_words WHERE word = ANY($1::text[])"
_SIMILAR: Final = """
    SELECT word, max(weight) AS weight FROM search_words WHERE word % $1::text
    GROUP BY word ORDER BY similarity(word, $1::text) DESC, 2 DESC, 1 LIMIT $2"""
_GAPPED: Final = """
    SELECT word, max(weight) AS weight FROM search_words WHERE gaps && $1::text[]
    GROUP BY word ORDER BY 2 DESC, 1 LIMIT $2"""
_COUNT: Final = """
    SELECT count(*) FROM (
        SELECT FROM product_search
        WHERE words @@ (websearch_to_tsquery('english', $1::text) && $2::text::tsquery) LIMIT $3
    ) AS matches"""


class Piece(NamedTuple):
    """A part of the query that no name knows."""

    text: str
    is_han: bool


async def correct(connection: Connection, text: str) -> str | None:
    """The query with its unknown words put right; None if there is nothing to put right."""
    text = fold(text)
    pieces = await _unknown(connection, text)
    if not 0 < len(pieces) <= PIECES_MAX:
        return None
    for piece in pieces:
        better = await _better(connection, text, piece)
        if better is None:
            return None
        text = better
    return text


async def _unknown(connection: Connection, text: str) -> list[Piece]:
    pieces = [Piece(word, is_han=False) for word in other_words(text) if word.isalpha()]
    pieces += [Piece(part, is_han=True) for run in han_runs(text) for part in _parts(run)]
    rows = await connection.fetch(_KNOWN, [piece.text for piece in pieces])
    known = {row["word"] for row in rows}
    fit = [piece for piece in pieces if piece.is_han or len(piece.text) >= LENGTH_MIN]
    return [piece for piece in dict.fromkeys(fit) if piece.text not in known]


def _parts(run: str) -> Iterator[str]:
    """The words of a Han run; single characters side by side are what is left of a mistyped one."""
    single = ""
    for word in [*cut_coarse(run), ""]:
        if len(word) == 1:
            single += word
            continue
        if len(single) > 1:
            yield single
        single = ""
        if word:
            yield word


async def _better(connection: Connection, text: str, piece: Piece) -> str | None:
    """The text with the piece replaced by the word with which most is found."""
    words = await (_gapped if piece.is_han else _similar)(connection, piece.text)
    best: tuple[int, str] | None = None
    for word in words[:CANDIDATES_MAX]:
        changed = _replaced(text, piece, word)
        count = await _count(connection, read_wish(changed))
        if best is None or count > best[0]:
            best = count, changed
        if count and not piece.is_han:
            break  # They come by likeness: the first with which anything is found.
    return None if best is None else best[1]


async def _similar(connection: Connection, word: str) -> list[str]:
    """Known words by the number of typing errors between them, then by weight."""
    rows = await connection.fetch(_SIMILAR, word, SIMILAR_MAX)
    near = [(errors_between(word, row["word"]), -row["weight"], row["word"]) for row in rows]
    return [known for errors, _, known in sorted(near) if errors <= ERRORS_MAX]


async def _gapped(connection: Connection, word: str) -> list[str]:
    """Known Han words of the same length with one other character."""
    rows = await connection.fetch(_GAPPED, gaps_of(word), SIMILAR_MAX)
    return [row["word"] for row in rows]


async def _count(connection: Connection, wish: Wish) -> int:
    return int(await connection.fetchval(_COUNT, wish.other, wish.han, MATCHES_MAX))


def _replaced(text: str, piece: Piece, word: str) -> str:
    if piece.is_han:
        return text.replace(piece.text, word)
    return re.sub(rf"(?<!\w){re.escape(piece.text)}(?!\w)", word, text)


def errors_between(a: str, b: str) -> int:
    """Letters left out, put in, changed, or two swapped (optimal string alignment distance)."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, start=1):
        before, last, row = row, before, [i]
        for j, other in enumerate(b, start=1):
            cost = min(before[j] + 1, row[-1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]
