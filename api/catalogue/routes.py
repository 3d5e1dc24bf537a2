"""All routes of the catalogue. Fixed paths come before those with a name in them."""

from typing import Final

from api.catalogue import admin, bulk, categories, handlers, prices, stock
from api.routing import Route

ROUTES: Final[tuple[Route, ...]] = (
    *handlers.ROUTES,
    *categories.ROUTES,
    *bulk.ROUTES,
    *admin.ROUTES,
    *prices.ROUTES,
    *stock.ROUTES,
)
