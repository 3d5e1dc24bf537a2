"""The one statement of a search: a page of matches in order, how many there are, and the facets.

Matches are looked at up to a bound, so that no query costs more than that, however common its words.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from api.search.bodies import ProductsQuery
from api.search.filters import (
    BRAND,
    CATEGORY,
    HEADS,
    ORDERS,
    PRICE,
    Key,
    Parameters,
    Price,
    beyond,
    conditions,
    heads,
    rank,
    row_conditions,
    where,
)
from api.search.query import Wish

# Matches that are ranked and counted; beyond it a total is a least one. Each costs some 3 µs.
MATCHES_MAX: Final = 1_000
# Of a listing, where nothing is ranked; so many are sorted rather than looked for along an index,
# which may hold them far apart: the cheapest of all things are of few kinds.
LISTED_MAX: Final = 4_000
FACET_VALUES_MAX: Final = 30

_JOIN: Final = ",\n"
_LOOK: Final = "SELECT {columns} FROM product_search"
_PAGE_OF_FOUND: Final = """(SELECT product_id, key FROM found
    WHERE {condition} ORDER BY key {way}, product_id {way} LIMIT {limit})"""
_PAGE_OF_ALL: Final = """(SELECT product_id, {key} AS key FROM product_search
    WHERE {condition} ORDER BY {key} {way}, product_id {way} LIMIT {limit})"""
_FEW: Final = "(SELECT count(*) <= {most} FROM found)"
_ANSWER: Final = """(SELECT count(*) FROM found) AS total,
    ARRAY(SELECT product_id FROM page ORDER BY key {way}, product_id {way}) AS products,
    ARRAY(SELECT key FROM page ORDER BY key {way}, product_id {way}) AS keys"""
_FACET: Final = """(SELECT coalesce(jsonb_agg(jsonb_build_array({facet}, number)), '[]')
    FROM (SELECT {facet}, count(*) AS number FROM {source}
          GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {most}) AS counted
    WHERE {facet} IS NOT NULL) AS {facet}"""
_OF_FACET: Final = "(SELECT count(*) FROM of_{facet}) AS of_{facet}"


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

    @property
    def most(self) -> int:
        """How many matches are looked at."""
        return MATCHES_MAX if self.wish.is_ranking else LISTED_MAX

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
        self._order = ORDERS[search.sort]
        self._parameters = Parameters()
        self._conditions = conditions(
            search.query, search.wish, lambda: self._price, search.now, self._parameters
        )

    @cached_property
    def _price(self) -> str:
        """Only written where it is used: Postgres wants no parameter that is not."""
        return self._search.price.expression(self._parameters)

    @cached_property
    def _key(self) -> str:
        match self._order.column:
            case "rank":
                return rank(self._search.wish, self._parameters)
            case "price":
                return self._price
            case column:
                return column

    @cached_property
    def _values(self) -> dict[str, str]:
        """What each facet goes by; none without facets, as finding it costs."""
        if not self._search.query.facets:
            return {}
        depth = self._parameters.add(self._search.depth + 1)
        bands = self._parameters.add(self._search.bands)
        return {
            CATEGORY: f"path[{depth}::int]",  # the child of the chosen one
            BRAND: "brand",
            PRICE: f"width_bucket({self._price}, {bands}::bigint[])",
        }

    def statement(self) -> tuple[str, list[Any]]:
        shown = [f"{value} AS {facet}" for facet, value in self._values.items()]
        found = _JOIN.join(["product_id", f"{self._key} AS key", *shown])
        parts = [self._matches("found", found), self._page()]
        columns = [_ANSWER.format(way=self._order.direction)]
        for facet, value in self._values.items():
            source = "found"
            # The children of the chosen category are counted: its own condition stays.
            if facet != CATEGORY and facet in self._conditions:
                source = f"of_{facet}"
                parts.append(self._matches(source, f"{value} AS {facet}", without=facet))
                columns.append(_OF_FACET.format(facet=facet))
            columns.append(_FACET.format(source=source, facet=facet, most=FACET_VALUES_MAX))
        return f"WITH {_JOIN.join(parts)}\nSELECT {_JOIN.join(columns)}", self._parameters.values

    def _matches(self, name: str, columns: str, without: str = "") -> str:
        """The matches that are looked at: of many, the things themselves before what mentions them."""
        look, most = _LOOK.format(columns=columns), self._search.most + 1
        if not self._search.wish.is_ranking:
            condition = where(self._conditions, without)
            return f"{name} AS MATERIALIZED ({look} WHERE {condition} LIMIT {most})"
        # As words of the index like others: it is read as far as the rarest of them reaches.
        those = where({**self._conditions, HEADS: self._heads}, without)
        others = where({**self._conditions, HEADS: f"!!({self._heads})"}, without)
        return (
            f"{name} AS MATERIALIZED (({look} WHERE numnode({self._heads}) > 0 AND {those})"
            f" UNION ALL ({look} WHERE {others}) LIMIT {most})"
        )

    @cached_property
    def _heads(self) -> str:
        return heads(self._search.wish, self._parameters)

    def _page(self) -> str:
        """What is searched for is sorted as far as it is looked at; a listing along its index,
        unless it is short: then the index may hold its rows far apart."""
        way = self._order.direction
        # One more than is shown says whether there is another page.
        limit = f"{self._parameters.add(self._search.query.limit + 1)}::bigint"
        after = beyond(self._order, "key", self._search.after, self._parameters)
        if self._search.wish.is_ranking:
            page = _PAGE_OF_FOUND.format(condition=after, way=way, limit=limit)
            return f"page AS {page}"
        after_all = beyond(self._order, self._key, self._search.after, self._parameters)
        few = _FEW.format(most=self._search.most)
        short = _PAGE_OF_FOUND.format(condition=f"{few} AND {after}", way=way, limit=limit)
        by_row = row_conditions(self._search.query, lambda: self._price, self._parameters)
        condition = f"NOT {few} AND {where(self._conditions, by_row=by_row)} AND {after_all}"
        long = _PAGE_OF_ALL.format(key=self._key, condition=condition, way=way, limit=limit)
        return f"page AS ({short} UNION ALL {long})"
