"""The calls that show sales. Anyone may look."""

import asyncio
from typing import Final

from aiohttp import web

from api.answers import Answer, public
from api.front import Front
from api.problems import Code, problem
from api.routing import Route
from api.sales.bodies import SaleBody, sale_body
from engine.errors import Unavailable
from engine.inventory import StockSnapshot
from engine.sales import Sale

SALES_SHOWN_MAX: Final = 100  # Newest windows first; older sales are found by name.


async def list_sales(front: Front, _: web.Request) -> Answer:
    sales = (await front.engine.directory.all())[:SALES_SHOWN_MAX]
    return public({"sales": await asyncio.gather(*(_shown(front, sale) for sale in sales))})


async def show_sale(front: Front, request: web.Request) -> Answer:
    return await sale_shown(front, request.match_info["sale"])


async def sale_shown(front: Front, sale_id: str) -> Answer:
    """The sale as it is now, or the problem that there is none."""
    sale = await front.engine.directory.get(sale_id)
    if sale is None:
        return problem(Code.UNKNOWN_SALE)
    return public(await _shown(front, sale))


async def live_stock(front: Front, sale_id: str) -> StockSnapshot | None:
    """The stock at most 100 ms ago; None while Redis does not answer."""
    try:
        return await front.engine.live_stock.get(sale_id)
    except Unavailable:
        return None


async def _shown(front: Front, sale: Sale) -> SaleBody:
    stock = await live_stock(front, sale.sale_id)
    if stock is not None and int(stock.config.get("revision", 0)) > sale.revision:
        # Another process changed the sale; our copy would show it for up to a second.
        front.engine.directory.forget(sale.sale_id)
        sale = await front.engine.directory.get(sale.sale_id) or sale
    return sale_body(sale, stock, front.engine.clock.now_ms())


ROUTES = (
    Route("GET", "/v1/sales", list_sales),
    Route("GET", "/v1/sales/{sale}", show_sale),
)
