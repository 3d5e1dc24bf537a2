"""What an invoice says, as it is kept: frozen when it is issued, in all languages at once.

Pure: made of an order and its terms. Leaves numbering to `store` and the looks to `page`.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from api.orders.lines import Named, Names
from api.orders.store import Order

ADDRESS_FIELDS: Final = ("street", "city", "region", "postal_code", "country")


class Seller(msgspec.Struct, frozen=True):
    """Who sells, by the settings of that day."""

    name: str
    address: str = ""
    tax_id: str = ""


class Buyer(msgspec.Struct, frozen=True):
    """Who buys: the name and address of the checkout, or nothing but the user."""

    user_id: str
    name: str = ""
    address: str = ""


class InvoiceLine(msgspec.Struct, frozen=True):
    """Some units of one SKU."""

    sku: str
    name: dict[str, str]
    quantity: int
    unit_price_minor: int
    total_minor: int


class Extra(msgspec.Struct, frozen=True):
    """What is added to the lines or, below zero, taken off."""

    name: dict[str, str]
    amount_minor: int


class InvoiceDocument(msgspec.Struct, frozen=True):
    """The lines and the extras add up to the total, which is what was paid. Taxes are included."""

    order_id: str
    seller: Seller
    buyer: Buyer
    currency: str
    lines: list[InvoiceLine]
    extras: list[Extra]
    total_minor: int
    ordered_at: datetime
    paid_at: datetime
    provider: str | None = None
    payment_id: str | None = None


class Terms(msgspec.Struct, frozen=True):
    """What the invoice takes from elsewhere than the order. `quote`: of the checkout, if any."""

    names: Names
    prices: Mapping[str, int]  # of the SKUs, by the sale
    quote: Mapping[str, Any] | None
    address: Mapping[str, Any] | None
    paid_at: datetime
    provider: str | None = None
    payment_id: str | None = None


DISCOUNT: Final = {"en": "Discount", "zh-CN": "优惠"}
POINTS: Final = {"en": "Paid with points", "zh-CN": "积分抵扣"}
SHIPPING: Final = {"en": "Shipping", "zh-CN": "运费"}
ADJUSTMENT: Final = {"en": "Adjustment", "zh-CN": "调整"}


def make_document(order: Order, order_id: str, terms: Terms, seller: Seller) -> InvoiceDocument:
    """Adds up to what was paid, whatever the terms lack."""
    lines = _lines(order, terms)
    extras = [] if terms.quote is None else _extras(terms.quote)
    rest = order.amount_minor - _sum(lines, extras)
    if rest:
        extras.append(Extra(ADJUSTMENT, rest))
    return InvoiceDocument(
        order_id=order_id,
        seller=seller,
        buyer=_buyer(order.user_id, terms.address or {}),
        currency=order.currency,
        lines=lines,
        extras=extras,
        total_minor=order.amount_minor,
        ordered_at=order.reserved_at,
        paid_at=terms.paid_at,
        provider=terms.provider,
        payment_id=terms.payment_id,
    )


def _lines(order: Order, terms: Terms) -> list[InvoiceLine]:
    quote = terms.quote or {}
    quoted = {line["sku"]: line for line in quote.get("lines", ())}
    told = quote.get("names", {})  # What the buyer was told that he bought.
    found: list[InvoiceLine] = []
    for sku, quantity in sorted(order.items.items()):
        price = quoted.get(sku, {}).get("unit_price_minor", terms.prices.get(sku, 0))
        name = told.get(sku) or terms.names.get((order.sale_id, sku), Named({})).name
        found.append(InvoiceLine(sku, name, quantity, price, price * quantity))
    return found


def _extras(quote: Mapping[str, Any]) -> list[Extra]:
    discounts = [
        Extra(each.get("name") or DISCOUNT, -each["amount_minor"])
        for each in quote.get("discounts", ())
    ]
    points = Extra(POINTS, -quote.get("points_minor", 0))
    shipping = Extra(_shipping_name(quote), quote.get("shipping_minor", 0))
    return [extra for extra in (*discounts, points, shipping) if extra.amount_minor]


def _shipping_name(quote: Mapping[str, Any]) -> dict[str, str]:
    """With the method's name, where the quote tells it."""
    method = quote.get("shipping_method") or {}
    names = method.get("name", {}) if isinstance(method, dict) else {}
    return {
        language: f"{word} ({names[language]})" if language in names else word
        for language, word in SHIPPING.items()
    }


def _sum(lines: Sequence[InvoiceLine], extras: Sequence[Extra]) -> int:
    return sum(line.total_minor for line in lines) + sum(extra.amount_minor for extra in extras)


def _buyer(user_id: str, address: Mapping[str, Any]) -> Buyer:
    parts = [str(address[field]) for field in ADDRESS_FIELDS if address.get(field)]
    return Buyer(user_id, str(address.get("name", "")), ", ".join(parts))
