"""The calls that find products: a listing, a search, and suggestions while one types."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import msgspec
from aiohttp import web
from multidict import istr

from api.answers import PUBLIC, Answer
from api.catalogue.offers import BASE_CURRENCY
from api.front import Front
from api.language import language_of
from api.paging import cursor
from api.pricing.money import is_currency
from api.problems import Code, FieldError, Refusal, invalid
from api.queries import read_query
from api.routing import Route
from api.search.bodies import FoundProducts, ProductsQuery, Suggestions, SuggestionsQuery
from api.search.filters import Key, Price, fits
from api.search.finder import Finder, Found, SearchTooDear
from api.search.query import read_wish
from api.search.shown import bands_of, products_body
from api.search.statement import Search
from api.search.suggestions import suggest
from api.spec import Access, Param, Spec

_BAD_KEY: Final = "after must be the `next` of an earlier page."
_LANGUAGE: Final = Param("Accept-Language", "The language of names: en or zh-CN.")

_key_decoder: Final = msgspec.json.Decoder(Key)


async def find_products(front: Front, request: web.Request) -> Answer:
    search = _search(front, request)
    if search.query.q and search.wish.is_empty:
        found = Found(search)  # Nothing in it can be looked for.
    else:
        found = await _find(front, search)
    return _said(request, products_body(found, language_of(request)))


async def _find(front: Front, search: Search) -> Found:
    try:
        return await Finder(front.engine.pool).find(search)
    except SearchTooDear as error:
        raise Refusal(Code.OVERLOADED, str(error)) from error


async def suggest_words(front: Front, request: web.Request) -> Answer:
    query = read_query(request, SuggestionsQuery)
    try:
        found = await suggest(front.engine.pool, query.q, query.limit)
    except SearchTooDear as error:
        raise Refusal(Code.OVERLOADED, str(error)) from error
    return _said(request, Suggestions(found))


def _search(front: Front, request: web.Request) -> Search:
    query, base = read_query(request, ProductsQuery), front.engine.settings.currency_default
    search = search_of(query, front.engine.clock.now_ms(), base)
    after = cursor(request, _key_decoder)
    if after is not None and not fits(after, search.sort):
        raise Refusal(Code.INVALID_REQUEST, _BAD_KEY)
    return replace(search, after=after)


def search_of(query: ProductsQuery, now_ms: int, base: str = BASE_CURRENCY) -> Search:
    """The first page of what is asked for. Raises Refusal."""
    currency = query.currency or base
    if not is_currency(currency):
        raise Refusal.of(invalid([FieldError("currency", "is none of ISO 4217 that is in use")]))
    return Search(
        query=query,
        wish=read_wish(query.q or ""),
        price=Price(currency, base),
        bands=bands_of(currency),
        now=datetime.fromtimestamp(now_ms / 1000, UTC),
    )


def _said(request: web.Request, body: FoundProducts | Suggestions) -> Answer:
    language = (istr("Content-Language"), language_of(request))
    vary = (istr("Vary"), "Accept-Language")
    return Answer(200, msgspec.json.encode(body), (*PUBLIC, language, vary))


ROUTES: Final = (
    Route(
        "GET",
        "/v1/products",
        find_products,
        access=Access.VISITOR,
        spec=Spec(
            tag="Catalogue",
            summary="List and search products",
            description=(
                "With `q`, products are searched in Chinese and English: all words must be there,"
                ' words in "quotes" side by side, words after a minus not at all. If nothing matches,'
                " a mistyped word is put right and told as `corrected`; then words are left out until"
                " something has the others, and told as `left_out`. Without `q` they are listed."
                " The order is by relevance with `q` and newest first without, if `sort` says nothing;"
                " by price, only products that have one in `currency` are shown."
            ),
            answers={200: FoundProducts},
            query=ProductsQuery,
            headers=(_LANGUAGE,),
        ),
    ),
    Route(
        "GET",
        "/v1/suggestions",
        suggest_words,
        access=Access.VISITOR,
        spec=Spec(
            tag="Catalogue",
            summary="Suggest how to go on typing",
            answers={200: Suggestions},
            query=SuggestionsQuery,
            headers=(_LANGUAGE,),
        ),
    ),
)
