"""Search at 200,000 products: latency by kind of query, over HTTP and in Postgres alone.

One visitor asks after the other: what is measured is what one of them waits.
"""

from random import Random
from typing import Any, Final

import aiohttp
from aiohttp.test_utils import make_mocked_request

from api.queries import read_query
from api.search.bodies import ProductsQuery
from api.search.finder import Finder
from api.search.handlers import search_of
from benchmarks.capacity.stand import Stand
from benchmarks.figures import Figure, at_most
from benchmarks.shop.load import percentiles, timed
from benchmarks.shop.queries import Vocabulary, queries
from engine.clock import SystemClock
from engine.store.database import open_pool

EACH: Final = 60  # Queries of a kind.
WARM: Final = 10  # Of them, before.
P95_MS_MAX: Final = 20.0
SEED: Final = 5


async def measure(under_test: Stand, products: int) -> dict[str, Any]:
    async with await open_pool(under_test.postgres_url, 2) as pool:
        async with pool.acquire() as connection:
            words = await Vocabulary.of(connection)
        asked = queries(words, EACH, Random(SEED))
        before = _cpu_seconds(under_test)
        over_http = await _over_http(under_test, asked)
        cpu_s = _cpu_seconds(under_test) - before
        in_postgres = await _in_postgres(Finder(pool), asked)
    found = {
        "products": products,
        "cpu_ms": cpu_s / (len(asked) * (EACH + WARM)) * 1000,
        "http": {kind: percentiles(times) for kind, times in over_http.items()},
        "postgres": {kind: percentiles(times) for kind, times in in_postgres.items()},
        "all_http": percentiles([time for times in over_http.values() for time in times]),
        "all_postgres": percentiles([time for times in in_postgres.values() for time in times]),
    }
    return found | {"figures": [figure.as_dict() for figure in _figures(found)]}


def _cpu_seconds(under_test: Stand) -> float:
    """Of the front and of Postgres: what a search costs however busy the machine is."""
    used = under_test.cpu()
    return used["front"] + used["postgres"]


async def _over_http(under_test: Stand, asked: dict[str, list[str]]) -> dict[str, list[float]]:
    url = f"http://{under_test.settings.host}:{under_test.port}"
    async with aiohttp.ClientSession(url) as session:

        async def ask(path: str) -> None:
            async with session.get(path) as answer:
                answer.raise_for_status()
                await answer.read()

        for paths in asked.values():  # Once over, so that what is asked for is in memory.
            await timed([lambda path=path: ask(path) for path in paths[:WARM]])  # type: ignore[misc]
        return {
            kind: await timed([lambda path=path: ask(path) for path in paths])  # type: ignore[misc]
            for kind, paths in asked.items()
        }


async def _in_postgres(finder: Finder, asked: dict[str, list[str]]) -> dict[str, list[float]]:
    """The same searches without HTTP; suggestions are left out."""
    clock = SystemClock()

    def search(path: str) -> Any:
        query = read_query(make_mocked_request("GET", path), ProductsQuery)
        return search_of(query, clock.now_ms())

    searches = {
        kind: [search(path) for path in paths]
        for kind, paths in asked.items()
        if kind != "suggestions"
    }
    return {
        kind: await timed([lambda each=each: finder.find(each) for each in made])  # type: ignore[misc]
        for kind, made in searches.items()
    }


def _figures(found: dict[str, Any]) -> list[Figure]:
    name = f"search, {found['products']:,} products"
    whole = found["all_http"]
    return [
        at_most(f"{name}, p95", whole["p95_ms"], "ms", P95_MS_MAX, f"p50 {whole['p50_ms']}"),
        Figure(f"{name}, p99", whole["p99_ms"], "ms"),
        Figure("CPU of a search, front and Postgres", round(found["cpu_ms"], 2), "ms"),
        Figure("the same without HTTP, p95", found["all_postgres"]["p95_ms"], "ms"),
        *(
            at_most(
                f"{kind}, p95",
                times["p95_ms"],
                "ms",
                P95_MS_MAX,
                f"p50 {times['p50_ms']}, p99 {times['p99_ms']}",
            )
            for kind, times in found["http"].items()
        ),
    ]
