"""The cart as its owner sees it: grouped by the orders it would become, each line as it is now."""

from collections.abc import Mapping
from typing import Any

import msgspec

from api.cart.store import Cart, CartLine
from api.cart.wares import BUYABLE, COUNTED, Key, LineState, Ware
from api.language import pick
from engine.model import Money


class CartLineBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line. What cannot be bought as it stands is marked by its state and left out of the subtotal."""

    sale_id: str
    sku: str
    quantity: int
    state: LineState
    name: str | None = None
    options: dict[str, str] = {}
    product_id: str | None = None
    image: str | None = None
    unit_price: Money | None = None
    price_when_added: Money | None = None
    total: Money | None = None
    available: int | None = None


class CartGroupBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """Lines that one checkout makes one order of: those of one sale, or of the shop."""

    sale_id: str
    lines: list[CartLineBody]
    units: int
    ready: bool  # every line can be bought as it stands
    subtotal: Money | None = None  # before discounts and shipping


class CartBody(msgspec.Struct, frozen=True):
    """A cart. `revision` is its ETag, without the quotes."""

    revision: str
    groups: list[CartGroupBody]
    lines: int
    units: int


def cart_body(cart: Cart, wares: Mapping[Key, Ware], language: str) -> CartBody:
    """Groups in the order of their first lines."""
    grouped: dict[str, list[CartLine]] = {}
    for line in cart.lines:
        grouped.setdefault(line.sale_id, []).append(line)
    return CartBody(
        revision=str(cart.revision),
        groups=[_group(sale_id, lines, wares, language) for sale_id, lines in grouped.items()],
        lines=len(cart.lines),
        units=sum(line.quantity for line in cart.lines),
    )


def _group(
    sale_id: str, lines: list[CartLine], wares: Mapping[Key, Ware], language: str
) -> CartGroupBody:
    shown = [line_body(line, wares.get(line.key), language) for line in lines]
    totals = [line.total for line in shown if line.state in COUNTED and line.total is not None]
    subtotal = None
    if totals:
        amount_minor = sum(total.amount_minor for total in totals)
        subtotal = Money(amount_minor, totals[0].currency)
    return CartGroupBody(
        sale_id=sale_id,
        lines=shown,
        units=sum(line.quantity for line in lines),
        ready=all(line.state in BUYABLE for line in shown),
        subtotal=subtotal,
    )


def line_body(line: CartLine, ware: Ware | None, language: str) -> CartLineBody:
    chosen = None
    if line.price_minor is not None and line.currency is not None:
        chosen = Money(line.price_minor, line.currency)
    if ware is None:
        return CartLineBody(
            line.sale_id,
            line.sku,
            line.quantity,
            LineState.UNAVAILABLE,
            price_when_added=chosen,
        )
    price = ware.price
    return CartLineBody(
        sale_id=line.sale_id,
        sku=line.sku,
        quantity=line.quantity,
        state=ware.state_of(line),
        name=pick(ware.name, language),
        options={name: _option(value, language) for name, value in ware.options.items()},
        product_id=ware.product_id,
        image=ware.image,
        unit_price=price,
        price_when_added=chosen,
        total=price and Money(price.amount_minor * line.quantity, price.currency),
        available=ware.available,
    )


def _option(value: Any, language: str) -> str:
    return pick(value, language) if isinstance(value, dict) else str(value)
