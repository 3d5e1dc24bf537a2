"""The calls at the till: what would it cost, and buy it."""

from typing import Final

import msgspec
from aiohttp import web

from api.answers import Answer, personal, time_text
from api.cart.basket import bill_of, buyer_of, read_basket
from api.cart.bill import Bill, LeftOut
from api.cart.checkout import CheckedOut, CheckoutCall, check_out
from api.cart.visits import visit_of
from api.cart.wishes import CheckoutBody, QuoteBody
from api.front import Front, ticket_of
from api.language import language_of
from api.moments import now_of
from api.points.store import balance_of
from api.pricing.quote import Discount, Quote, QuotedLine, RefusedCode
from api.problems import Code
from api.reservations.decision import check_key
from api.routing import Route
from api.shipping.methods import ShippingQuote
from api.spec import Access, Param, Spec
from engine.admission.limit import Priority
from engine.errors import Conflict
from engine.model import Money, public_id
from engine.store.database import postgres_errors


class BillBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """What would be charged. Lines that cannot be bought are in no amount; `left_out` names them."""

    sale_id: str
    quote: Quote
    weight_grams: int
    left_out: tuple[LeftOut, ...] = ()
    refused: tuple[RefusedCode, ...] = ()  # coupons that take nothing off, and why
    shipping_methods: tuple[ShippingQuote, ...] = ()  # to choose from, once it is said where to
    shipping_method: str | None = None


class OrderTerms(msgspec.Struct, frozen=True):
    """What was agreed on: the quote of the checkout, without what concerned the choice."""

    currency: str
    lines: tuple[QuotedLine, ...]
    discounts: tuple[Discount, ...]
    points: int
    points_minor: int
    subtotal_minor: int
    discount_minor: int
    shipping_minor: int
    shipping_discount_minor: int
    total_minor: int


class CheckedOutBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """The order that the lines became. It is paid with POST /v1/orders/{order}/payments."""

    order_id: str
    sale_id: str
    status: str
    amount: Money
    reserved_until: str
    quote: OrderTerms
    shipping_method: str | None = None


_quote_decoder: Final = msgspec.json.Decoder(QuoteBody)
_checkout_decoder: Final = msgspec.json.Decoder(CheckoutBody)


async def show_quote(front: Front, request: web.Request) -> Answer:
    wishes = await front.bodies.optional_json(request, _quote_decoder, QuoteBody())
    visit = await visit_of(front, request)
    identity = front.visitor(request)
    user_id = identity.user_id if identity else None
    buyer = await buyer_of(front, user_id, wishes)
    basket = await read_basket(front, visit.owner, wishes)
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            bill = await bill_of(connection, front, basket, buyer)
            if user_id is not None and bill.quote.points:
                balance = await balance_of(connection, user_id, now_of(front.engine.clock))
                if balance.balance < bill.quote.points:
                    raise Conflict("points_short", f"There are {balance.balance} points.")
    return personal(_bill_body(bill), 200, *visit.headers)


async def make_order(front: Front, request: web.Request) -> Answer:
    identity = front.caller(request)
    key = check_key(request.headers.get("Idempotency-Key"))
    wishes = await front.bodies.optional_json(request, _checkout_decoder, CheckoutBody())
    visit = await visit_of(front, request)
    call = CheckoutCall(
        identity.user_id,
        key,
        wishes,
        # Who says nothing is written to in the language of the account.
        language_of(request) if "Accept-Language" in request.headers else None,
        ticket_of(request),
        front.address(request),
    )
    return _order_answer(await check_out(front, call), visit.headers)


def _bill_body(bill: Bill) -> BillBody:
    return BillBody(
        sale_id=bill.sale_id,
        quote=bill.quote,
        weight_grams=bill.weight_grams,
        left_out=bill.left_out,
        refused=bill.refused,
        shipping_methods=bill.shipping,
        shipping_method=bill.chosen.method_id if bill.chosen else None,
    )


def _order_answer(made: CheckedOut, headers: tuple[tuple[str, str], ...]) -> Answer:
    checkout = made.checkout
    order_id = public_id(checkout.sale_id, checkout.reservation_id)
    body = CheckedOutBody(
        order_id=order_id,
        sale_id=checkout.sale_id,
        status=made.status.value,
        amount=Money(checkout.amount_minor, checkout.currency),
        reserved_until=time_text(made.reserved_until_ms),
        quote=msgspec.convert(checkout.quote, OrderTerms),
        shipping_method=checkout.shipping_method,
    )
    location = ("Location", f"/v1/orders/{order_id}")
    if made.replayed:
        return personal(body, 200, location, ("Idempotent-Replayed", "true"), *headers)
    return personal(body, 201, location, *headers)


_CODES: Final = (
    Code.CART_EMPTY,
    Code.SEVERAL_GROUPS,
    Code.CART_UNAVAILABLE,
    Code.SOLD_OUT,
    Code.SALE_ENDED,
    Code.NO_SHIPPING,
)
_OF_THE_SALE: Final = (
    Code.UNKNOWN_SALE,
    Code.UNKNOWN_SKU,
    Code.ALL_RESERVED,
    Code.LIMIT_REACHED,
    Code.NOT_STARTED,
    Code.SALE_PAUSED,
    Code.TICKET_REQUIRED,
    Code.TICKET_INVALID,
)
_OF_THE_TERMS: Final = (
    Code.ADDRESS_REQUIRED,
    Code.SHIPPING_REQUIRED,
    Code.TOTAL_CHANGED,
    Code.COUPON_REFUSED,
    Code.COUPON_EXHAUSTED,
    Code.COUPON_USED,
    Code.POINTS_SHORT,
    Code.IDEMPOTENCY_MISMATCH,
    Code.CONFLICT,
    Code.FORBIDDEN,
)
_HEADERS: Final = (
    Param("Idempotency-Key", "The buyer's name for this order.", required=True),
    Param("Queue-Ticket", "For a sale with a waiting room."),
)

ROUTES = (
    Route(
        "POST",
        "/v1/cart/quote",
        show_quote,
        access=Access.VISITOR,
        spec=Spec(
            tag="Cart",
            summary="What lines of the cart would cost, with discounts, points and shipping",
            answers={200: BillBody},
            body=QuoteBody,
            body_required=False,
            codes=(*_CODES, Code.POINTS_SHORT),
        ),
    ),
    Route(
        "POST",
        "/v1/cart/checkout",
        make_order,
        priority=Priority.RESERVE,
        access=Access.CALLER,
        spec=Spec(
            tag="Cart",
            summary="Make lines of the cart an order: of one sale, or of the shop",
            answers={201: CheckedOutBody, 200: CheckedOutBody},
            body=CheckoutBody,
            body_required=False,
            headers=_HEADERS,
            codes=(*_CODES, *_OF_THE_SALE, *_OF_THE_TERMS),
        ),
    ),
)
