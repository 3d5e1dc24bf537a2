"""What some lines of a cart cost one buyer now: discounts, points and shipping. Changes nothing."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from api.addresses.store import Address, Addresses
from api.cart.refusals import coupons_refused
from api.cart.store import CartLine
from api.cart.wares import BUYABLE, COUNTED, Key, LineState, Ware
from api.cart.wishes import QuoteBody
from api.pricing.quote import Line, Quote, RefusedCode, quote
from api.problems import Code, FieldError, Refusal, invalid
from api.promotions.store import applicable
from api.shipping.methods import ShippingQuote, quotes
from engine.store.database import Connection, Pool

# Whether a sale has the units is the engine's to say, at the moment when it takes them.
ASKED_FOR = COUNTED | {LineState.SOLD_OUT, LineState.QUANTITY_SHORT}


class Destination(msgspec.Struct, frozen=True):
    """Where it goes: an address of the buyer's, or just which country and region."""

    country: str
    region: str
    address: Address | None = None


class LeftOut(msgspec.Struct, frozen=True):
    """A line that no bill contains, and why."""

    sku: str
    state: LineState


class Bill(msgspec.Struct, frozen=True):
    """A quote with what it was made of."""

    sale_id: str
    quote: Quote
    units: dict[str, int]
    names: dict[str, dict[str, str]]
    weight_grams: int
    left_out: tuple[LeftOut, ...]
    refused: tuple[RefusedCode, ...]  # codes that take nothing off
    shipping: tuple[ShippingQuote, ...] = ()  # to choose from
    chosen: ShippingQuote | None = None
    destination: Destination | None = None

    @property
    def redeems(self) -> bool:
        """Whether something is taken that its buyer could spend elsewhere once it is given back."""
        return self.quote.points > 0 or any(d.code is not None for d in self.quote.discounts)

    def as_told(self) -> dict[str, Any]:
        """For the checkout's record: the quote, and what of it was words."""
        told: dict[str, Any] = msgspec.to_builtins(self.quote)
        return told | {
            "names": self.names,
            "weight_grams": self.weight_grams,
            "shipping_method": msgspec.to_builtins(self.chosen),
        }


async def destination_of(pool: Pool, user_id: str | None, wishes: QuoteBody) -> Destination | None:
    """Raises Refusal for an address that is not the buyer's."""
    if wishes.address_id is not None:
        address = user_id and await Addresses(pool).get(user_id, wishes.address_id)
        if not address:
            raise Refusal.of(invalid([FieldError("address_id", "is no address of yours")]))
        return Destination(address.country, address.region, address)
    if wishes.country is not None:
        return Destination(wishes.country, wishes.region)
    return None


async def make_bill(
    connection: Connection,
    lines: Sequence[CartLine],
    wares: Mapping[Key, Ware],
    wishes: QuoteBody,
    destination: Destination | None,
    *,
    user_id: str | None,
    currency: str,
    at: datetime,
    states: frozenset[LineState] = COUNTED,
) -> Bill:
    """Of the lines in these states; raises Refusal where there is none."""
    counted = [(line, wares[line.key]) for line in lines if _state(line, wares) in states]
    if not counted:
        raise _nothing_to_buy(lines, wares)
    if counted[0][1].price is not None:
        currency = counted[0][1].price.currency
    goods = [_priced(line, ware) for line, ware in counted]
    weight = sum(line.quantity * ware.weight_grams for line, ware in counted)
    choices = await _choices(connection, destination, weight, currency, goods)
    chosen = _chosen(choices, wishes.shipping_method)
    can = await applicable(
        connection, user_id=user_id, codes=wishes.coupons, currency=currency, at=at
    )
    made = quote(
        goods,
        can.promotions,
        currency=currency,
        points=wishes.points if user_id else 0,
        points_rule=can.points_rule,
        shipping_minor=chosen.fee.amount_minor if chosen else 0,
    )
    return Bill(
        sale_id=lines[0].sale_id,
        quote=made,
        units={line.sku: line.quantity for line, _ in counted},
        names={line.sku: ware.name for line, ware in counted},
        weight_grams=weight,
        left_out=tuple(_left_out(lines, wares, states)),
        refused=(*can.refused, *made.refused),
        shipping=tuple(choices),
        chosen=chosen,
        destination=destination,
    )


def check_ready(bill: Bill, wishes: QuoteBody) -> None:
    """Lets a bill through that can become an order. Raises Refusal."""
    for line in bill.left_out:
        raise _not_buyable(line)
    if bill.refused:
        raise Refusal.of(coupons_refused(bill.refused))
    if bill.weight_grams == 0 and not bill.shipping:
        return
    if bill.destination is None or bill.destination.address is None:
        raise Refusal(Code.ADDRESS_REQUIRED)
    if wishes.shipping_method is None:
        raise Refusal(Code.SHIPPING_REQUIRED if bill.shipping else Code.NO_SHIPPING)


def _state(line: CartLine, wares: Mapping[Key, Ware]) -> LineState:
    ware = wares.get(line.key)
    return LineState.UNAVAILABLE if ware is None else ware.state_of(line)


def _left_out(
    lines: Sequence[CartLine], wares: Mapping[Key, Ware], states: frozenset[LineState]
) -> list[LeftOut]:
    return [
        LeftOut(line.sku, state) for line in lines if (state := _state(line, wares)) not in states
    ]


def _nothing_to_buy(lines: Sequence[CartLine], wares: Mapping[Key, Ware]) -> Refusal:
    return _not_buyable(_left_out(lines, wares, BUYABLE)[0])


def _not_buyable(line: LeftOut) -> Refusal:
    match line.state:
        case LineState.SOLD_OUT | LineState.QUANTITY_SHORT:
            return Refusal(Code.SOLD_OUT, f"Too few units of {line.sku} are left.")
        case LineState.SALE_ENDED:
            return Refusal(Code.SALE_ENDED)
        case _:
            return Refusal(Code.CART_UNAVAILABLE, f"{line.sku} is {line.state}.")


def _priced(line: CartLine, ware: Ware) -> Line:
    assert ware.price is not None, line
    return Line(
        sku=line.sku,
        product_id=ware.product_id,
        category_path=ware.category_path,
        quantity=line.quantity,
        unit_price_minor=ware.price.amount_minor,
    )


async def _choices(
    connection: Connection,
    destination: Destination | None,
    weight_grams: int,
    currency: str,
    goods: Sequence[Line],
) -> list[ShippingQuote]:
    if destination is None:
        return []
    return await quotes(
        connection,
        country=destination.country,
        region=destination.region,
        weight_grams=weight_grams,
        currency=currency,
        subtotal_minor=sum(line.subtotal_minor for line in goods),
    )


def _chosen(choices: Sequence[ShippingQuote], method_id: str | None) -> ShippingQuote | None:
    if method_id is None:
        return None
    for choice in choices:
        if choice.method_id == method_id:
            return choice
    raise Refusal(Code.NO_SHIPPING, f"There is no method {method_id} to this place.")
