"""What a search is asked, and what it answers."""

from typing import Annotated, Final, Literal

import msgspec

from engine.model import Money

QUERY_LENGTH_MAX: Final = 200
BRANDS_MAX: Final = 20  # that are asked for at once
PAGE_DEFAULT: Final = 24
PAGE_MAX: Final = 100
SUGGESTIONS_MAX: Final = 10

Text = Annotated[str, msgspec.Meta(max_length=QUERY_LENGTH_MAX, pattern=r"^[^\x00-\x1f\x7f]*\Z")]
Brand = Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*\Z")]
Slug = Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=r"^[!-~]*\Z")]
Amount = Annotated[int, msgspec.Meta(ge=0, le=10**15)]
Currency = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z")]
Cursor = Annotated[str, msgspec.Meta(max_length=512)]
Sort = Literal["relevance", "price_asc", "price_desc", "newest", "rating"]


class ProductsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters of GET /v1/products."""

    q: Text | None = None
    category: Slug | None = None
    brand: Annotated[list[Brand], msgspec.Meta(max_length=BRANDS_MAX)] = []
    currency: Currency | None = None
    price_min: Amount | None = None
    price_max: Amount | None = None
    in_stock: bool = False
    on_sale: bool = False
    sort: Sort | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)] = PAGE_DEFAULT
    after: Cursor | None = None
    facets: bool = False


class SuggestionsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters of GET /v1/suggestions."""

    q: Text
    limit: Annotated[int, msgspec.Meta(ge=1, le=SUGGESTIONS_MAX)] = SUGGESTIONS_MAX


class FoundProduct(msgspec.Struct, frozen=True):
    """A product in a list. `price` is that of its cheapest SKU, null if none is sold in that
    currency; `on_sale` names the sales that are open and offer some of it."""

    product_id: str
    name: str
    brand: str
    category_id: str
    image: str | None
    price: Money | None
    in_stock: bool
    on_sale: list[str]
    rating: float | None
    ratings: int


class CategoryCount(msgspec.Struct, frozen=True):
    """How many products are in a category and below it."""

    category_id: str
    name: str
    count: int


class BrandCount(msgspec.Struct, frozen=True):
    """How many products are of a brand."""

    brand: str
    count: int


class PriceCount(msgspec.Struct, frozen=True):
    """How many products cost `price_from` or more, and less than `price_below` (null: or more)."""

    price_from: Money
    price_below: Money | None
    count: int


class Facets(msgspec.Struct, frozen=True):
    """What the matches could be narrowed to; each counted under all other filters.

    The counts are least ones where there were more matches than are counted."""

    categories: list[CategoryCount]
    brands: list[BrandCount]
    prices: list[PriceCount]
    are_least: bool


class FoundProducts(msgspec.Struct, frozen=True):
    """A page. Where nothing was found for the query that was asked, `corrected` is that with its
    typing errors put right, and `left_out` are the words without which something was found."""

    products: list[FoundProduct]
    total: int
    total_is_least: bool
    next: str | None = None
    corrected: str | None = None
    left_out: list[str] = []
    facets: Facets | None = None


class Suggestion(msgspec.Struct, frozen=True):
    """One way to go on typing. `id` is a category's, a product's, or the brand."""

    text: str
    kind: Literal["category", "brand", "word", "product"]
    id: str | None


class Suggestions(msgspec.Struct, frozen=True):
    """The best first."""

    suggestions: list[Suggestion]
