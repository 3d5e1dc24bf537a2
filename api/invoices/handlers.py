"""The call for an invoice: for the order's owner, and for support on that buyer's behalf."""

from datetime import UTC, datetime

from aiohttp import web

from api.answers import Answer
from api.front import Front, order_ids
from api.invoices.document import Seller
from api.invoices.page import invoice_answer
from api.invoices.store import invoice_of
from api.language import language_of
from api.orders.handlers import own_order
from api.problems import Code
from api.routing import Route
from api.spec import Access, Spec
from api.tokens import Role
from engine.admission.limit import Priority
from engine.config import Settings
from engine.store.database import postgres_errors
from engine.store.resolutions import OrderKey

HELPERS = frozenset({Role.SUPPORT, Role.OPERATOR})


async def show_invoice(front: Front, request: web.Request) -> Answer:
    """Issues it when it is asked for first: a GET that can be repeated, the number stays."""
    if front.caller(request).role not in HELPERS:
        await own_order(front, request)
    key = OrderKey(*order_ids(request, "order"))
    engine = front.engine
    now = datetime.fromtimestamp(engine.clock.now_ms() / 1000, UTC)
    with postgres_errors():
        async with engine.pool.acquire() as connection, connection.transaction():
            invoice = await invoice_of(connection, key, _seller(engine.settings), now)
    return invoice_answer(invoice, language_of(request))


def _seller(settings: Settings) -> Seller:
    return Seller(settings.seller_name, settings.seller_address, settings.seller_tax_id)


ROUTES = (
    Route(
        "GET",
        "/v1/orders/{order}/invoice",
        show_invoice,
        priority=Priority.PAYMENT,
        access=Access.CALLER,
        spec=Spec(
            tag="Invoices",
            summary="The invoice of a paid order, as a page to print",
            description="Numbered without gaps within a year when it is asked for first; from then "
            "on it stays as it was issued. For its owner, and for support.",
            answers={200: "text/html"},
            codes=(Code.NOT_FOUND, Code.NOT_INVOICEABLE),
        ),
    ),
)
