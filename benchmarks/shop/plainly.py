"""Search beside what one would write first: ILIKE, trigrams, and a tsvector without segmentation.

    python -m benchmarks.shop.plainly [PRODUCTS]

All on the same catalogue and the same Postgres, statement by statement: how long each takes (p50 of
several), and how many products it finds. Each gives the newest page and a count, and no more.
"""

import asyncio
import json
import sys
from datetime import UTC, datetime
from typing import Any, Final

from api.catalogue.offers import BASE_CURRENCY
from api.search.bodies import ProductsQuery
from api.search.filters import Price
from api.search.finder import Finder
from api.search.query import read_wish
from api.search.shown import bands_of
from api.search.statement import Search
from benchmarks import rig
from benchmarks.figures import Figure
from benchmarks.shop.goods import index_all, put_up
from benchmarks.shop.load import percentiles, timed
from engine.store.database import Connection, Pool, open_pool

ROUNDS: Final = 7
WORDS: Final = ("手机", "蓝牙耳机", "headphones", "coffee")
SECONDS_MAX: Final = 120.0

# $1 is the word. Names and descriptions in both languages, as one text.
_TEXT: Final = "(name::text || ' ' || description::text)"
_PAGE: Final = """
    WITH found AS MATERIALIZED (SELECT product_id, created_at FROM products WHERE {matches})
    SELECT (SELECT count(*) FROM found),
           ARRAY(SELECT product_id FROM found ORDER BY created_at DESC LIMIT 24)"""
WAYS: Final = {
    "ILIKE": f"{_TEXT} ILIKE '%' || $1 || '%'",
    "tsvector, not segmented": "plain_words @@ plainto_tsquery('simple', $1)",
}
_NOT_SEGMENTED: Final = f"""
    ALTER TABLE products ADD plain_words tsvector
        GENERATED ALWAYS AS (to_tsvector('simple', {_TEXT})) STORED"""


async def measure(url: str) -> dict[str, Any]:
    """Adds indexes to a filled catalogue, and asks."""
    async with await open_pool(url, 2) as pool, pool.acquire() as connection:
        await connection.execute(_NOT_SEGMENTED, timeout=SECONDS_MAX)
        await connection.execute(
            "CREATE INDEX ON products USING gin (plain_words)", timeout=SECONDS_MAX
        )
        await connection.execute("ANALYZE products")
        found = {word: await _beside(pool, connection, word) for word in WORDS}
        await connection.execute(
            f"CREATE INDEX ON products USING gin ({_TEXT} gin_trgm_ops)", timeout=SECONDS_MAX
        )
        for word, ways in found.items():
            ways["ILIKE with pg_trgm"] = await _plain(connection, WAYS["ILIKE"], word)
    return {"words": found, "figures": [figure.as_dict() for figure in _figures(found)]}


async def _beside(pool: Pool, connection: Connection, word: str) -> dict[str, Any]:
    ways = {name: await _plain(connection, matches, word) for name, matches in WAYS.items()}
    return {"ours": await _ours(Finder(pool), word)} | ways


async def _plain(connection: Connection, matches: str, word: str) -> dict[str, Any]:
    text = _PAGE.format(matches=matches)
    count, _ = await connection.fetchrow(text, word)
    times = await timed([lambda: connection.fetchrow(text, word)] * ROUNDS)
    return {"found": count, "p50_ms": percentiles(times)["p50_ms"]}


async def _ours(finder: Finder, word: str) -> dict[str, Any]:
    search = Search(
        ProductsQuery(q=word), read_wish(word), Price(BASE_CURRENCY, BASE_CURRENCY),
        bands_of(BASE_CURRENCY), datetime.now(UTC),
    )  # fmt: skip
    found = await finder.find(search)
    times = await timed([lambda: finder.find(search)] * ROUNDS)
    return {"found": found.total, "p50_ms": percentiles(times)["p50_ms"]}


def _figures(found: dict[str, Any]) -> list[Figure]:
    """Each way by the words it is slowest with, and what it misses."""
    figures = []
    for way in next(iter(found.values())):
        if way == "ours":
            continue
        word = max(
            found, key=lambda word: found[word][way]["p50_ms"] / found[word]["ours"]["p50_ms"]
        )
        ours, theirs = found[word]["ours"], found[word][way]
        ratio = f"{theirs['p50_ms'] / ours['p50_ms']:.1f} × ours; finds {theirs['found']:,}"
        figures.append(Figure(f"{way}: {word}", theirs["p50_ms"], "ms", ratio=ratio))
    return figures


async def _run(products: int) -> dict[str, Any]:
    with rig.postgres() as server:
        await put_up(server.url, products)
        await index_all(server.url)
        return await measure(server.url)


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    print(json.dumps(asyncio.run(_run(count)), indent=1, ensure_ascii=False))
