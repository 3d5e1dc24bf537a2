"""Writes words as Postgres reads them: texts of `tsvector` and of `tsquery`, quoted.

Han words are lexemes as they are. All others are left as text, which Postgres stems.
"""

from collections.abc import Iterable
from typing import Final

LEXEME_LENGTH_MAX: Final = 128  # Characters; Postgres refuses lexemes of 2 kB.
POSITION_MAX: Final = 16383  # Of Postgres.


def quoted(word: str) -> str:
    escaped = word[:LEXEME_LENGTH_MAX].replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


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
    at = range(1, POSITION_MAX)
    return " ".join(
        f"{quoted(word)}:{n}{weight}"
        for n, (word, weight) in zip(at, weights.items(), strict=False)
    )


def all_of(words: Iterable[str]) -> str:
    return " & ".join(map(quoted, words))


def any_of(words: Iterable[str]) -> str:
    return " | ".join(map(quoted, words))
