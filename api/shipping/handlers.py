"""The calls on shipping methods: what buyers may choose from, and what operators change."""

from typing import Annotated, Final

import msgspec
from aiohttp import web

from api.answers import Answer, personal
from api.carriers.registry import known_carriers
from api.front import Front
from api.language import language_of, pick
from api.problems import Code, FieldError, Refusal, invalid
from api.queries import read_query
from api.routing import Route
from api.shipping.bodies import METHOD_ID, Country, Currency, OptionalLine
from api.shipping.catalogue import fetch_methods, put_method, withdraw_method
from api.shipping.documents import Method, MethodDocument
from api.shipping.fees import GRAMS_MAX, MINOR_MAX
from api.shipping.methods import ShippingMethods, ShippingQuote
from api.spec import Access, Spec
from engine.model import Money
from engine.store.database import Connection, postgres_errors
from engine.store.sales import log_audit

_decoder: Final = msgspec.json.Decoder(MethodDocument)


class QuoteQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is sent where. `subtotal_minor`: what the goods cost before discounts."""

    country: Country
    currency: Currency
    weight_grams: Annotated[int, msgspec.Meta(ge=0, le=GRAMS_MAX)]
    region: OptionalLine = ""
    subtotal_minor: Annotated[int, msgspec.Meta(ge=0, le=MINOR_MAX)] | None = None


class QuoteBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """A method that may be chosen. `free_from`: the subtotal from which the fee is 0."""

    method_id: str
    name: str
    fee: Money
    days_min: int
    days_max: int
    free_from: Money | None = None


class QuotesBody(msgspec.Struct, frozen=True):
    """All of them, in the shop's order."""

    methods: list[QuoteBody]


class MethodsBody(msgspec.Struct, frozen=True):
    """All methods, those included that are not offered."""

    methods: list[Method]


async def show_quotes(front: Front, request: web.Request) -> Answer:
    query = read_query(request, QuoteQuery)
    quotes = await ShippingMethods(front.engine.pool).quotes(
        country=query.country,
        region=query.region,
        weight_grams=query.weight_grams,
        currency=query.currency,
        subtotal_minor=query.subtotal_minor,
    )
    language = language_of(request)
    return personal(QuotesBody([_quote_body(quote, language) for quote in quotes]))


async def list_methods(front: Front, _: web.Request) -> Answer:
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            return personal(MethodsBody(await fetch_methods(connection)))


async def show_method(front: Front, request: web.Request) -> Answer:
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            return personal(await _find(connection, _method_id(request)))


async def change_method(front: Front, request: web.Request) -> Answer:
    """The whole method at once, so that no buyer meets half of a change."""
    method_id = _method_id(request)
    document = await front.bodies.json(request, _decoder)
    engine = front.engine
    carriers = known_carriers(engine.settings, engine.clock)
    if carriers and document.carrier not in carriers:
        raise Refusal.of(invalid([FieldError("carrier", "there is no such carrier")]))
    with postgres_errors():
        async with engine.pool.acquire() as connection, connection.transaction():
            new = await put_method(connection, method_id, document)
            await _log(connection, front, request, "put_shipping_method")
            method = await _find(connection, method_id)
    return personal(method, 201 if new else 200)


async def remove_method(front: Front, request: web.Request) -> Answer:
    await front.bodies.none(request)
    method_id = _method_id(request)
    with postgres_errors():
        async with front.engine.pool.acquire() as connection, connection.transaction():
            if not await withdraw_method(connection, method_id):
                raise Refusal(Code.NOT_FOUND)
            await _log(connection, front, request, "withdraw_shipping_method")
            return personal(await _find(connection, method_id))


async def _log(connection: Connection, front: Front, request: web.Request, action: str) -> None:
    await log_audit(
        connection,
        actor=front.caller(request).user_id,
        action=action,
        sale_id=None,
        detail={"method_id": request.match_info["method"]},
    )


async def _find(connection: Connection, method_id: str) -> Method:
    found = await fetch_methods(connection, method_id)
    if not found:
        raise Refusal(Code.NOT_FOUND)
    return found[0]


def _method_id(request: web.Request) -> str:
    try:
        return msgspec.convert(request.match_info["method"], _MethodIdText)
    except msgspec.ValidationError:
        raise Refusal(Code.NOT_FOUND) from None


def _quote_body(quote: ShippingQuote, language: str) -> QuoteBody:
    return QuoteBody(
        method_id=quote.method_id,
        name=pick(quote.name, language),
        fee=quote.fee,
        days_min=quote.days_min,
        days_max=quote.days_max,
        free_from=quote.free_from,
    )


_MethodIdText = Annotated[str, msgspec.Meta(pattern=METHOD_ID)]

ROUTES = (
    Route(
        "GET",
        "/v1/shipping/methods",
        show_quotes,
        access=Access.VISITOR,
        spec=Spec(
            tag="Shipping",
            summary="Methods and fees for an address and a weight",
            description="Of each method the most specific zone counts. None where nothing is "
            "carried there, or not in that currency.",
            answers={200: QuotesBody},
            query=QuoteQuery,
        ),
    ),
    Route(
        "GET",
        "/v1/admin/shipping/methods",
        list_methods,
        access=Access.OPERATOR,
        spec=Spec(
            tag="Shipping", summary="All shipping methods with their zones and fees",
            answers={200: MethodsBody},
        ),
    ),
    Route(
        "GET",
        "/v1/admin/shipping/methods/{method}",
        show_method,
        access=Access.OPERATOR,
        spec=Spec(
            tag="Shipping", summary="One shipping method", answers={200: Method},
            codes=(Code.NOT_FOUND,),
        ),
    ),
    Route(
        "PUT",
        "/v1/admin/shipping/methods/{method}",
        change_method,
        access=Access.OPERATOR,
        spec=Spec(
            tag="Shipping",
            summary="Make or replace a shipping method, with all of its zones and fees",
            answers={201: Method, 200: Method},
            body=MethodDocument,
            codes=(Code.NOT_FOUND, Code.BODY_TOO_LARGE),
        ),
    ),
    Route(
        "DELETE",
        "/v1/admin/shipping/methods/{method}",
        remove_method,
        access=Access.OPERATOR,
        spec=Spec(
            tag="Shipping",
            summary="Offer a shipping method no more; orders that go by it keep its name",
            answers={200: Method},
            codes=(Code.NOT_FOUND,),
        ),
    ),
)  # fmt: skip
