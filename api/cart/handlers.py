"""The calls on the cart: look, add, change, remove. Of a user, or of a guest with a cookie."""

import re
from typing import Annotated, Final

import msgspec
from aiohttp import web

from api.answers import Answer, personal
from api.cart.bodies import CartBody, cart_body
from api.cart.store import Cart, Carts, read_cart
from api.cart.visits import Visit, currency_of, visit_of
from api.cart.wares import Key, LineState, Ware, offers_of, wares
from api.cart.wishes import Currency, SaleText, SkuText
from api.front import Front
from api.language import language_of
from api.moments import now_of
from api.problems import Code, FieldError, Refusal, invalid
from api.queries import read_query
from api.routing import Route
from api.spec import Access, Param, Spec
from engine.model import QUANTITY_MAX, SALE_ID, SHOP, SKU
from engine.store.database import postgres_errors

IF_MATCH: Final = Param(
    "If-Match", "The revision, as in ETag, that the change is made for; another one is refused."
)
_ETAG = re.compile(r'(?:W/)?"([0-9]{1,18})"')


class CartQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """In which currency the cart is shown; lines of a sale are in the sale's."""

    currency: Currency | None = None


class QuantityBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many units the line is to have; 0 removes it."""

    quantity: Annotated[int, msgspec.Meta(ge=0, le=QUANTITY_MAX)]


class AddBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Units to be added to what is there of them. Without a sale: outside of sales."""

    sku: SkuText
    quantity: Annotated[int, msgspec.Meta(ge=1, le=QUANTITY_MAX)] = 1
    sale_id: SaleText = SHOP


_quantity_decoder: Final = msgspec.json.Decoder(QuantityBody)
_add_decoder: Final = msgspec.json.Decoder(AddBody)


async def show_cart(front: Front, request: web.Request) -> Answer:
    currency = currency_of(front, read_query(request, CartQuery).currency)
    visit = await visit_of(front, request)
    return await shown(front, request, visit, currency)


async def add_line(front: Front, request: web.Request) -> Answer:
    currency = currency_of(front, read_query(request, CartQuery).currency)
    body = await front.bodies.json(request, _add_decoder)
    key = (body.sale_id, body.sku)
    return await _put(front, request, key, body.quantity, currency, more=True)


async def put_line(front: Front, request: web.Request) -> Answer:
    currency = currency_of(front, read_query(request, CartQuery).currency)
    key = _key(request)
    body = await front.bodies.json(request, _quantity_decoder)
    if body.quantity == 0:
        return await _remove(front, request, key, currency)
    return await _put(front, request, key, body.quantity, currency, more=False)


async def remove_line(front: Front, request: web.Request) -> Answer:
    currency = currency_of(front, read_query(request, CartQuery).currency)
    await front.bodies.none(request)
    return await _remove(front, request, _key(request), currency)


async def empty_cart(front: Front, request: web.Request) -> Answer:
    currency = currency_of(front, read_query(request, CartQuery).currency)
    await front.bodies.none(request)
    return await _remove(front, request, None, currency)


async def _put(
    front: Front, request: web.Request, key: Key, quantity: int, currency: str, *, more: bool
) -> Answer:
    expected = revision_in(request)
    ware = await _for_sale(front, key, currency)
    visit = await visit_of(front, request, create=True)
    await Carts(front.engine.pool).put(
        visit.owner,
        key,
        quantity,
        ware.price,
        at=now_of(front.engine.clock),
        expected=expected,
        more=more,
    )
    return await shown(front, request, visit, currency)


async def _remove(front: Front, request: web.Request, key: Key | None, currency: str) -> Answer:
    expected = revision_in(request)
    visit = await visit_of(front, request)
    carts = Carts(front.engine.pool)
    if (await carts.get(visit.owner)).revision or expected:
        await carts.remove(visit.owner, key, at=now_of(front.engine.clock), expected=expected)
    return await shown(front, request, visit, currency)


async def _for_sale(front: Front, key: Key, currency: str) -> Ware:
    """What is to be put into a cart, if it is sold. Raises Refusal."""
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            known = await offers_of(front.engine, connection, [key], currency)
    ware = (await wares(front.engine, [key], known, currency)).get(key)
    if ware is None or ware.bar is LineState.UNAVAILABLE:
        if key[0] != SHOP and await front.engine.directory.get(key[0]) is None:
            raise Refusal(Code.UNKNOWN_SALE)
        raise Refusal(Code.UNKNOWN_SKU)
    if ware.bar is LineState.SALE_ENDED:
        raise Refusal(Code.SALE_ENDED)
    return ware


async def shown(
    front: Front, request: web.Request, visit: Visit, currency: str, *, status: int = 200
) -> Answer:
    """The cart as it is now."""
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            cart = await read_cart(connection, visit.owner)
            keys = [line.key for line in cart.lines]
            known = await offers_of(front.engine, connection, keys, currency)
    found = await wares(front.engine, keys, known, currency)
    body = cart_body(cart, found, language_of(request))
    return personal(body, status, ("ETag", _etag(cart)), *visit.headers)


def revision_in(request: web.Request) -> int | None:
    """What If-Match says (RFC 9110 §13.1.1); None: nothing, or that any will do. Raises Refusal."""
    text = request.headers.get("If-Match", "*").strip()
    if text == "*":
        return None
    found = _ETAG.fullmatch(text)
    if found is None:
        raise Refusal.of(invalid([FieldError("If-Match", "must be one ETag of this cart")]))
    return int(found[1])


def _etag(cart: Cart) -> str:
    return f'"{cart.revision}"'


def _key(request: web.Request) -> Key:
    sale_id, sku = request.match_info["sale"], request.match_info["sku"]
    if not SALE_ID.fullmatch(sale_id):
        raise Refusal(Code.UNKNOWN_SALE)
    if not SKU.fullmatch(sku):
        raise Refusal(Code.UNKNOWN_SKU)
    return sale_id, sku


_TAG: Final = "Cart"
_UNKNOWN: Final = (Code.UNKNOWN_SALE, Code.UNKNOWN_SKU, Code.SALE_ENDED)
_CHANGES: Final = (Code.CART_CHANGED, Code.CART_FULL)


def _spec(summary: str, *codes: Code, body: object = None, change: bool = True) -> Spec:
    return Spec(
        tag=_TAG,
        summary=summary,
        answers={200: CartBody},
        body=body,
        query=CartQuery,
        headers=(IF_MATCH,) if change else (),
        codes=codes,
    )


_LINE: Final = "/v1/cart/lines/{sale}/{sku}"
ROUTES = (
    Route(
        "GET",
        "/v1/cart",
        show_cart,
        access=Access.VISITOR,
        spec=_spec("The cart, with what its lines cost and have in stock now", change=False),
    ),
    Route(
        "POST",
        "/v1/cart/lines",
        add_line,
        access=Access.VISITOR,
        spec=_spec("Add units to the cart", *_UNKNOWN, *_CHANGES, body=AddBody),
    ),
    Route(
        "PUT",
        _LINE,
        put_line,
        access=Access.VISITOR,
        spec=_spec("Set how many units a line has", *_UNKNOWN, *_CHANGES, body=QuantityBody),
    ),
    Route(
        "DELETE",
        _LINE,
        remove_line,
        access=Access.VISITOR,
        spec=_spec("Remove a line", Code.UNKNOWN_SALE, Code.UNKNOWN_SKU, Code.CART_CHANGED),
    ),
    Route(
        "DELETE",
        "/v1/cart",
        empty_cart,
        access=Access.VISITOR,
        spec=_spec("Empty the cart", Code.CART_CHANGED),
    ),
)
