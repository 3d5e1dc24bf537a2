"""What the catalogue answers buyers and operators, and what it is asked."""

from typing import Annotated, Any

import msgspec

from api.answers import time_text
from api.catalogue.document import (
    Attributes,
    CurrencyText,
    Descriptions,
    Images,
    Line,
    Names,
    Options,
    Prices,
    ProductFields,
    Skus,
    SkuText,
    Slug,
    Status,
    Weight,
    refuse_unfit,
)
from api.catalogue.store import StoredProduct
from engine.model import Money

Cursor = Annotated[str, msgspec.Meta(max_length=512)]


class PageQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters of a product's page."""

    currency: CurrencyText | None = None


class CategoryName(msgspec.Struct, frozen=True):
    """A category on the way from the root."""

    category_id: str
    name: str


class SaleOffer(msgspec.Struct, frozen=True):
    """A sale that offers an SKU, now or soon. `available` is null while nobody knows."""

    sale_id: str
    name: str
    state: str
    opens_at: str
    closes_at: str
    per_user_max: int
    price: Money
    available: int | None


class SkuBody(msgspec.Struct, frozen=True):
    """One SKU of a product's page. `price` is null where it has none in that currency; `available`
    is what can be ordered outside of sales."""

    sku: str
    options: dict[str, str]
    weight_grams: int
    price: Money | None
    available: int
    sales: list[SaleOffer]


class RatingBody(msgspec.Struct, frozen=True):
    """What buyers think: the mean of 1 to 5 stars. Null while there is none."""

    average: float | None
    count: int


class ProductBody(msgspec.Struct, frozen=True):
    """A product's page, in one language."""

    product_id: str
    name: str
    brand: str
    description: str
    category: list[CategoryName]
    images: list[str]
    attributes: dict[str, str]
    currency: str
    skus: list[SkuBody]
    rating: RatingBody
    updated_at: str


class ListQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters of the operators' list."""

    status: Status | None = None
    category: Slug | None = None
    after: Cursor | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 50


class OperatorProduct(msgspec.Struct, frozen=True):
    """A product in all languages, as operators see it. Send it back without the last three."""

    product_id: str
    category_id: str
    brand: str
    name: dict[str, str]
    description: dict[str, str]
    images: list[str]
    attributes: Attributes
    status: Status
    skus: Skus
    revision: int
    created_at: str
    updated_at: str


class OperatorProducts(msgspec.Struct, frozen=True):
    """A page of them. `next` is for `?after=`; null on the last page."""

    products: list[OperatorProduct]
    next: str | None


class PutProduct(ProductFields, frozen=True, forbid_unknown_fields=True):
    """A product, whole. Nothing said means the default, not what was there."""

    revision: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)] | None = None


class SkuChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be otherwise about one SKU that the product has."""

    sku: SkuText
    options: Options | msgspec.UnsetType = msgspec.UNSET
    weight_grams: Weight | msgspec.UnsetType = msgspec.UNSET
    active: bool | msgspec.UnsetType = msgspec.UNSET
    prices: Prices | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        if self.options is not msgspec.UNSET:
            refuse_unfit("options", self.options)


class PatchProduct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be otherwise about a product; the rest stays."""

    category_id: Slug | msgspec.UnsetType = msgspec.UNSET
    brand: Line | msgspec.UnsetType = msgspec.UNSET
    name: Names | msgspec.UnsetType = msgspec.UNSET
    description: Descriptions | msgspec.UnsetType = msgspec.UNSET
    images: Images | msgspec.UnsetType = msgspec.UNSET
    attributes: Attributes | msgspec.UnsetType = msgspec.UNSET
    status: Status | msgspec.UnsetType = msgspec.UNSET
    skus: Annotated[tuple[SkuChange, ...], msgspec.Meta(max_length=200)] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    revision: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)] | None = None

    def __post_init__(self) -> None:
        if self.attributes is not msgspec.UNSET:
            refuse_unfit("attributes", self.attributes)


def operator_product(stored: StoredProduct) -> OperatorProduct:
    fields: dict[str, Any] = msgspec.structs.asdict(stored.product)
    return OperatorProduct(
        **(fields | {"images": list(stored.product.images)}),
        revision=stored.revision,
        created_at=time_text(int(stored.created_at.timestamp()) * 1000),
        updated_at=time_text(int(stored.updated_at.timestamp()) * 1000),
    )
