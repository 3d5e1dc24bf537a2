"""Runs searches in Postgres, within the time that a visitor may cost.

Knows neither HTTP nor how an answer is written; `statement` says what is asked.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from importlib.resources import files
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import asyncpg

from api.search.correction import correct
from api.search.filters import BRAND, CATEGORY, PRICE
from api.search.query import read_wish
from api.search.relaxing import relax
from api.search.statement import Search, statement
from engine.errors import DoorbusterError
from engine.store.database import Connection, Pool, postgres_errors

SEARCHES_MAX: Final = 5  # At once over one pool: the rest of its connections is for who buys.
PLACE_SECONDS_MAX: Final = 0.5  # That a search waits for one of these places.
SEARCH_MS_MAX: Final = 1000  # Fifty times the promise: who waits longer has left.

# Each plan is made for its words: how common they are decides it. The planner does not know what
# it costs to fetch each row's words, which reading the whole table does. No statement here is worth a
# compiler, none sorts more than fits.
_SETTINGS: Final = f"""
    SET LOCAL statement_timeout = {SEARCH_MS_MAX}; SET LOCAL plan_cache_mode = force_custom_plan;
    SET LOCAL jit = off; SET LOCAL work_mem = '16MB'; SET LOCAL max_parallel_workers_per_gather = 0;
    SET LOCAL random_page_cost = 1.1;
    SET LOCAL enable_seqscan = off;    SET LOCAL pg_trgm.similarity_threshold = 0.2
"""
# What is shown is planned once: how it is read does not depend on which products they are.
_ONE_PLAN: Final = "SET LOCAL plan_cache_mode = force_generic_plan"
_SHOWN: Final = files("api.search").joinpath("shown.sql").read_text("utf-8")
_PATH: Final = "SELECT path FROM categories WHERE category_id = $1"
_NAMES: Final = "SELECT category_id, name FROM categories WHERE category_id = ANY($1::text[])"
_RATE: Final = """
    SELECT rate FROM exchange_rates WHERE base = $1 AND quote = $2 AND valid_on <= $3
    ORDER BY valid_on DESC LIMIT 1"""

# Of each pool, as long as it is there.
_places: Final[WeakKeyDictionary[Pool, asyncio.Semaphore]] = WeakKeyDictionary()


class SearchTooDear(DoorbusterError):
    """The search took longer than any may, and was stopped; or it found no place."""


class Instead(NamedTuple):
    """What was searched where nothing was found for what was asked."""

    corrected: str | None = None  # the query with its typing errors put right
    left_out: tuple[str, ...] = ()


_AS_ASKED: Final = Instead()


@dataclass(frozen=True)
class Found:
    """A page of matches as rows, and what is known of all of them."""

    search: Search  # as it was made in the end
    rows: list[Any] = field(default_factory=list)
    last_id: str = ""
    last_value: Any = None  # of the last row shown, in the order asked for
    has_more: bool = False
    total: int = 0
    instead: Instead = _AS_ASKED
    facets: dict[str, list[Any]] = field(default_factory=dict)
    facets_are_least: bool = False
    category_names: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def total_is_least(self) -> bool:
        return self.total > self.search.most


class Finder:
    """Searches over one pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find(self, search: Search) -> Found:
        """Raises SearchTooDear, StoreUnavailable."""
        async with bounded(self._pool) as connection:
            if (ready := await _prepared(connection, search)) is None:
                return Found(search)
            return await _find(connection, ready)


@asynccontextmanager
async def bounded(pool: Pool) -> AsyncIterator[Connection]:
    """A connection that reads, and whose statements end in time. Raises SearchTooDear."""
    with postgres_errors():
        try:
            async with (
                _place(pool),
                pool.acquire() as connection,
                connection.transaction(readonly=True),
            ):
                await connection.execute(_SETTINGS)
                yield connection
        except asyncpg.QueryCanceledError as error:
            raise SearchTooDear("The search took too long: ask for something narrower.") from error


@asynccontextmanager
async def _place(pool: Pool) -> AsyncIterator[None]:
    places = _places.setdefault(pool, asyncio.Semaphore(SEARCHES_MAX))
    try:
        async with asyncio.timeout(PLACE_SECONDS_MAX):
            await places.acquire()
    except TimeoutError as error:
        raise SearchTooDear("Too many searches at once.") from error
    try:
        yield
    finally:
        places.release()


async def _prepared(connection: Connection, search: Search) -> Search | None:
    """With what the database knows about the filters; None if there is no such category."""
    price = search.price
    if price.currency != price.base:
        rate = await connection.fetchval(_RATE, price.base, price.currency, _day(search.now))
        search = replace(search, price=replace(price, rate=rate))
    if search.query.category is None:
        return search
    path = await connection.fetchval(_PATH, search.query.category)
    return None if path is None else replace(search, depth=len(path))


def _day(now: datetime) -> date:
    return now.astimezone(UTC).date()


async def _find(connection: Connection, search: Search) -> Found:
    row, instead = await _look(connection, search), _AS_ASKED
    if not row["total"] and search.wish.is_ranking:
        row, instead = await _look_further(connection, search, row)
    limit = search.query.limit
    ids, keys = row["products"][:limit], row["keys"][:limit]
    names = (CATEGORY, BRAND, PRICE) if search.query.facets else ()
    facets = {name: row[name] for name in names}
    return Found(
        search=search,
        last_id=ids[-1] if ids else "",
        rows=await _shown(connection, ids, search.now),
        last_value=keys[-1] if keys else None,
        has_more=len(row["products"]) > limit,
        total=row["total"],
        instead=instead,
        facets=facets,
        facets_are_least=any(row.get(f"of_{name}", row["total"]) > search.most for name in names),
        category_names=await _names(connection, facets),
    )


async def _look_further(connection: Connection, search: Search, row: Any) -> tuple[Any, Instead]:
    """What is found with typing errors put right, then with words left out; `row` if nothing is."""
    corrected = await correct(connection, text := search.query.q or "")
    if corrected is not None:
        better = await _look(connection, replace(search, wish=read_wish(corrected)))
        if better["total"]:
            return better, Instead(corrected)
    relaxed = await relax(connection, corrected or text)
    if relaxed is not None:
        better = await _look(connection, replace(search, wish=read_wish(relaxed.text)))
        if better["total"]:
            return better, Instead(corrected, tuple(relaxed.left_out))
    return row, _AS_ASKED


async def _look(connection: Connection, search: Search) -> Any:
    text, values = statement(search)
    return await connection.fetchrow(text, *values)


async def _shown(connection: Connection, ids: list[str], now: datetime) -> list[Any]:
    if not ids:
        return []
    await connection.execute(_ONE_PLAN)
    rows = {row["product_id"]: row for row in await connection.fetch(_SHOWN, ids, now)}
    return [rows[each] for each in ids if each in rows]


async def _names(connection: Connection, facets: dict[str, list[Any]]) -> dict[str, dict[str, str]]:
    ids = [category_id for category_id, _ in facets.get("category", ())]
    if not ids:
        return {}
    return {row["category_id"]: row["name"] for row in await connection.fetch(_NAMES, ids)}
