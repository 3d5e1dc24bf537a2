"""Turns a product, as the catalogue has it, into what is written about it in the index.

Pure. Leaves storing to `index`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Final, NamedTuple

from api.search.lexemes import in_category, of_brand, vector_text
from api.search.words import (
    CUTS_MAX,
    Cut,
    cut_coarse,
    cut_name,
    cut_text,
    fold,
    gaps_of,
    han_runs,
    pairs_of,
)

TEXTS_MAX: Final = 200  # Of options and attributes: nobody reads more.
WORD_LENGTH_MIN, WORD_LENGTH_MAX = 2, 24  # Of one that a typing error may have meant.
START_LENGTH_MAX: Final = 80  # Of a name, as a beginning is looked for.

_NO_WORDS: Final = Cut((), ())


class Source(NamedTuple):
    """A product's texts."""

    product_id: str
    brand: str
    names: Mapping[str, str]
    descriptions: Mapping[str, str]
    path: list[str]
    categories: list[Mapping[str, str]]  # from the root; the last is its own
    details: list[Any]  # options and attributes, however deep


class Document(NamedTuple):
    """The row's texts. `heads`, `names`, `rest` are for Postgres to stem; the vectors are its own."""

    product_id: str
    heads: str
    brand: str
    names: str
    rest: str
    han_title: str
    han_words: str


class Phrase(NamedTuple):
    """A beginning by which a product's name is suggested."""

    product_id: str
    start: str
    name: str


def document_of(source: Source) -> Document:
    """The words by weight: A what it is, B brand, C names and categories, D all the rest."""
    names = merged(map(cut_name, source.names.values()))
    own = merged(map(cut_name, source.categories[-1].values() if source.categories else ()))
    above = merged(cut_text(name) for each in source.categories[:-1] for name in each.values())
    brand = cut_text(source.brand)
    # SKUs repeat each other's options.
    rest = merged(
        map(cut_text, [*source.descriptions.values(), *dict.fromkeys(_texts(source.details))])
    )
    title = [
        ("A", [*own.han_heads, *names.han_heads]),
        ("B", brand.han),
        ("C", [*own.han, *names.han]),
    ]
    grams = _grams([*source.names.values(), source.brand, *category_names(source)])
    filters = [of_brand(source.brand), *map(in_category, source.path)]
    return Document(
        source.product_id,
        _line([*own.other_heads, *names.other_heads]),
        _line(brand.other),
        _line([*names.other, *own.other], once=False),  # as they stand there, for phrases
        _line([*above.other, *rest.other], once=False),
        vector_text(title),
        vector_text([*title, ("C", above.han), ("D", [*filters, *rest.han, *grams])]),
    )


def merged(cuts: Iterable[Cut]) -> Cut:
    fields = zip(*[_NO_WORDS, *cuts], strict=True)
    return Cut(*(tuple(chain.from_iterable(field)) for field in fields))


def category_names(source: Source) -> Iterable[str]:
    return (name for each in source.categories for name in each.values())


def words_of(source: Source) -> dict[str, int]:
    """What a mistyped word may have meant, with its weight: 3 what it is, 2 brand, 1 else."""
    weights: dict[str, int] = {}
    named = [*source.names.values(), *category_names(source)]
    cuts = [cut_name(name) for name in named]
    brand = cut_text(source.brand)
    for weight, words in (
        (3, [word for cut in cuts for word in (*cut.han_heads, *cut.other_heads)]),
        (2, [*brand.han, *brand.other]),
        (1, [word for cut in cuts for word in cut.other]),
        (1, [word for name in named for run in han_runs(fold(name)) for word in cut_coarse(run)]),
    ):
        for word in words:
            if WORD_LENGTH_MIN <= len(word) <= WORD_LENGTH_MAX and word.isalpha():
                weights.setdefault(word, weight)
    return weights


def phrases_of(source: Source) -> Iterator[Phrase]:
    """Each name by its beginning, and by what follows the brand there."""
    brand = fold(source.brand)
    for name in dict.fromkeys(source.names.values()):
        start = fold(name)
        yield Phrase(source.product_id, start[:START_LENGTH_MAX], name)
        after = start.removeprefix(brand).strip()
        if brand and after and after != start:
            yield Phrase(source.product_id, after[:START_LENGTH_MAX], name)


def brands_of(sources: Iterable[Source]) -> list[tuple[str, str]]:
    """Each brand once, by its beginning."""
    brands = {source.brand for source in sources if source.brand}
    return [(fold(brand)[:START_LENGTH_MAX], brand) for brand in sorted(brands)]


def gaps_text(word: str) -> str:
    """The gaps of a Han word, by spaces; none of others, which trigrams find."""
    return " ".join(gaps_of(word)) if han_runs(word) else ""


def _grams(texts: Iterable[str]) -> list[str]:
    return [gram for text in texts for gram in _grams_of(text)]


@lru_cache(maxsize=CUTS_MAX)  # Brands and categories come again and again.
def _grams_of(text: str) -> list[str]:
    """Each Han character, and each two side by side."""
    return [gram for run in han_runs(fold(text)) for gram in (*run, *pairs_of(run))]


def _texts(values: Iterable[Any]) -> list[str]:
    """All texts in options and attributes, whatever their shape."""
    found: list[str] = []
    waiting = list(values)
    while waiting and len(found) < TEXTS_MAX:
        match waiting.pop():
            case str() as text:
                found.append(text)
            case dict() as named:
                waiting.extend(named.values())
                found.extend(key for key in named if key not in {"en", "zh-CN"})
            case list() as several:
                waiting.extend(several)
            case None:
                continue
            case other:
                found.append(str(other))
    return found


def _line(words: Sequence[str], *, once: bool = True) -> str:
    return " ".join(dict.fromkeys(words) if once else words)
