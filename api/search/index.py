"""Keeps the index in step with the catalogue: called in the transaction of every change.

What changes too often for that, stock and ratings, is brought up by `freshness`.
"""

from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, Final

from api.catalogue.offers import BASE_CURRENCY
from api.search.documents import (
    Document,
    Phrase,
    Source,
    brands_of,
    document_of,
    gaps_text,
    phrases_of,
    words_of,
)
from engine.store.database import Connection, Pool, postgres_errors

BATCH_MAX: Final = 500  # Products per statement: some MB of texts.

_SOURCE: Final = files("api.search").joinpath("source.sql").read_text()
_WRITE: Final = files("api.search").joinpath("write.sql").read_text()
_LOCK: Final = (
    "SELECT product_id FROM product_search WHERE product_id = ANY($1) ORDER BY 1 FOR UPDATE"
)
_GONE: Final = "DELETE FROM product_search WHERE product_id = ANY($1)"
_FORGET_NAMES: Final = "DELETE FROM search_names WHERE product_id = ANY($1)"
_WRITE_NAMES: Final = (
    "INSERT INTO search_names SELECT * FROM unnest($1::text[], $2::text[], $3::text[])"
)
# A new product's stock may change while its row is not to be seen yet: it is looked at once more.
_LOOK_AGAIN: Final = "INSERT INTO search_stale SELECT unnest($1::text[])"
_WRITE_WORDS: Final = """
    INSERT INTO search_words
    SELECT word, weight, string_to_array(gaps, ' ')
    FROM unnest($1::text[], $2::smallint[], $3::text[]) AS given (word, weight, gaps)
    WHERE NOT EXISTS (SELECT FROM search_words AS known
                      WHERE known.word = given.word AND known.weight >= given.weight)
"""
_WRITE_BRANDS: Final = """
    INSERT INTO search_brands
    SELECT start, brand FROM unnest($1::text[], $2::text[]) AS given (start, brand)
    WHERE NOT EXISTS (SELECT FROM search_brands AS known
                      WHERE known.start = given.start AND known.brand = given.brand)
"""
# In no order: what is counted of many matches, the first that are met, is then of all kinds.
_ALL_IDS: Final = "SELECT product_id FROM products ORDER BY hashtext(product_id), product_id"


async def index_products(connection: Connection, product_ids: Sequence[str]) -> None:
    """Brings the index up to these products as the transaction has left them, gone ones included.

    Call it last in the transaction: the rows stay locked until its end. Buyers never wait for them.
    """
    ids = sorted(set(product_ids))
    for at in range(0, len(ids), BATCH_MAX):
        await _index(connection, ids[at : at + BATCH_MAX])


async def _index(connection: Connection, product_ids: list[str]) -> None:
    # Locked before stock is looked at, so that who looks later also writes later.
    known = {row["product_id"] for row in await connection.fetch(_LOCK, product_ids)}
    sources = [_source(row) for row in await connection.fetch(_SOURCE, product_ids)]
    active = {source.product_id for source in sources}
    if gone := list(known - active):
        await connection.execute(_GONE, gone)
    if sources:
        await _write(connection, sources)
    if new := list(active - known):
        await connection.execute(_LOOK_AGAIN, new)


async def _write(connection: Connection, sources: list[Source]) -> None:
    documents = [document_of(source) for source in sources]
    columns = _columns(documents, len(Document._fields))
    await connection.execute(_WRITE, *columns, BASE_CURRENCY)
    ids = [source.product_id for source in sources]
    phrases = [phrase for source in sources for phrase in phrases_of(source)]
    await connection.execute(_FORGET_NAMES, ids)
    await connection.execute(_WRITE_NAMES, *_columns(phrases, len(Phrase._fields)))
    await connection.execute(_WRITE_BRANDS, *_columns(brands_of(sources), 2))
    await _write_words(connection, sources)


async def _write_words(connection: Connection, sources: list[Source]) -> None:
    words: dict[str, int] = {}
    for source in sources:
        for word, weight in words_of(source).items():
            words[word] = max(weight, words.get(word, 0))
    gaps = [gaps_text(word) for word in words]
    await connection.execute(_WRITE_WORDS, list(words), list(words.values()), gaps)


async def reindex(pool: Pool, progress: Callable[[int], None]) -> int:
    """Writes the whole index anew, a batch per transaction; searches go on meanwhile.

    `progress` is told how many are done. Returns how many products there were.
    """
    with postgres_errors():
        ids = [row["product_id"] for row in await pool.fetch(_ALL_IDS)]
        for at in range(0, len(ids), BATCH_MAX):
            async with pool.acquire() as connection, connection.transaction():
                await index_products(connection, ids[at : at + BATCH_MAX])
            progress(min(at + BATCH_MAX, len(ids)))
    return len(ids)


def _source(row: Any) -> Source:
    details = [row["attributes"], *row["options"]]
    return Source(
        row["product_id"],
        row["brand"],
        row["name"],
        row["description"],
        row["path"],
        row["categories"],
        details,
    )


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Rows as columns, so many even if there is no row."""
    return [[row[at] for row in rows] for at in range(width)]
