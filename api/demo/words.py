"""The words and figures the demo catalogue is composed of, from catalogue.json. Composes nothing."""

from functools import cache
from importlib.resources import files
from typing import NamedTuple, Self

import msgspec

from api.catalogue.document import Product, Value


class Words(NamedTuple):
    """The same in both languages."""

    en: str
    zh: str

    @classmethod
    @cache
    def of(cls, text: str) -> Self:
        """From `non-stick|不粘`; what has no bar is the same in both."""
        en, bar, zh = text.partition("|")
        return cls(en, zh if bar else en)

    def value(self) -> Value:
        return self.en if self.en == self.zh else {"en": self.en, "zh-CN": self.zh}


class Choice(NamedTuple):
    """One value of an option, and how many times the lowest price it costs."""

    words: Words
    factor: float


class Kind(msgspec.Struct, frozen=True):
    """One sort of goods, a category of its own. Prices in yuan."""

    category_id: str
    name: str
    nouns: list[str]
    traits: list[str]
    points: list[str]
    options: list[str]
    attributes: dict[str, list[str]]
    price: tuple[int, int]
    grams: tuple[int, int]


class Group(msgspec.Struct, frozen=True):
    """A category of the first level, and what its kinds share."""

    category_id: str
    name: str
    name_form: tuple[str, str]
    brands: list[str]
    points: list[str]
    attributes: dict[str, list[str]]
    kinds: list[Kind]
    models: list[str] = []
    openings: list[str] = []


class Vocabulary(msgspec.Struct, frozen=True):
    """All of it."""

    openings: list[str]
    suffixes: list[str]
    options: dict[str, dict[str, list[str]]]
    groups: list[Group]


@cache
def vocabulary() -> Vocabulary:
    return msgspec.json.decode(_read("catalogue.json"), type=Vocabulary)


@cache
def choices(option: str) -> tuple[str, list[Choice]]:
    """Of `colour:tech`: the option's key, and what there is to choose from."""
    key, _, pool = option.partition(":")
    return key, [_choice(text) for text in vocabulary().options[key][pool]]


@cache
def shown_products() -> tuple[Product, ...]:
    """Those whose SKUs the demo sale offers."""
    return msgspec.json.decode(_read("shown.json"), type=tuple[Product, ...])


def _choice(text: str) -> Choice:
    parts = text.split("|")
    return Choice(Words(*parts[:2]), float(parts[2]) if len(parts) > 2 else 1.0)


def _read(name: str) -> bytes:
    return files("api.demo").joinpath(name).read_bytes()
