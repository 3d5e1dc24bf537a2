"""What visitors of a shop look for, by kind: made from the catalogue's own names and a seed."""

from collections.abc import Iterator
from random import Random
from urllib.parse import urlencode

from api.search.words import cut_coarse, han_runs
from engine.store.database import Connection

Params = list[tuple[str, str]]


class Vocabulary:
    """Names that are in the catalogue."""

    def __init__(self, names: list[dict[str, str]], brands: list[str], kinds: list[dict[str, str]]):
        self.names, self.brands, self.kinds = names, brands, kinds

    @classmethod
    async def of(cls, connection: Connection) -> "Vocabulary":
        names = await connection.fetch("SELECT name FROM products TABLESAMPLE SYSTEM (1) LIMIT 500")
        brands = await connection.fetch("SELECT DISTINCT brand FROM product_search ORDER BY 1")
        kinds = await connection.fetch(
            "SELECT name, category_id FROM categories WHERE cardinality(path) > 1 ORDER BY 2"
        )
        return cls(
            [row["name"] for row in names],
            [row["brand"] for row in brands],
            [row["name"] | {"id": row["category_id"]} for row in kinds],
        )


def queries(words: Vocabulary, each: int, dice: Random) -> dict[str, list[str]]:
    """So many paths of each kind."""
    makers = {
        "frequent word": _frequent,
        "frequent word, facets": lambda w, d: [*_frequent(w, d), ("facets", "true")],
        "rare words": _rare,
        "brand and kind": _two,
        "mistyped": _mistyped,
        "filters and facets": _filtered,
        "word by price": lambda w, d: [*_frequent(w, d), ("sort", "price_asc")],
        "category page, facets": _category,
    }
    found = {
        name: [f"/v1/products?{urlencode(make(words, dice))}" for _ in range(each)]
        for name, make in makers.items()
    }
    typed = [f"/v1/suggestions?{urlencode([('q', q)])}" for q in _typed(words, each, dice)]
    return found | {"suggestions": typed}


def _frequent(words: Vocabulary, dice: Random) -> Params:
    """A kind of thing, in either language; and what half of all descriptions mention."""
    if dice.random() < 0.3:
        return [("q", dice.choice(["手机", "黑色", "家用", "phone", "black", "home"]))]
    return [("q", dice.choice(words.kinds)[dice.choice(("zh-CN", "en"))])]


def _rare(words: Vocabulary, dice: Random) -> Params:
    """Three words of one product's name."""
    name = dice.choice(words.names)
    if dice.random() < 0.5:
        parts = [word for run in han_runs(name["zh-CN"]) for word in cut_coarse(run)]
    else:
        parts = name["en"].replace(",", "").split()
    return [("q", " ".join(dice.sample(parts, min(3, len(parts)))))]


def _two(words: Vocabulary, dice: Random) -> Params:
    return [("q", f"{dice.choice(words.brands)} {dice.choice(words.kinds)['en']}")]


def _mistyped(words: Vocabulary, dice: Random) -> Params:
    """A letter left out, or a character that is another's."""
    kind = dice.choice(words.kinds)
    if dice.random() < 0.5:
        text = kind["en"].lower().split()[0]
        at = dice.randrange(1, max(2, len(text) - 1))
        return [("q", text[:at] + text[at + 1 :])]
    text = kind["zh-CN"]
    at = dice.randrange(len(text))
    return [("q", text[:at] + dice.choice("几计己及级") + text[at + 1 :])]


def _filtered(words: Vocabulary, dice: Random) -> Params:
    low = dice.choice((10_000, 50_000, 100_000))
    return [
        *_frequent(words, dice),
        ("brand", dice.choice(words.brands)),
        ("price_min", str(low)),
        ("price_max", str(low * 10)),
        ("in_stock", "true"),
        ("facets", "true"),
    ]


def _category(words: Vocabulary, dice: Random) -> Params:
    sort = dice.choice(("newest", "price_asc", "price_desc", "rating"))
    return [("category", dice.choice(words.kinds)["id"]), ("sort", sort), ("facets", "true")]


def _typed(words: Vocabulary, each: int, dice: Random) -> Iterator[str]:
    for _ in range(each):
        text = dice.choice((dice.choice(words.names)["en"], dice.choice(words.kinds)["zh-CN"]))
        yield text[: dice.randint(1, 8)].strip() or "a"
