"""Price lists: what all SKUs cost in one currency, read and changed together by operators."""

from typing import Annotated, Any, Final

import msgspec
from aiohttp import web

from api.answers import Answer, personal
from api.bodies import decode, require_json
from api.catalogue.document import SkuText
from api.catalogue.staging import INDEX_BATCH_MAX
from api.catalogue.store import writing
from api.front import Front
from api.paging import cursor, cursor_text
from api.pricing.money import is_currency
from api.problems import Code, Refusal
from api.queries import read_query
from api.routing import Route
from api.search.index import index_products
from api.spec import Access, Spec
from engine.errors import Invalid
from engine.sales.document import PRICE_MINOR_MAX
from engine.store.database import Connection, postgres_errors
from engine.store.sales import log_audit

PRICES_MAX: Final = 1000  # In one request; files take more.
BODY_BYTES_MAX: Final = 131_072

_TAG: Final = "Catalogue"
AmountMinor = Annotated[int, msgspec.Meta(ge=1, le=PRICE_MINOR_MAX)]


class PricesQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters of GET /v1/admin/price-lists/{currency}."""

    after: Annotated[str, msgspec.Meta(max_length=512)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=PRICES_MAX)] = 200


class PriceListBody(msgspec.Struct, frozen=True):
    """Amounts in the smallest unit by SKU, in the order of the SKUs. `next` is for `?after=`."""

    currency: str
    prices: dict[str, int]
    next: str | None


class PricesChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Amounts in the smallest unit by SKU; null takes a price off the list."""

    prices: Annotated[
        dict[SkuText, AmountMinor | None], msgspec.Meta(min_length=1, max_length=PRICES_MAX)
    ]


class PricesChanged(msgspec.Struct, frozen=True):
    """How many SKUs cost something else now."""

    changed: int


class PageEnd(msgspec.Struct, frozen=True, array_like=True):
    """The last SKU of a page."""

    sku: SkuText


_decoder: Final = msgspec.json.Decoder(PricesChange)
_end_decoder: Final = msgspec.json.Decoder(PageEnd)

_CHANGE: Final = """
    WITH wanted AS (
        SELECT * FROM unnest($2::text[], $3::bigint[]) AS wanted (sku, amount_minor)
    ), dropped AS (
        DELETE FROM sku_prices USING wanted
        WHERE sku_prices.sku = wanted.sku COLLATE "C" AND currency = $1::char(3)
          AND wanted.amount_minor IS NULL
        RETURNING sku_prices.sku
    ), put AS (
        INSERT INTO sku_prices AS known (sku, currency, amount_minor)
        SELECT sku, $1, amount_minor FROM wanted WHERE amount_minor IS NOT NULL ORDER BY sku
        ON CONFLICT (sku, currency) DO UPDATE SET amount_minor = excluded.amount_minor
        WHERE known.amount_minor <> excluded.amount_minor
        RETURNING sku
    ), changed AS (
        SELECT sku FROM dropped UNION ALL SELECT sku FROM put
    ), revised AS (
        UPDATE products SET revision = revision + 1, updated_at = now()
        WHERE product_id IN (SELECT product_id FROM skus WHERE sku IN (SELECT sku FROM changed))
        RETURNING product_id
    )
    SELECT (SELECT count(*) FROM changed) AS changed, array(SELECT product_id FROM revised) AS ids
"""


async def show_list(front: Front, request: web.Request) -> Answer:
    query = read_query(request, PricesQuery)
    currency = _currency(request)
    end = cursor(request, _end_decoder)
    with postgres_errors():
        rows = await front.engine.pool.fetch(
            "SELECT sku, amount_minor FROM sku_prices WHERE currency = $1::char(3) AND sku > $2"
            " ORDER BY sku LIMIT $3",
            currency,
            end.sku if end else "",
            query.limit,
        )
    following = cursor_text(PageEnd(rows[-1]["sku"])) if len(rows) == query.limit else None
    prices = {row["sku"]: row["amount_minor"] for row in rows}
    return personal(PriceListBody(currency, prices, following))


async def change_list(front: Front, request: web.Request) -> Answer:
    currency = _currency(request)
    body = await front.bodies.raw(request, BODY_BYTES_MAX)
    require_json(request.headers)
    prices = decode(body, _decoder).prices
    actor = front.caller(request).user_id
    async with writing(front.engine.pool) as connection:
        await _refuse_unknown(connection, list(prices))
        changed = await _change(connection, currency, prices)
        if changed:
            detail: dict[str, object] = {"currency": currency, "prices": prices}
            await log_audit(
                connection, actor=actor, action="change_prices", sale_id=None, detail=detail
            )
    return personal(PricesChanged(changed))


async def _refuse_unknown(connection: Connection, skus: list[str]) -> None:
    rows = await connection.fetch("SELECT sku FROM skus WHERE sku = ANY($1)", skus)
    known = {row["sku"] for row in rows}
    for sku in skus:
        if sku not in known:
            raise Invalid(f"prices.{sku}", "there is no such SKU")


async def _change(connection: Connection, currency: str, prices: dict[str, Any]) -> int:
    row = await connection.fetchrow(_CHANGE, currency, list(prices), list(prices.values()))
    ids = row["ids"]
    for at in range(0, len(ids), INDEX_BATCH_MAX):
        await index_products(connection, ids[at : at + INDEX_BATCH_MAX])
    changed: int = row["changed"]
    return changed


def _currency(request: web.Request) -> str:
    currency = request.match_info["currency"]
    if not is_currency(currency):
        raise Refusal(Code.NOT_FOUND, "That is no currency of ISO 4217.")
    return currency


_PATH: Final = "/v1/admin/price-lists/{currency}"

ROUTES: Final = (
    Route(
        "GET",
        _PATH,
        show_list,
        access=Access.SUPPORT,
        spec=Spec(
            tag=_TAG,
            summary="The price list of a currency",
            answers={200: PriceListBody},
            query=PricesQuery,
            codes=(Code.NOT_FOUND,),
        ),
    ),
    Route(
        "PATCH",
        _PATH,
        change_list,
        access=Access.OPERATOR,
        spec=Spec(
            tag=_TAG,
            summary="Change prices of a currency",
            description="SKUs without a price in a currency cost their price in the shop's own,"
            " converted by the newest exchange rate.",
            answers={200: PricesChanged},
            body=PricesChange,
            codes=(Code.NOT_FOUND, Code.BODY_TOO_LARGE, Code.CONFLICT),
        ),
    ),
)
