"""Composes the demo catalogue: products that read like a shop's, the same for the same seed.

Pure: the words come from catalogue.json; storing is the catalogue's business.
"""

import math
from collections.abc import Iterator
from functools import cache
from itertools import islice, product
from random import Random
from typing import Final, NamedTuple

from api.catalogue.document import Language, Price, Product, Sku, Value
from api.demo.words import Choice, Group, Kind, Words, choices, shown_products, vocabulary

DEMO_PRODUCTS: Final = 2100
DEMO_SEED: Final = 11  # Singles' Day.
YUAN_PER_DOLLAR: Final = 7.12
COLOURS_MAX: Final = 3  # Of one product: shops show a few.
SIZES_MAX: Final = 4
UNITS_MAX: Final = 400
SOLD_OUT_SHARE: Final = 0.04  # A shop where everything is in stock is no shop.
FIRST_NUMBER: Final = 1001

# 1 yuan in other money, roughly as in 2026: data for a demo, not advice.
RATES: Final = {"USD": "0.1404", "EUR": "0.1206", "GBP": "0.1042", "JPY": "21.35", "HKD": "1.0925"}


class DemoCategory(NamedTuple):
    """A category of the demo tree."""

    category_id: str
    parent_id: str | None
    position: int
    name: dict[Language, str]


def categories() -> Iterator[DemoCategory]:
    """The tree, parents first."""
    for position, group in enumerate(vocabulary().groups):
        yield DemoCategory(group.category_id, None, position, _names(Words.of(group.name)))
        for place, kind in enumerate(group.kinds):
            names = _names(Words.of(kind.name))
            yield DemoCategory(kind.category_id, group.category_id, place, names)


def products(count: int, seed: int) -> Iterator[Product]:
    """`count` products, those of the demo sale first. Number n is the same whatever the count."""
    yield from islice(shown_products(), count)
    kinds = [(group, kind) for group in vocabulary().groups for kind in group.kinds]
    for number in range(count - len(shown_products())):
        turn, place = divmod(number, len(kinds))
        yield _Composer(*kinds[place], number, turn, Random(f"{seed}/{number}")).product()  # noqa: S311


def units_of(sku: str, seed: int) -> int:
    """How many units of an ordinary SKU the demo shop has."""
    dice = Random(f"{seed}/{sku}")  # noqa: S311
    return 0 if dice.random() < SOLD_OUT_SHARE else dice.randint(1, UNITS_MAX)


class _Composer:
    """One product in the making."""

    def __init__(self, group: Group, kind: Kind, number: int, turn: int, dice: Random) -> None:
        """`turn`: how many of this kind there are already; no two of them have the same name."""
        self._group = group
        self._kind = kind
        self._dice = dice
        models = group.models or ["|"]
        suffixes = vocabulary().suffixes if group.models else ["|"]
        lists = [group.brands, kind.traits, kind.nouns, models, suffixes]
        self._edition, place = divmod(turn, math.prod(map(len, lists)))
        picks = [Words.of(text) for text in _pick_apart(place, lists)]
        self._brand, self._trait, self._noun, self._model, self._suffix = picks
        slug = f"{self._brand.en} {self._noun.en}".lower()
        letters = "".join(c if c.isascii() and c.isalnum() else "-" for c in slug.replace("'", ""))
        words = [word for word in letters.split("-") if word]
        self._product_id = f"{'-'.join(words)[:50].rstrip('-')}-{FIRST_NUMBER + number}"

    def product(self) -> Product:
        return Product(
            product_id=self._product_id,
            category_id=self._kind.category_id,
            brand=self._brand.en,
            name=_names(self._name()),
            description=_names(self._description()),
            images=self._images(),
            attributes=self._attributes(),
            skus=tuple(self._skus()),
        )

    def _name(self) -> Words:
        generation = self._dice.randint(2, 9) if not self._edition else 9 + self._edition
        model = Words(*(f"{self._model[i]} {generation}{self._suffix[i]}" for i in (0, 1)))
        en, zh = (
            form.format(
                brand=self._brand[i], model=model[i], trait=self._trait[i], noun=self._noun[i]
            )
            for i, form in enumerate(self._group.name_form)
        )
        if self._group.models or not self._edition:
            return Words(en, zh)
        return Words(f"{en}, edition {self._edition + 1}", f"{zh} 第{self._edition + 1}版")

    def _description(self) -> Words:
        openings = self._group.openings or vocabulary().openings
        opening = Words.of(self._dice.choice(openings))
        points = [*self._dice.sample(self._kind.points, 2), self._dice.choice(self._group.points)]
        told = [Words.of(point) for point in points]
        filled = [
            text.format(
                brand=self._brand[i],
                trait=self._trait[i],
                noun=self._noun[i],
                Noun=self._noun[i][:1].upper() + self._noun[i][1:],
            )
            for i, text in enumerate(opening)
        ]
        en = " ".join([filled[0], *(point.en for point in told)])
        return Words(en, "".join([filled[1], *(point.zh for point in told)]))

    def _images(self) -> tuple[str, ...]:
        return tuple(
            f"https://images.example/{self._product_id}/{n + 1}.jpg"
            for n in range(self._dice.randint(1, 4))
        )

    def _attributes(self) -> dict[str, Value]:
        known = self._group.attributes | self._kind.attributes
        return {key: Words.of(self._dice.choice(values)).value() for key, values in known.items()}

    def _skus(self) -> Iterator[Sku]:
        options = [choices(option) for option in self._kind.options]
        offered = [self._offered(key, known) for key, known in options]
        low, high = self._kind.price
        yuan = low * (high / low) ** self._dice.random()  # As many below the middle as above.
        grams = self._dice.randint(*self._kind.grams)
        for place, chosen in enumerate(product(*offered)):
            factor = math.prod(choice.factor for choice in chosen)
            yield Sku(
                sku=f"{self._product_id}-{place + 1:02d}",
                options={
                    key: choice.words.value()
                    for (key, _), choice in zip(options, chosen, strict=True)
                },
                weight_grams=grams,
                prices=_prices(yuan * factor),
            )

    def _offered(self, key: str, known: list[Choice]) -> list[Choice]:
        """The colours that this one comes in; of sizes those next to each other."""
        if key == "colour":
            count = min(self._dice.randint(2, COLOURS_MAX), len(known))
            return sorted(self._dice.sample(known, count), key=known.index)
        start = self._dice.randint(0, max(0, len(known) - SIZES_MAX))
        return known[start : start + SIZES_MAX]


def _pick_apart(place: int, lists: list[list[str]]) -> Iterator[str]:
    """One of each list: another combination for every place, and far from its neighbours'."""
    total = math.prod(map(len, lists))
    place = place * _stride(total) % total
    for words in lists:
        place, index = divmod(place, len(words))
        yield words[index]


@cache
def _stride(total: int) -> int:
    """Near the golden section of it, and without a common divisor: it comes to every place once."""
    step = round(total * 0.618)
    while math.gcd(step, total) != 1:
        step += 1
    return step


def _prices(yuan: float) -> tuple[Price, ...]:
    return (
        Price(_cny_ending(yuan), "CNY"),
        Price(_usd_ending(yuan / YUAN_PER_DOLLAR), "USD"),
    )


def _cny_ending(yuan: float) -> int:
    """In fen, as Chinese shops end prices: 4,299, 349, 29.9."""
    if yuan >= 1000:
        return (max(round(yuan / 100), 10) * 100 - 1) * 100
    if yuan >= 100:
        return (max(round(yuan / 10), 10) * 10 - 1) * 100
    return max(round(yuan), 5) * 100 - 10


def _usd_ending(dollars: float) -> int:
    """In cents: 599.00, 34.99."""
    if dollars >= 100:
        return (max(round(dollars / 10), 10) * 10 - 1) * 100
    return max(round(dollars), 2) * 100 - 1


def _names(words: Words) -> dict[Language, str]:
    return {"en": words.en, "zh-CN": words.zh}
