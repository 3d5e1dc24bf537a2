"""Suggests how to go on typing: categories, brands, words and products that begin so."""

from importlib.resources import files
from typing import Any, Final

from api.search.bodies import SUGGESTIONS_MAX, Suggestion
from api.search.finder import bounded
from api.search.words import fold
from engine.store.database import Pool

START_LENGTH_MAX: Final = 40  # Who has typed more has chosen.
# How many of a kind, at most: products fill what is left.
SHARES: Final = {"category": 3, "brand": 2, "word": 4, "product": SUGGESTIONS_MAX}

_SUGGEST: Final = files("api.search").joinpath("suggest.sql").read_text("utf-8")
_LAST: Final = "\U0010ffff"  # Sorts behind whatever may follow.


async def suggest(pool: Pool, text: str, limit: int) -> list[Suggestion]:
    """The best first. Where nothing begins so, the last word is gone on with."""
    start = fold(text).strip()
    if not start or len(start) > START_LENGTH_MAX:
        return []
    async with bounded(pool) as connection:
        rows = await connection.fetch(_SUGGEST, start, start + _LAST, limit)
        if rows:
            return _best(rows, start, limit)
        before, _, last = start.rpartition(" ")
        if not before:
            return []
        rows = await connection.fetch(_SUGGEST, last, last + _LAST, limit)
    words = [row["value"] for row in rows if row["kind"] == "word"]
    return [Suggestion(f"{before} {word}", "word", None) for word in words[:limit]]


def _best(rows: list[Any], start: str, limit: int) -> list[Suggestion]:
    """Each text once; of each kind no more than its share, in the order of kinds."""
    left, seen = dict(SHARES), {start}
    chosen: list[Suggestion] = []
    for row in sorted(rows, key=lambda row: int(row["place"])):
        text, kind = row["text"], row["kind"]
        # A word that is all that was typed helps nobody; a category or a product of that name does.
        if left[kind] == 0 or (fold(text) in seen and (kind == "word" or fold(text) != start)):
            continue
        left[kind] -= 1
        seen.add(fold(text))
        chosen.append(Suggestion(text, kind, None if kind == "word" else row["value"]))
    return chosen[:limit]
