"""The calls that show sales. Anyone may look."""

import asyncio
from typing import Final

from aiohttp import web

from api.answers import Answer, public
from api.front import Front
from api.routing import Route
from api.sales.bodies import SaleBody, SalesBody
from api.spec import Access, Spec

SALES_SHOWN_MAX: Final = 100  # Newest windows first; older sales are found by name.


async def list_sales(front: Front, _: web.Request) -> Answer:
    sales = (await front.engine.directory.all())[:SALES_SHOWN_MAX]
    bodies = await asyncio.gather(*(front.shown_sales.body(sale) for sale in sales))
    return public(SalesBody(list(bodies)))


async def show_sale(front: Front, request: web.Request) -> Answer:
    return await sale_shown(front, request.match_info["sale"])


async def sale_shown(front: Front, sale_id: str) -> Answer:
    """The sale as it is now, or the problem that there is none."""
    return front.shown_sales.peek(sale_id) or await front.shown_sales.show(sale_id)


ROUTES = (
    Route(
        "GET",
        "/v1/sales",
        list_sales,
        access=Access.PUBLIC,
        spec=Spec(
            tag="Sales",
            summary="The sales",
            description=f"The {SALES_SHOWN_MAX} newest, with what is left of each SKU.",
            answers={200: SalesBody},
        ),
    ),
    Route(
        "GET",
        "/v1/sales/{sale}",
        show_sale,
        access=Access.PUBLIC,
        spec=Spec(
            tag="Sales",
            summary="A sale and its live stock",
            description=(
                "`available` may lag by 100 ms and is null while nobody knows. "
                "Count down to `opens_at` by `server_time`, not by the device's clock."
            ),
            answers={200: SaleBody},
        ),
    ),
)
