"""Writes words as Postgres reads them: texts of `tsvector` and of `tsquery`, quoted.

Han words are lexemes as they are. All others are left as text, which Postgres stems.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Final

LEXEME_LENGTH_MAX: Final = 128  # Characters; Postgres refuses lexemes of 2 kB.
POSITION_MAX: Final = 16383  # Of Postgres.


def quoted(word: str) -> str:
    word = word[:LEXEME_LENGTH_MAX]
    if "'" in word or "\\" in word:  # Hardly ever, and some sixty words are quoted per product.
        word = word.replace("\\", "\\\\").replace("'", "''")
    return f"'{word}'"


def in_category(category_id: str) -> str:
    """The lexeme of what is in a category or below it. No word has a `=` in it."""
    return f"in={category_id}"


def of_brand(brand: str) -> str:
    return f"brand={brand}"


def vector_text(words_by_weight: Iterable[tuple[str, Iterable[str]]]) -> str:
    """Each word once, with the first weight it is given."""
    weights: dict[str, str] = {}
    for weight, words in words_by_weight:
        for word in words:
            weights.setdefault(word, weight)
    placed = enumerate(islice(weights.items(), POSITION_MAX - 1), 1)
    return " ".join([f"{quoted(word)}:{n}{weight}" for n, (word, weight) in placed])


def all_of(words: Iterable[str]) -> str:
    return " & ".join(map(quoted, words))


def any_of(words: Iterable[str]) -> str:
    return " | ".join(map(quoted, words))
