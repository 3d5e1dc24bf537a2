"""Composes the HTTP application of one front process."""

from typing import Final

from aiohttp import web

from api.admin import handlers as admin
from api.front import Front
from api.openapi.handlers import Contract
from api.operations import handlers as operations
from api.orders import handlers as orders
from api.payments import handlers as payments
from api.payments.providers import webhook_providers
from api.queue import polls
from api.queue.handlers import Entrance
from api.reservations import handlers as reservations
from api.routing import Route, add_routes, no_route
from api.sales import handlers as sales
from api.users import handlers as users
from api.webhooks import handlers as webhooks
from engine.core import Engine

FRONT: Final = web.AppKey("front", Front)
ENTRANCE: Final = web.AppKey("entrance", Entrance)
CONTRACT: Final = web.AppKey("contract", Contract)

ROUTES: Final[tuple[Route, ...]] = (
    *users.ROUTES,
    *sales.ROUTES,
    *reservations.ROUTES,
    *polls.ROUTES,
    *orders.ROUTES,
    *payments.ROUTES,
    *webhooks.ROUTES,
    *admin.ROUTES,
    *operations.ROUTES,
)


def make_app(engine: Engine) -> web.Application:
    """Every call of the HTTP contract. Leaves opening and closing the engine to its owner."""
    front = Front.of(engine, webhook_providers(engine.settings, engine.clock))
    app = web.Application(
        middlewares=[no_route(front)], client_max_size=engine.settings.body_bytes_max
    )
    app[FRONT] = front
    entrance = app[ENTRANCE] = Entrance.of(engine)
    routes = (*ROUTES, *entrance.routes)
    contract = app[CONTRACT] = Contract(routes, engine.settings.public_url)
    add_routes(app, front, (*routes, *contract.routes))
    app.on_cleanup.append(_close)
    return app


async def _close(app: web.Application) -> None:
    await app[ENTRANCE].close()
    front = app[FRONT]
    front.flush()
    front.passwords.close()
