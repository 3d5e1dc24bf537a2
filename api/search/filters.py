"""Puts searches together as SQL: conditions, order and keys, from constant pieces and parameters.

Every value goes in as a parameter; no text of a visitor becomes SQL.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec

from api.catalogue.offers import BASE_CURRENCY
from api.pricing.money import digits
from api.search.bodies import ProductsQuery
from api.search.lexemes import any_of, in_category, of_brand, quoted
from api.search.query import Wish

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
RATING_MAX: Final = 5
KEY_LENGTH_MAX: Final = 200
# What a key may hold: a whole number, microseconds until 2286, the smallest unit of money.
KEY_VALUES_MAX: Final = {"integer": 2**31 - 1, "timestamptz": 10**16, "bigint": 2**63 - 1}

# The filters that a facet counts without: those of its own kind.
CATEGORY, BRAND, PRICE = "category", "brand", "price"
# These are words of the index, so that it is read once for all of them: rows are looked at last.
HEADS: Final = "heads"
_OF_WORDS: Final = ("wish", CATEGORY, BRAND, HEADS)
NO_KINDS: Final[Mapping[str, str]] = MappingProxyType({})

_WISH: Final = "websearch_to_tsquery('english', {other}::text) && {han}::text::tsquery"
_RANK: Final = (
    "ts_rank('{{0.05, 0.2, 0.6, 1}}', title,"
    " websearch_to_tsquery('english', {other}::text) || {han}::text::tsquery)"
)
# Any of the words, as the index has the heads: `=phone`. Such words have no quote in them.
_HEADS: Final = """regexp_replace(
    (websearch_to_tsquery('english', {other}::text) || {han}::text::tsquery)::text,
    '''([^'']+)''', '''=\\1''', 'g')::tsquery"""
# Those that are open, as the sale itself says; few, and found first.
_ON_SALE: Final = """product_id IN (
    SELECT skus.product_id FROM sales JOIN sale_items USING (sale_id)
    JOIN skus ON skus.sku = sale_items.sku
    WHERE sales.state = 'open' AND sales.opens_at <= {now} AND {now} < sales.closes_at)"""


class Key(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where a page ends: in what order, the value it goes by, and the product."""

    sort: str
    value: float | int
    product_id: str


class Order(NamedTuple):
    """How matches are sorted: by what of them, and that and the id in the same direction."""

    column: str
    descending: bool
    kind: str  # the type of its value in SQL

    @property
    def direction(self) -> str:
        return "DESC" if self.descending else "ASC"


# Relevance has its whole numbers from `found`; best first, by id where they are equal.
ORDERS: Final = {
    "relevance": Order("rank", True, "integer"),
    "newest": Order("created_at", True, "timestamptz"),
    "rating": Order("rating", True, "real"),
    "price_asc": Order("price", False, "bigint"),
    "price_desc": Order("price", True, "bigint"),
}


@dataclass
class Parameters:
    """Values in the order of their `$n`."""

    values: list[Any] = field(default_factory=list)

    def add(self, value: Any) -> str:
        self.values.append(value)
        return f"${len(self.values)}"


@dataclass(frozen=True)
class Price:
    """What a product costs in the currency that is asked for.

    Where it is not listed, it is its price in the base currency, converted, if there is a rate.
    """

    currency: str
    base: str
    rate: Decimal | None = None  # how much of `currency` one unit of `base` is; None: unknown

    def expression(self, parameters: Parameters) -> str:
        if self.currency == self.base:
            return self._base(parameters)
        # The currency must be the index's constant when the plan is made: as a parameter it is.
        listed = f"(prices -> {parameters.add(self.currency)}::text)::bigint"
        if self.rate is None:
            return listed
        # Between smallest units: yen have none, yuan a hundred.
        factor = parameters.add(self.rate.scaleb(digits(self.currency) - digits(self.base)))
        base = self._base(parameters)
        return f"coalesce({listed}, round({base} * {factor}::numeric)::bigint)"

    def _base(self, parameters: Parameters) -> str:
        """A column of the index, if the shop's own currency is the one it has a column for."""
        if self.base == BASE_CURRENCY:
            return "base_price"
        return f"(prices -> {parameters.add(self.base)}::text)::bigint"


def conditions(
    query: ProductsQuery,
    wish: Wish,
    price: Callable[[], str],
    now: datetime,
    parameters: Parameters,
) -> dict[str, str]:
    """Each condition by its kind; those of the three facets by the facet's name."""
    found: dict[str, str] = {}
    if not wish.is_empty:
        found["wish"] = _WISH.format(other=parameters.add(wish.other), han=parameters.add(wish.han))
    if query.category is not None:
        found[CATEGORY] = f"{parameters.add(quoted(in_category(query.category)))}::text::tsquery"
    if query.brand:
        found[BRAND] = f"{parameters.add(any_of(map(of_brand, query.brand)))}::text::tsquery"
    row_price = partial(_unindexed, price) if found else price
    if priced := [*_price_bounds(query, row_price, parameters)]:
        found[PRICE] = " AND ".join(priced)
    if query.sort in {"price_asc", "price_desc"}:
        found["priced"] = f"{row_price()} IS NOT NULL"
    if query.in_stock:
        found["in_stock"] = "in_stock"
    if query.on_sale:
        found["on_sale"] = _ON_SALE.format(now=f"{parameters.add(now)}::timestamptz")
    return found


def _unindexed(price: Callable[[], str]) -> str:
    """Where words say which rows there are, the index of prices is kept out: reading half of it to
    leave a few rows out costs more than the whole search."""
    return f"({price()} + 0)"


def _price_bounds(
    query: ProductsQuery, price: Callable[[], str], parameters: Parameters
) -> Iterable[str]:
    if query.price_min is not None:
        yield f"{price()} >= {parameters.add(query.price_min)}::bigint"
    if query.price_max is not None:
        yield f"{price()} <= {parameters.add(query.price_max)}::bigint"


def row_conditions(
    query: ProductsQuery, price: Callable[[], str], parameters: Parameters
) -> dict[str, str]:
    """The category, the brands and the price as conditions of the row itself: for who goes along an
    index and would have to fetch each row's words from where they are kept."""
    found: dict[str, str] = {}
    if query.category is not None:
        found[CATEGORY] = f"path @> ARRAY[{parameters.add(query.category)}::text]"
    if query.brand:
        found[BRAND] = f"brand = ANY ({parameters.add(query.brand)}::text[])"
    if priced := [*_price_bounds(query, price, parameters)]:
        found[PRICE] = " AND ".join(priced)
    return found


def where(found: Mapping[str, str], without: str = "", by_row: Mapping[str, str] = NO_KINDS) -> str:
    """All conditions, but those of one kind; those `by_row` in place of the index's words."""
    left = {kind: text for kind, text in found.items() if kind != without}
    of_words = [left.pop(kind) for kind in _OF_WORDS if kind in left and kind not in by_row]
    together = [f"words @@ ({' && '.join(of_words)})"] if of_words else []
    return " AND ".join([*together, *(left | dict(by_row)).values()]) or "true"


def rank(wish: Wish, parameters: Parameters) -> str:
    """How well a match fits, as a whole number; stock and stars decide between the alike."""
    fits = _RANK.format(other=parameters.add(wish.any_other), han=parameters.add(wish.any_han))
    return f"round(10000 * {fits} + 300 * in_stock::int + 60 * rating)::integer"


def heads(wish: Wish, parameters: Parameters) -> str:
    """Those that are what is looked for, as their names or their category's say: as a tsquery."""
    return _HEADS.format(other=parameters.add(wish.any_other), han=parameters.add(wish.any_han))


def beyond(order: Order, value_of: str, key: Key | None, parameters: Parameters) -> str:
    """The rows that come after the key's."""
    if key is None:
        return "true"
    value = parameters.add(_key_value(order, key))
    product_id = parameters.add(key.product_id)
    than = "<" if order.descending else ">"
    return f"({value_of}, product_id) {than} ({value}::{order.kind}, {product_id}::text)"


def fits(key: Key, sort: str) -> bool:
    """Whether the key is one of that order: anybody may send any."""
    order = ORDERS[sort]
    if key.sort != sort or len(key.product_id) > KEY_LENGTH_MAX or "\x00" in key.product_id:
        return False
    if order.kind == "real":
        return abs(key.value) <= RATING_MAX
    return isinstance(key.value, int) and abs(key.value) <= KEY_VALUES_MAX[order.kind]


def _key_value(order: Order, key: Key) -> Any:
    if order.kind == "timestamptz":
        return EPOCH + timedelta(microseconds=int(key.value))
    return float(key.value) if order.kind == "real" else int(key.value)


def key_value(order: Order, value: Any) -> float | int:
    """The inverse: what a row's value is in a key."""
    if order.kind == "timestamptz":
        microseconds: int = (value - EPOCH) // timedelta(microseconds=1)
        return microseconds
    return float(value) if order.kind == "real" else int(value)
