"""The one statement of a search: a page of matches in order, how many there are, and the facets.

Matches are looked at up to a bound, so that no query costs more than that, however common its words.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from api.search.bodies import ProductsQuery
from api.search.filters import (
    BRAND,
    CATEGORY,
    ORDERS,
    PRICE,
    Key,
    Order,
    Parameters,
    Price,
    beyond,
    conditions,
    heads,
    rank,
    where,
)
from api.search.query import Wish

MATCHES_MAX: Final = 10_000  # Ranked and counted; beyond it a total is a least one.
FACET_VALUES_MAX: Final = 30

_JOIN: Final = ",\n"
_LOOK: Final = (
    "SELECT product_id, path, brand, {price} AS price, {rank} AS rank FROM product_search"
)
_PAGE_OF_FOUND: Final = """page AS (
    SELECT product_id, rank AS key FROM found
    WHERE {beyond} ORDER BY rank DESC, product_id DESC LIMIT {limit})"""
_PAGE_BY_ORDER: Final = """page AS (
    SELECT product_id, {key} AS key FROM product_search
    WHERE {where} AND {beyond} ORDER BY {key} {way}, product_id {way} LIMIT {limit})"""
_ANSWER: Final = """(SELECT count(*) FROM found) AS total,
    ARRAY(SELECT product_id FROM page ORDER BY key {way}, product_id {way}) AS products,
    ARRAY(SELECT key FROM page ORDER BY key {way}, product_id {way}) AS keys"""
_FACET: Final = """(SELECT coalesce(jsonb_agg(jsonb_build_array(value, number)), '[]')
    FROM (SELECT {value} AS value, count(*) AS number FROM {source}
          GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {most}) AS counted
    WHERE value IS NOT NULL) AS {facet}"""


@dataclass(frozen=True)
class Search:
    """What is to be found. `depth` is that of the category asked for, 0 for none."""

    query: ProductsQuery
    wish: Wish
    price: Price
    bands: list[int]  # where one price band ends and the next begins, in minor units
    now: datetime
    after: Key | None = None
    depth: int = 0
    # Where more match than are looked at, the things themselves come before what mentions them.
    heads_first: bool = False

    @property
    def sort(self) -> str:
        """Without words nothing is more relevant than anything else."""
        asked = self.query.sort or "relevance"
        return "newest" if asked == "relevance" and not self.wish.is_ranking else asked


def statement(search: Search) -> tuple[str, list[Any]]:
    """SQL and its parameters; one row: total, products, keys, and the facets by name."""
    return _Writer(search).statement()


class _Writer:
    def __init__(self, search: Search) -> None:
        self._search = search
        self._parameters = Parameters()
        self._price = search.price.expression(self._parameters)
        self._conditions = conditions(
            search.query, search.wish, self._price, search.now, self._parameters
        )

    def statement(self) -> tuple[str, list[Any]]:
        parts = [self._found(), self._page()]
        columns = [_ANSWER.format(way=self._order.direction)]
        if self._search.query.facets:
            for facet, value in self._facets():
                source = self._source(facet, parts)
                columns.append(
                    _FACET.format(value=value, source=source, facet=facet, most=FACET_VALUES_MAX)
                )
        return f"WITH {_JOIN.join(parts)}\nSELECT {_JOIN.join(columns)}", self._parameters.values

    @property
    def _order(self) -> Order:
        return ORDERS[self._search.sort]

    def _found(self) -> str:
        ranked = self._search.sort == "relevance"
        rated = rank(self._search.wish, self._parameters) if ranked else "0"
        look = _LOOK.format(price=self._price, rank=rated)
        condition, most = where(self._conditions), MATCHES_MAX + 1
        if not self._search.heads_first:
            return f"found AS MATERIALIZED ({look} WHERE {condition} LIMIT {most})"
        head = heads(self._search.wish, self._parameters)
        return (
            f"found AS MATERIALIZED (({look} WHERE {condition} AND {head} LIMIT {most})"
            f" UNION ALL ({look} WHERE {condition} AND NOT {head} LIMIT {most}))"
        )

    def _page(self) -> str:
        order = self._order
        # One more than is shown says whether there is another page.
        limit = f"{self._parameters.add(self._search.query.limit + 1)}::bigint"
        after = beyond(order, self._search.after, self._price, self._parameters)
        if self._search.sort == "relevance":
            return _PAGE_OF_FOUND.format(beyond=after, limit=limit)
        return _PAGE_BY_ORDER.format(
            key=order.expression(self._price),
            where=where(self._conditions),
            beyond=after,
            way=order.direction,
            limit=limit,
        )

    def _facets(self) -> list[tuple[str, str]]:
        child = f"path[{self._parameters.add(self._search.depth + 1)}::int]"
        band = f"width_bucket(price, {self._parameters.add(self._search.bands)}::bigint[])"
        return [(CATEGORY, child), (BRAND, "brand"), (PRICE, band)]

    def _source(self, facet: str, parts: list[str]) -> str:
        """The matches that a facet counts: they need not pass the filter of its own kind."""
        # The children of the chosen category are counted: its own condition stays.
        if facet == CATEGORY or facet not in self._conditions:
            return "found"
        look = _LOOK.format(price=self._price, rank="0")
        condition = where(self._conditions, without=facet)
        parts.append(
            f"of_{facet} AS MATERIALIZED ({look} WHERE {condition} LIMIT {MATCHES_MAX + 1})"
        )
        return f"of_{facet}"
