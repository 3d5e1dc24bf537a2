"""The calls on payments. The provider is called by the worker, never here."""

from functools import partial
from typing import Annotated, Any, Final

import msgspec
from aiohttp import web

from api.answers import Answer, personal, public
from api.front import Front, order_ids
from api.language import language_of
from api.orders.store import OrderBook, PaymentBody, PaymentRow, payment_body
from api.payments.undrained import order_on_its_way
from api.problems import Code, Refusal
from api.reservations.decision import check_key
from api.routing import Route
from api.spec import IDEMPOTENCY_KEY, LOCATION, Access, Spec
from api.tokens import Identity, Role
from engine.admission.limit import Priority
from engine.errors import UnknownReservation
from engine.model import Money
from engine.payment.provider import ActionKind
from engine.payment.service import Visit

PROVIDER_DEFAULT: Final = "sandbox"
OPTIONS_MAX: Final = 16
# A place in this shop. No `//host` and no backslash: a browser takes both for another site.
RETURN_PATH: Final = r"^/([!-.0-\[\]-~][!-\[\]-~]{0,510})?$"


class PayBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /v1/orders/{id}/payments; `options` are the provider's business."""

    provider: Annotated[str, msgspec.Meta(max_length=32)] = PROVIDER_DEFAULT
    options: Annotated[dict[str, Any], msgspec.Meta(max_length=OPTIONS_MAX)] = {}
    # Where in the shop the buyer goes on after a redirect.
    return_path: Annotated[str, msgspec.Meta(pattern=RETURN_PATH)] | None = None

    def __post_init__(self) -> None:
        if self.return_path is not None and "\n" in self.return_path:
            raise ValueError("return_path must be one line")


class RefundBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be refunded; nothing said means the whole payment."""

    amount: Money | None = None


class ProviderBody(msgspec.Struct, frozen=True):
    """A way to pay. `currencies` null: any; no `actions`: it is paid at once."""

    name: str
    currencies: list[str] | None
    actions: list[ActionKind]


class ProvidersBody(msgspec.Struct, frozen=True):
    """The ways to pay, by name."""

    providers: list[ProviderBody]


_decoder: Final = msgspec.json.Decoder(PayBody)
_refund_decoder: Final = msgspec.json.Decoder(RefundBody)


async def start_payment(front: Front, request: web.Request) -> Answer:
    identity = front.caller(request)
    ids = order_ids(request, "order")
    body = await front.bodies.optional_json(request, _decoder, PayBody())
    if body.provider not in front.providers:
        known = ", ".join(sorted(front.providers)) or "none"
        raise Refusal(Code.INVALID_REQUEST, f"provider: must be one of {known}.")
    start = partial(
        front.engine.payments.start,
        *ids,
        identity.user_id,
        body.provider,
        body.options,
        _key(front, request),
        visit=Visit(body.return_path, front.address(request), language_of(request)),
        currencies=front.providers[body.provider].offer.currencies,
    )
    try:
        payment = await start()
    except UnknownReservation:
        if await order_on_its_way(front, request, *ids) is None:
            raise
        payment = await start()
    shown = await _find(front, payment.payment_id)
    return personal(payment_body(shown), 201, ("Location", f"/v1/payments/{payment.payment_id}"))


async def list_providers(front: Front, _: web.Request) -> Answer:
    offers = sorted((name, provider.offer) for name, provider in front.providers.items())
    return public(
        ProvidersBody(
            [
                ProviderBody(name, _sorted(offer.currencies), list(offer.actions))
                for name, offer in offers
            ]
        )
    )


async def show_payment(front: Front, request: web.Request) -> Answer:
    identity = front.caller(request)
    return personal(payment_body(await _visible(front, request, identity)))


async def ask_refund(front: Front, request: web.Request) -> Answer:
    """For the buyer, until the order is sent, and for operators. 202: the worker asks the provider."""
    identity = front.caller(request)
    payment = await _visible(front, request, identity)
    by_operator = identity.role is Role.OPERATOR
    return await refund(
        front, request, payment.payment_id, identity.user_id, unless_sent=not by_operator
    )


async def refund(
    front: Front,
    request: web.Request,
    payment_id: str,
    actor: str,
    *,
    unless_sent: bool = False,
) -> Answer:
    """A body may name the amount, to be safe; it must be the whole of it."""
    body = await front.bodies.optional_json(request, _refund_decoder, RefundBody())
    if body.amount is not None:
        payment = await _find(front, payment_id)
        if body.amount != Money(payment.amount_minor, payment.currency):
            raise Refusal(Code.INVALID_REQUEST, "amount: only the whole payment can be refunded.")
    await front.engine.payments.request_refund(payment_id, actor, unless_sent=unless_sent)
    return personal(payment_body(await _find(front, payment_id)), 202)


def _sorted(currencies: frozenset[str] | None) -> list[str] | None:
    return None if currencies is None else sorted(currencies)


def _key(front: Front, request: web.Request) -> str:
    """The caller's key; without one every call is a payment of its own."""
    key = request.headers.get("Idempotency-Key")
    return front.engine.ids.new("once") if key is None else check_key(key)


async def _visible(front: Front, request: web.Request, identity: Identity) -> PaymentRow:
    payment = await OrderBook(front.engine.pool).payment(request.match_info["payment"])
    if payment is None or not (
        payment.user_id == identity.user_id or identity.role is Role.OPERATOR
    ):
        raise Refusal(Code.NOT_FOUND)
    return payment


async def _find(front: Front, payment_id: str) -> PaymentRow:
    payment = await OrderBook(front.engine.pool).payment(payment_id)
    if payment is None:
        raise Refusal(Code.NOT_FOUND)
    return payment


_TAG: Final = "Payments"
_START: Final = Spec(
    tag=_TAG,
    summary="Pay an order",
    description="The provider is asked by the worker: look at the payment again, and do what its "
    "`action` says while it is pending. The same key gives the same payment again.",
    headers=(IDEMPOTENCY_KEY,),
    body=PayBody,
    body_required=False,
    answers={201: PaymentBody},
    tells={201: (LOCATION,)},
    codes=(
        Code.NOT_FOUND,
        Code.ORDER_NOT_PAYABLE,
        Code.TOO_MANY_PAYMENTS,
        Code.IDEMPOTENCY_MISMATCH,
    ),
)
_PROVIDERS: Final = Spec(
    tag=_TAG,
    summary="The ways to pay",
    description="With the currencies that each takes, and what a buyer will have to do.",
    answers={200: ProvidersBody},
)
_SHOW: Final = Spec(
    tag=_TAG, summary="A payment", answers={200: PaymentBody}, codes=(Code.NOT_FOUND,)
)
_REFUND: Final = Spec(
    tag=_TAG,
    summary="Ask for the money back",
    description="202: the worker asks the provider. A body may name the amount, which is the whole. "
    "What was sent has to come back first: buyers ask for a return.",
    body=RefundBody,
    body_required=False,
    answers={202: PaymentBody},
    codes=(Code.NOT_FOUND, Code.NOT_REFUNDABLE),
)

ROUTES = (
    Route(
        "POST",
        "/v1/orders/{order}/payments",
        start_payment,
        priority=Priority.PAYMENT,
        access=Access.CALLER,
        spec=_START,
    ),
    Route(
        "GET",
        "/v1/payments/providers",
        list_providers,
        priority=Priority.PAYMENT,
        access=Access.VISITOR,
        spec=_PROVIDERS,
    ),
    Route(
        "GET",
        "/v1/payments/{payment}",
        show_payment,
        priority=Priority.PAYMENT,
        access=Access.CALLER,
        spec=_SHOW,
    ),
    Route(
        "POST",
        "/v1/payments/{payment}/refunds",
        ask_refund,
        priority=Priority.PAYMENT,
        access=Access.CALLER,
        spec=_REFUND,
    ),
)
