"""Composes the HTTP application of one front process."""

from typing import Final

from aiohttp import web

from api.addresses import handlers as addresses
from api.admin import handlers as admin
from api.carriers import handlers as carriers
from api.cart import handlers as cart
from api.cart import till
from api.catalogue import routes as catalogue
from api.front import Front
from api.http_client import AioHttpClient
from api.invoices import handlers as invoices
from api.mail import admin as mails
from api.oauth import handlers as oauth
from api.openapi.handlers import Contract
from api.operations import handlers as operations
from api.orders import admin as orders_admin
from api.orders import handlers as orders
from api.payments import admin as payments_admin
from api.payments import handlers as payments
from api.payments.providers import front_providers
from api.points import handlers as points
from api.promotions import admin as promotions_admin
from api.promotions import handlers as promotions
from api.queue import polls
from api.queue.handlers import Entrance
from api.rates import handlers as rates
from api.reconciliation import handlers as reconciliation
from api.reservations import handlers as reservations
from api.returns import handlers as returns
from api.reviews import admin as reviews_admin
from api.reviews import handlers as reviews
from api.routing import Route, add_routes, no_route
from api.sales import handlers as sales
from api.search import handlers as search
from api.shipping import fulfilment
from api.shipping import handlers as shipping
from api.subscriptions import admin as subscriptions
from api.users import admin as admin_users
from api.users import handlers as users
from api.users import logins, password_resets
from api.webhooks import handlers as webhooks
from engine.core import Engine

FRONT: Final = web.AppKey("front", Front)
ENTRANCE: Final = web.AppKey("entrance", Entrance)
CONTRACT: Final = web.AppKey("contract", Contract)
HTTP: Final = web.AppKey("http", AioHttpClient)
PROVIDER_CONNECTIONS_MAX: Final = 2  # A front asks payment providers for their public keys only.

ROUTES: Final[tuple[Route, ...]] = (
    *users.ROUTES,
    *logins.ROUTES,
    *password_resets.ROUTES,
    *admin_users.ROUTES,
    *addresses.ROUTES,
    *mails.ROUTES,
    *oauth.ROUTES,
    *sales.ROUTES,
    *reservations.ROUTES,
    *cart.ROUTES,
    *till.ROUTES,
    *polls.ROUTES,
    *orders.ROUTES,
    *payments.ROUTES,
    *payments_admin.ROUTES,
    *reconciliation.ROUTES,
    *webhooks.ROUTES,
    *promotions.ROUTES,
    *promotions_admin.ROUTES,
    *points.ROUTES,
    *catalogue.ROUTES,
    *rates.ROUTES,
    *search.ROUTES,
    *reviews.ROUTES,
    *reviews_admin.ROUTES,
    *subscriptions.ROUTES,
    *orders_admin.ROUTES,
    *returns.ROUTES,
    *invoices.ROUTES,
    *shipping.ROUTES,
    *fulfilment.ROUTES,
    *carriers.ROUTES,
    *admin.ROUTES,
    *operations.ROUTES,
)


def make_app(engine: Engine) -> web.Application:
    """Every call of the HTTP contract. Leaves opening and closing the engine to its owner."""
    http = AioHttpClient(connections_max=PROVIDER_CONNECTIONS_MAX)
    front = Front.of(engine, front_providers(engine.settings, http, engine.clock))
    app = web.Application(
        middlewares=[no_route(front)], client_max_size=engine.settings.body_bytes_max
    )
    app[FRONT], app[HTTP] = front, http
    entrance = app[ENTRANCE] = Entrance.of(engine)
    routes = (*ROUTES, *entrance.routes)
    contract = app[CONTRACT] = Contract(routes, engine.settings.public_url)
    add_routes(app, front, (*routes, *contract.routes))
    app.on_cleanup.append(_close)
    return app


async def _close(app: web.Application) -> None:
    await app[ENTRANCE].close()
    await app[HTTP].close()
    front = app[FRONT]
    await front.oidc.close()
    front.flush()
    front.passwords.close()
