"""What a buyer asks for at the till: which lines, to where, by which coupons. Reads requests, decides little."""

from typing import Annotated

import msgspec

from api.cart.store import Cart, CartLine
from api.problems import Code, FieldError, Refusal, invalid
from api.promotions.coupons import CODES_MAX
from engine.model import SALE_ID, SKU, Money

SKUS_MAX = 100  # As many as a cart has lines.
POINTS_MAX = 10**12

SaleText = Annotated[str, msgspec.Meta(pattern=rf"^(?:{SALE_ID.pattern})\Z")]
SkuText = Annotated[str, msgspec.Meta(pattern=rf"^(?:{SKU.pattern})\Z")]
Currency = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z")]
CouponText = Annotated[str, msgspec.Meta(pattern=r"^[ -~]{1,40}\Z")]
Slug = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")]
Country = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{2}\Z")]
Region = Annotated[str, msgspec.Meta(max_length=100, pattern=r"^[^\x00-\x1f\x7f]*\Z")]


class QuoteBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be bought, and how. Without `sale_id` the cart has lines of one group only; without
    `skus` all of the group are meant. The address is one of the buyer's, or just a country and region.
    """

    sale_id: SaleText | None = None
    skus: Annotated[tuple[SkuText, ...], msgspec.Meta(min_length=1, max_length=SKUS_MAX)] | None = (
        None
    )
    currency: Currency | None = None
    coupons: Annotated[tuple[CouponText, ...], msgspec.Meta(max_length=CODES_MAX)] = ()
    points: Annotated[int, msgspec.Meta(ge=0, le=POINTS_MAX)] = 0
    address_id: Slug | None = None
    country: Country | None = None
    region: Region = ""
    shipping_method: Slug | None = None


class CheckoutBody(QuoteBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As a quote; `total` is what the buyer was told, and if it is another by now, nothing is bought."""

    total: Money | None = None


def check_wishes(wishes: QuoteBody) -> None:
    """Raises Refusal for what contradicts itself."""
    if wishes.address_id is not None and wishes.country is not None:
        _refuse("country", "is said by the address")
    if wishes.shipping_method is not None and wishes.address_id is None and wishes.country is None:
        _refuse("shipping_method", "needs an address or a country")


def lines_wanted(cart: Cart, wishes: QuoteBody) -> list[CartLine]:
    """The lines of the one order that is meant, at least one. Raises Refusal."""
    lines = [line for line in cart.lines if wishes.sale_id in {None, line.sale_id}]
    if wishes.skus is not None:
        lines = [line for line in lines if line.sku in wishes.skus]
        if missing := sorted(set(wishes.skus) - {line.sku for line in lines}):
            raise Refusal(Code.CART_UNAVAILABLE, f"{missing[0]} is not in the cart.")
    if not lines:
        raise Refusal(Code.CART_EMPTY)
    if len({line.sale_id for line in lines}) > 1:
        raise Refusal(Code.SEVERAL_GROUPS)
    return lines


def _refuse(field: str, why: str) -> None:
    raise Refusal.of(invalid([FieldError(field, why)]))
