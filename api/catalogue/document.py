"""What a product is, as operators write it and as files carry it. Every text and list has its bound.

Does no I/O: whether the category exists and the SKUs are free, the store says.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from api.language import pick
from api.pricing.money import is_currency
from engine.model import SKU, Money
from engine.sales.document import PRICE_MINOR_MAX

SKUS_MAX: Final = 200  # Of one product: ten colours in twenty sizes.
IMAGES_MAX: Final = 20
ATTRIBUTES_MAX: Final = 50
OPTIONS_MAX: Final = 5  # Colour, size, …: nobody chooses among more.
CURRENCIES_MAX: Final = 20
DESCRIPTION_CHARACTERS_MAX: Final = 20_000
WEIGHT_GRAMS_MAX: Final = 1_000_000  # A tonne goes by other carriers.

Language = Literal["en", "zh-CN"]
Slug = Annotated[str, Meta(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?\Z")]
SkuText = Annotated[str, Meta(pattern=rf"^(?:{SKU.pattern})\Z")]
Key = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,39}\Z")]
# One line that begins with something to see.
_LINE: Final = re.compile(r"[^\x00-\x20\x7f][^\x00-\x1f\x7f]{0,199}")
Line = Annotated[str, Meta(pattern=rf"^{_LINE.pattern}\Z")]
Paragraphs = Annotated[
    str,
    Meta(
        pattern=r"^[^\x00-\x20\x7f][^\x00-\x09\x0b-\x1f\x7f]*\Z",
        max_length=DESCRIPTION_CHARACTERS_MAX,
    ),
]
Names = Annotated[dict[Language, Line], Meta(min_length=1, max_length=2)]
Descriptions = Annotated[dict[Language, Paragraphs], Meta(max_length=2)]
# No pattern beside an object: msgspec 0.22 frees such a pattern twice when the process ends.
Word = Annotated[str, Meta(min_length=1, max_length=200)]
Value = Word | Names  # "256 GB", or {"en": "black", "zh-CN": "黑色"}
Attributes = Annotated[dict[Key, Value], Meta(max_length=ATTRIBUTES_MAX)]
Options = Annotated[dict[Key, Value], Meta(max_length=OPTIONS_MAX)]
# Neither blanks nor quotes nor angle brackets: it goes into pages and into lists with blanks.
ImageUrl = Annotated[
    str, Meta(pattern=r"^https://[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?/[!#-;=?-~]{0,500}\Z")
]
Images = Annotated[tuple[ImageUrl, ...], Meta(max_length=IMAGES_MAX)]
Status = Literal["draft", "active", "archived"]
Weight = Annotated[int, Meta(ge=0, le=WEIGHT_GRAMS_MAX)]
CurrencyText = Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z")]


class Price(Money, frozen=True, forbid_unknown_fields=True):
    """What one unit costs, in one currency."""

    amount_minor: Annotated[int, Meta(ge=1, le=PRICE_MINOR_MAX)]
    currency: CurrencyText

    def __post_init__(self) -> None:
        if not is_currency(self.currency):
            raise ValueError(f"{self.currency} is no currency of ISO 4217 that is in use")


Prices = Annotated[tuple[Price, ...], Meta(max_length=CURRENCIES_MAX)]


class Sku(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One unit of stock: a product in certain options. Its stock is kept elsewhere."""

    sku: SkuText
    options: Options = {}
    weight_grams: Weight = 0
    active: bool = True
    prices: Prices = ()

    def __post_init__(self) -> None:
        refuse_unfit("options", self.options)
        refuse_repeated("prices", (price.currency for price in self.prices))


Skus = Annotated[tuple[Sku, ...], Meta(max_length=SKUS_MAX)]


class ProductFields(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A product but for its id, whole."""

    category_id: Slug
    brand: Line
    name: Names
    description: Descriptions = {}
    images: Images = ()
    attributes: Attributes = {}
    status: Status = "active"
    skus: Skus = ()

    def __post_init__(self) -> None:
        refuse_unfit("attributes", self.attributes)
        refuse_repeated("skus", (sku.sku for sku in self.skus))


class Product(ProductFields, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A product, whole: what a line of a JSON Lines file is."""

    product_id: Slug


def refuse_unfit(field: str, values: Mapping[str, Value]) -> None:
    """Raises ValueError if a word is no line that begins with something to see."""
    for name, value in values.items():
        if isinstance(value, str) and not _LINE.fullmatch(value):
            raise ValueError(f"{field}.{name} must be one line that begins with something to see")


def refuse_repeated(field: str, values: Iterable[str]) -> None:
    """Raises ValueError if something is there twice."""
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{field} has {value} twice")
        seen.add(value)


def picked(values: Mapping[str, Any], language: str) -> dict[str, str]:
    """Options or attributes in one language."""
    return {
        key: value if isinstance(value, str) else pick(value, language)
        for key, value in values.items()
    }
