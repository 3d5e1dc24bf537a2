"""The calls on ordinary stock: how many units of an SKU there are, more of them, fewer of them."""

from typing import Annotated, Any, Final

import msgspec
from aiohttp import web

from api.answers import Answer, personal
from api.front import Front
from api.problems import Code, Refusal
from api.reservations.decision import check_key
from api.routing import Route
from api.spec import IDEMPOTENCY_KEY, Access, Spec
from engine.model import SHOP, UNITS_MAX
from engine.store.database import postgres_errors

_TAG: Final = "Catalogue"
KEY: Final = IDEMPOTENCY_KEY._replace(required=True)


class StockBody(msgspec.Struct, frozen=True):
    """Ordinary stock of an SKU: available = stocked - ordered; those sold are among the ordered."""

    sku: str
    stocked: int
    ordered: int
    sold: int
    available: int


class StockChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Units more, or with a minus fewer: lost, broken, given away. Not how many there shall be."""

    units: Annotated[int, msgspec.Meta(ge=-UNITS_MAX, le=UNITS_MAX)]

    def __post_init__(self) -> None:
        if not self.units:
            raise ValueError("units are to be more or fewer, not the same")


_decoder: Final = msgspec.json.Decoder(StockChange)


async def show_stock(front: Front, request: web.Request) -> Answer:
    return personal(await _stock(front, request.match_info["sku"]))


async def change_stock(front: Front, request: web.Request) -> Answer:
    sku = request.match_info["sku"]
    change = await front.bodies.json(request, _decoder)
    key = check_key(request.headers.get("Idempotency-Key"))
    await _stock(front, sku)  # 404 for what the catalogue does not have.
    shelf, actor = front.engine.shelf, front.caller(request).user_id
    if change.units > 0:
        await shelf.restock(sku, change.units, actor, key)
    else:
        await shelf.write_off(sku, -change.units, actor, key)
    return personal(await _stock(front, sku))


async def _stock(front: Front, sku: str) -> StockBody:
    with postgres_errors():
        row: Any = await front.engine.pool.fetchrow(
            """
            SELECT coalesce(stocked, 0) AS stocked, coalesce(ordered, 0) AS ordered,
                   coalesce(sold, 0) AS sold
            FROM skus LEFT JOIN sale_items AS shelf
                ON shelf.sale_id = $2 AND shelf.sku = skus.sku COLLATE "default"
            WHERE skus.sku = $1
            """,
            sku,
            SHOP,
        )
    if row is None:
        raise Refusal(Code.NOT_FOUND)
    return StockBody(sku, **row, available=row["stocked"] - row["ordered"])


_PATH: Final = "/v1/admin/stock/{sku}"

ROUTES: Final = (
    Route(
        "GET",
        _PATH,
        show_stock,
        access=Access.SUPPORT,
        spec=Spec(
            tag=_TAG,
            summary="Ordinary stock of an SKU",
            answers={200: StockBody},
            codes=(Code.NOT_FOUND,),
        ),
    ),
    Route(
        "PUT",
        _PATH,
        change_stock,
        access=Access.OPERATOR,
        spec=Spec(
            tag=_TAG,
            summary="Put units of an SKU up, or write units off",
            description="Never takes what is ordered. Stock of a sale is the sale's own.",
            answers={200: StockBody},
            body=StockChange,
            headers=(KEY,),
            codes=(Code.NOT_FOUND, Code.SOLD_OUT, Code.IDEMPOTENCY_MISMATCH),
        ),
    ),
)
